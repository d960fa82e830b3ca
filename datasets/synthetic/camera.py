"""Cameras: a pinhole looking over a ground plane, and the light of its place.

World coordinates are metres: x to the right of the camera's axis, y up from the ground, z away from the camera.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from datasets.synthetic.canvas import Colour

STATURE = 1.7  # metres of an average person
_WEATHER = {
    # tint of the light RGB, sky at the top and at the horizon, strength of cast shadows
    "sunny": ((1.06, 1.02, 0.94), (92, 148, 214), (196, 220, 238), 0.5),
    "overcast": ((0.93, 0.96, 1.0), (168, 178, 188), (214, 218, 220), 0.12),
    "evening": ((1.08, 0.9, 0.74), (112, 120, 168), (246, 190, 132), 0.42),
    "dusk": ((0.66, 0.7, 0.9), (38, 50, 92), (136, 122, 142), 0.15),
    "haze": ((1.0, 1.0, 0.97), (178, 192, 200), (226, 228, 224), 0.24),
}


@dataclass(frozen=True)
class Light:
    """The light of a camera's place: `tint` multiplies every colour (RGB), `side` is -1 (from the left) to 1, `shadow`
    the strength of cast shadows (0 to 1), `shadow_length` in heights of what casts them."""

    tint: Colour
    sky_top: Colour
    sky_low: Colour
    side: float
    shadow: float
    shadow_length: float


@dataclass(frozen=True)
class Camera:
    """`size` is width and height of the image, `horizon` the horizon's row, `focal` the focal length and `middle` the
    axis's column, in pixels; `height` metres. People walk where |x| <= half_street and z <= depth, in metres."""

    kind: str
    size: tuple[int, int]
    horizon: float
    focal: float
    middle: float
    height: float
    half_street: float
    depth: float
    light: Light

    def project(self, points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
        """n x 2 pixels of n x 3 points in front of the camera."""
        x, y, z = np.atleast_2d(np.float64(points)).T
        return np.stack([self.middle + self.focal * x / z, self.horizon + self.focal * (self.height - y) / z], 1)

    def enlarged(self, factor: int) -> "Camera":
        """The same view on an image `factor` times as large."""
        pixels = {name: getattr(self, name) * factor for name in ("horizon", "focal", "middle")}
        return dataclasses.replace(self, size=(self.size[0] * factor, self.size[1] * factor), **pixels)

    def metre(self, z: float) -> float:
        """Pixels of a metre at distance z."""
        return self.focal / z

    def distance(self, row: float) -> float:
        """Distance of the ground seen in a row under the horizon."""
        return self.focal * self.height / (row - self.horizon)


def _draw_light(rng: Generator, indoors: bool) -> Light:
    weather = "overcast" if indoors else list(_WEATHER)[rng.integers(len(_WEATHER))]
    tint, top, low, shadow = _WEATHER[weather]
    tint = np.clip(np.multiply(tint, rng.normal(1, 0.015, 3) * rng.normal(1, 0.05)), 0.5, 1.15)
    side = float(rng.choice((-1, 1)) * rng.uniform(0.35, 1.0))
    return Light(tuple(tint), top, low, side, shadow, rng.uniform(0.4, 0.9))


def draw_camera(rng: Generator, kind: str, size: tuple[int, int], tallest: float) -> Camera:
    """A random camera for a kind of scene; `tallest` is the height of the nearest people, as a share of the image's."""
    width, height = size
    horizon = rng.uniform(0.16, 0.34)
    near_share = tallest * rng.uniform(0.84, 1.0)
    return Camera(
        kind=kind,
        size=size,
        horizon=horizon * height,
        focal=1.15 * height,
        middle=width * rng.uniform(0.4, 0.6),
        height=STATURE * (1 - horizon) / near_share,
        half_street=rng.uniform(4.2, 5.6) if kind in ("canyon", "arcade") else 12.0,
        depth=rng.uniform(13.0, 16.0),
        light=_draw_light(rng, kind == "arcade"),
    )
