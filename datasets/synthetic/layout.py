"""Where people stand in an image: groups walk side by side over the ground, seen by a camera, without piling up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from datasets.synthetic.body import Pose
from datasets.synthetic.camera import STATURE, Camera
from datasets.synthetic.wardrobe import Look

_ATTEMPTS = 14
_MOST_COVERED = 0.5  # share of a person that others may cover, by boxes: the first placement under it is taken
_HALF_WIDTH = 0.15  # of a person's box, in heights
_SPACING, _ROW_SPACING = 0.78, 0.95  # metres between people side by side, between rows
_BELOW = 1.05  # feet may be this far down, in image heights
_BENDS = {"left": (0.2, 0.35, 1.6), "right": (0.15, 0.3, 1.9)}  # of the elbows, in radians
_DIRECTIONS = np.radians((0, 25, -25, 90, -90, 70, -70, 180, 155, -155))

Obstacle = tuple[float, float, float, float, float]
"""A box with its distance: x1, y1, x2, y2 in pixels, z in metres."""


@dataclass(frozen=True)
class Actor:
    """A person in an image: its look, its place in metres across and away, and the pose it is seen in."""

    look: Look
    x: float
    z: float
    pose: Pose

    def foot(self, camera: Camera) -> np.ndarray:
        """The pixel (x, y) where the person stands."""
        return camera.project([(self.x, 0, self.z)])[0]

    def height(self, camera: Camera) -> float:
        """The person's height in pixels."""
        return STATURE * self.look.stature * camera.metre(self.z)


def lay_out(
    camera: Camera,
    parties: Sequence[Sequence[Look]],
    obstacles: Sequence[Obstacle],
    heights: tuple[float, float],
    rng: Generator,
) -> list[Actor]:
    """Give each person a place and a pose.

    `parties` are the looks of people who walk together, `obstacles` what nobody should stand behind, `heights` those of
    the farthest and the nearest person of average stature, as shares of the image's height.
    """
    things = np.reshape(obstacles, (-1, 5))
    actors: list[Actor] = []
    for looks in parties:
        best, best_cover = [], np.inf
        for _ in range(_ATTEMPTS):
            party = _place_party(camera, looks, heights, rng)
            cover = _worst_cover(np.array([_box(camera, actor) for actor in actors + party]), things, camera.size)
            if cover < best_cover:
                best, best_cover = party, cover
            if best_cover <= _MOST_COVERED:
                break
        actors += best
    return actors


def _place_party(camera: Camera, looks: Sequence[Look], heights: tuple[float, float], rng: Generator) -> list[Actor]:
    """People in rows of one to three, walking in one direction."""
    width, height = camera.size
    reach = camera.focal * STATURE / height
    near = max(reach / heights[1], camera.distance(_BELOW * height))
    far = max(min(reach / heights[0], camera.depth), near + 0.5)
    z = near + (far - near) * rng.random() ** 1.35
    left, right = ((column - camera.middle) / camera.metre(z) for column in (0.06 * width, 0.94 * width))
    bound = camera.half_street - 0.3
    x = rng.uniform(max(left, -bound), min(right, bound))
    direction = float(rng.choice(_DIRECTIONS) + rng.normal(0, 0.12))
    abreast = int(rng.integers(1, 4))
    stride = 0.03 if rng.random() < 0.12 else rng.uniform(0.25, 0.46)
    party = []
    for index, look in enumerate(looks):
        row, column = divmod(index, abreast)
        aside = (column - (min(len(looks), abreast) - 1) / 2) * _SPACING + rng.normal(0, 0.08)
        behind = row * _ROW_SPACING + rng.normal(0, 0.18)
        across = x + aside * np.cos(direction) - behind * np.sin(direction)
        away = z + aside * np.sin(direction) + behind * np.cos(direction)
        across, away = float(np.clip(across, -bound, bound)), float(np.clip(away, near, far + 1.0))
        heading, phase = direction + rng.normal(0, 0.15), rng.uniform(0, 2 * np.pi)
        bends = tuple(float(rng.choice(_BENDS[side], p=(0.5, 0.4, 0.1))) for side in ("left", "right"))
        party.append(Actor(look, across, away, Pose(heading, phase, stride, bends)))
    return party


def _box(camera: Camera, actor: Actor) -> Obstacle:
    (column, row), height = actor.foot(camera), actor.height(camera)
    return column - _HALF_WIDTH * height, row - height, column + _HALF_WIDTH * height, row, actor.z


def _worst_cover(people: np.ndarray, obstacles: np.ndarray, size: tuple[int, int]) -> float:
    """The largest share of any person's box that is hidden by nearer boxes or outside the image."""
    x1, y1, x2, y2, z = people.T[:, :, None]
    left, top, right, bottom, distance = np.concatenate([people, obstacles]).T[:, None]
    wide = np.maximum(np.minimum(right, x2) - np.maximum(left, x1), 0)
    tall = np.maximum(np.minimum(bottom, y2) - np.maximum(top, y1), 0)
    hidden = (wide * tall * (distance < z)).sum(1, keepdims=True)
    seen = np.maximum(np.minimum(x2, size[0]) - np.maximum(x1, 0), 0) * np.maximum(np.minimum(y2, size[1]) - y1, 0)
    area = (x2 - x1) * (y2 - y1)
    return float(((hidden + area - seen) / area).max())
