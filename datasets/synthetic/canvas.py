"""A small painter: polygons and rounded parts in shaded, patterned cloth on a transparent canvas, without jagged edges.

Colours are RGB in [0, 255] as float32. A canvas keeps premultiplied colour and coverage, so that a finished sprite can
be scaled with area averaging and laid over any background without a fringe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

Colour = Sequence[float] | np.ndarray
Points = Sequence[Sequence[float]] | np.ndarray
Shader = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""RGB that broadcasts to h x w x 3, from the pixels' columns (1 x w) and rows (h x 1)."""

_SHIFT = 4  # fractional bits of OpenCV's polygon coordinates
_EDGE = 3.0  # steepness of a pattern's edges: soft enough not to alias when small
_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)
_BRIGHT, _ROUND, _SIDE = 1.06, 0.34, 0.15  # brightness of the middle, fall-off to both edges, tilt towards the light


def _stripes(coordinate: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + _EDGE * np.sin(2 * np.pi * coordinate), 0, 1)


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "hoops": lambda along, _across: _stripes(along),
    "pinstripes": lambda _along, across: _stripes(1.3 * across),
    "checks": lambda along, across: (_stripes(along) + _stripes(across)) / 2,
    "dots": lambda along, across: np.clip(_EDGE * (np.cos(2 * np.pi * along) + np.cos(2 * np.pi * across) - 1.0), 0, 1),
    "diagonal": lambda along, across: _stripes(0.7 * (along + across)),
}
"""Share of the second colour, given two coordinates in periods of the pattern (along the body part, across it)."""


@dataclass(frozen=True)
class Cloth:
    """What a body part is covered with. `period` is that of the pattern, in statures."""

    colour: Colour
    second: Colour = (0.0, 0.0, 0.0)
    pattern: str = "plain"
    period: float = 0.06

    def paint(self, along: np.ndarray, across: np.ndarray) -> np.ndarray:
        """RGB at the given coordinates in statures: grids that broadcast to h x w give what broadcasts to h x w x 3."""
        base = np.float32(self.colour)
        if self.pattern == "plain":
            return base
        share = PATTERNS[self.pattern](along / self.period, across / self.period)[..., None]
        return base + share * (np.float32(self.second) - base)


class Canvas:
    """Premultiplied RGB (`colour`, h x w x 3) and `coverage` (h x w, 0 to 1), painted from back to front."""

    def __init__(self, width: int, height: int) -> None:
        self.colour = np.zeros((height, width, 3), np.float32)
        self.coverage = np.zeros((height, width), np.float32)

    def paint(self, outline: np.ndarray, shader: Colour | Shader, opacity: float = 1.0) -> None:
        """Fill a polygon of n x 2 pixels, clipped to the canvas, with an RGB colour or a function of the pixels."""
        outline = np.asarray(outline, np.float64)
        height, width = self.coverage.shape
        (left, top), (right, bottom) = outline.min(0).tolist(), outline.max(0).tolist()
        x1, y1 = max(int(left) - 1, 0), max(int(top) - 1, 0)
        x2, y2 = min(int(right) + 3, width), min(int(bottom) + 3, height)
        if x1 >= x2 or y1 >= y2:
            return
        mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
        points = np.round((outline - (x1, y1)) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, _SHIFT)
        weight = mask.astype(np.float32) * np.float32(opacity / 255)
        if callable(shader):
            rgb = shader(np.arange(x1, x2, dtype=np.float32)[None], np.arange(y1, y2, dtype=np.float32)[:, None])
        else:
            rgb = np.float32(shader)
        colour, coverage = self.colour[y1:y2, x1:x2], self.coverage[y1:y2, x1:x2]
        colour += weight[..., None] * (rgb - colour)
        coverage += weight * (1 - coverage)


def overlap(size: tuple[int, int], left: int, top: int, frame: tuple[int, ...]) -> tuple[tuple, tuple]:
    """Slices of a frame (h x w) and of a picture of `size` (h, w) laid at (left, top) of it, where both overlap."""
    x1, y1 = min(max(left, 0), frame[1]), min(max(top, 0), frame[0])
    x2, y2 = max(min(left + size[1], frame[1]), x1), max(min(top + size[0], frame[0]), y1)
    return np.s_[y1:y2, x1:x2], np.s_[y1 - top : y2 - top, x1 - left : x2 - left]


@dataclass(frozen=True)
class Sprite:
    """A cut-out picture: premultiplied RGB and coverage with the pixel of the frame its upper left corner falls on."""

    colour: np.ndarray
    coverage: np.ndarray
    left: int
    top: int


def cut_out(canvas: Canvas, scale: float, left: int, top: int) -> Sprite:
    """The canvas scaled by `scale` (at most 1) and laid at (left, top) of the frame, cropped to what is painted."""
    size = tuple(max(1, round(side * scale)) for side in canvas.coverage.shape[::-1])
    colour, coverage = (
        cv2.resize(grid, size, interpolation=cv2.INTER_AREA) for grid in (canvas.colour, canvas.coverage)
    )
    x, y, width, height = cv2.boundingRect((coverage > 0).astype(np.uint8))
    window = np.s_[y : y + height, x : x + width]
    return Sprite(colour[window], coverage[window], left + x, top + y)


def smooth_noise(rng: Generator, shape: tuple[int, int], cell: tuple[float, float], amplitude: float) -> np.ndarray:
    """Smooth noise h x w of standard deviation near `amplitude`; `cell` (x, y) is the size of its grains in pixels."""
    height, width = shape
    rows, columns = max(2, round(height / cell[1])), max(2, round(width / cell[0]))
    coarse = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(amplitude)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


