"""A small painter: anti-aliased polygons with shaded, patterned cloth on a transparent canvas.

Colours are RGB in [0, 255] as float32. A canvas keeps premultiplied colour and coverage, so that a finished sprite can
be scaled with area averaging and laid over any background without a fringe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

Colour = Sequence[float] | np.ndarray
Window = tuple[slice, slice]
Shader = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""RGB that broadcasts to h x w x 3, from the pixels' columns (1 x w) and rows (h x 1)."""

_SHIFT = 4  # fractional bits of OpenCV's polygon coordinates
_EDGE = 3.0  # steepness of a pattern's edges: soft enough not to alias when small


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
        """Fill a polygon.

        Args:
            outline: n x 2 pixels of the canvas; what lies outside is clipped.
            shader: an RGB colour, or a function of the pixels.
            opacity: 0 to 1.
        """
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


def overlap(size: tuple[int, int], left: int, top: int, frame: tuple[int, ...]) -> tuple[Window, Window]:
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