Material = Cloth | Colour


def _as_cloth(material: Material) -> Cloth:
    return material if isinstance(material, Cloth) else Cloth(material)


class Brush:
    """Paints on a canvas at points (x, y, ...) in statures: x to the right of the feet, y up; the rest is ignored.

    `unit` is the pixels of a stature, `origin` the pixel (x, y) between the feet, `light_side` -1 (light from the left)
    to 1 (from the right), `rng` for the folds.
    """

    def __init__(self, canvas: Canvas, unit: float, origin: Colour, light_side: float, rng: Generator) -> None:
        self.canvas, self.unit, self.origin, self.light_side = canvas, unit, np.float64(origin), light_side
        grain = (max(2.0, 0.03 * unit), max(2.0, 0.07 * unit))
        self._folds = smooth_noise(rng, canvas.coverage.shape, grain, 0.055)

    def pixels(self, points: Points) -> np.ndarray:
        """n x 2 pixels of n points."""
        return self.origin + np.atleast_2d(np.float64(points))[:, :2] * (self.unit, -self.unit)

    def _light(self, xx: np.ndarray, yy: np.ndarray, across: np.ndarray, dim: float) -> np.ndarray:
        row, column = int(yy[0, 0]), int(xx[0, 0])
        folds = self._folds[row : row + yy.shape[0], column : column + xx.shape[1]]
        return (dim * (_BRIGHT - _ROUND * across * across + _SIDE * self.light_side * across + folds))[..., None]

    def limb(self, start: Colour, end: Colour, radii: Colour, material: Material, dim: float = 1.0) -> None:
        """A tapered limb between two points; `radii` at its ends in statures."""
        cloth, (a, b) = _as_cloth(material), self.pixels([start[:2], end[:2]])
        radius_a, radius_b = (radius * self.unit for radius in radii)
        circles = np.concatenate([a + radius_a * _CIRCLE, b + radius_b * _CIRCLE]).astype(np.float32)
        length = max(float(np.hypot(*(b - a))), 1e-3)
        axis = ((b - a) / length).astype(np.float32)
        slope, per_pixel = np.float32((radius_b - radius_a) / length), np.float32(1 / self.unit)

        def shade(xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
            right, down = xx - np.float32(a[0]), yy - np.float32(a[1])
            along = right * axis[0] + down * axis[1]
            across = down * axis[0] - right * axis[1]
            radius = radius_a + slope * np.minimum(np.maximum(along, 0), length)
            side = np.minimum(np.maximum(across / radius, -1), 1)
            rgb = cloth.paint(along * per_pixel, across * per_pixel)
            return rgb * self._light(xx, yy, side * (-1 if axis[1] > 0 else 1), dim)

        self.canvas.paint(cv2.convexHull(circles)[:, 0], shade)

    def profile(
        self, heights: Colour, half_widths: Colour, centres: Colour | float, material: Material, dim: float = 1.0
    ) -> None:
        """An upright part: its half widths and centres (x) at rising heights, all in statures."""
        cloth = _as_cloth(material)
        heights, half_widths = np.float64(heights), np.float64(half_widths)
        centres = np.broadcast_to(np.float64(centres), heights.shape)
        right, left = (np.stack([centres + side * half_widths, heights], 1) for side in (1, -1))

        def shade(xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
            height = (self.origin[1] - yy[:, 0]) / self.unit
            half = np.interp(height, heights, half_widths)[:, None].astype(np.float32)
            centre = np.interp(height, heights, centres)[:, None].astype(np.float32)
            offset = (xx - np.float32(self.origin[0])) / np.float32(self.unit) - centre
            side = np.minimum(np.maximum(offset / np.maximum(half, np.float32(1e-3)), -1), 1)
            rgb = cloth.paint(height[:, None].astype(np.float32), np.arcsin(side) * half)
            return rgb * self._light(xx, yy, side, dim)

        self.canvas.paint(self.pixels(np.concatenate([right, left[::-1]])), shade)

    def ellipse(
        self,
        centre: Colour,
        radius_x: float,
        radius_y: float,
        material: Material,
        dim: float = 1.0,
        span: tuple[float, float] = (0.0, 360.0),
    ) -> None:
        """An ellipse, or the part of it between two angles (degrees, counter-clockwise from the right)."""
        cloth = _as_cloth(material)
        angles = np.radians(np.linspace(*span, 28))
        outline = np.stack([centre[0] + radius_x * np.cos(angles), centre[1] + radius_y * np.sin(angles)], 1)
        middle = self.pixels(centre[:2])[0]

        def shade(xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
            side = np.clip((xx - middle[0]) / (radius_x * self.unit), -1, 1).astype(np.float32)
            up = np.clip((middle[1] - yy) / (radius_y * self.unit), -1, 1).astype(np.float32)
            rgb = cloth.paint(up * np.float32(radius_y), side * np.float32(radius_x))
            return rgb * (self._light(xx, yy, side, dim) + 0.08 * up[..., None])

        self.canvas.paint(self.pixels(outline), shade)

    def flat(self, points: Points, colour: Colour, opacity: float = 1.0) -> None:
        """A polygon without shading."""
        self.canvas.paint(self.pixels(points), np.float32(colour), opacity)

    def rectangle(self, left: float, bottom: float, right: float, top: float, colour: Colour) -> None:
        """An upright rectangle without shading."""
        self.flat([(left, bottom), (right, bottom), (right, top), (left, top)], colour)
