"""Paints rounded body parts, given in statures, on a canvas: shading across the part, folds in the cloth."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator

from datasets.synthetic.canvas import Canvas, Cloth, Colour, smooth_noise

Points = Sequence[Sequence[float]] | np.ndarray
Material = Cloth | Colour

_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)
_BRIGHT, _ROUND, _SIDE = 1.06, 0.34, 0.15  # brightness of the middle, fall-off to both edges, tilt towards the light


def _as_cloth(material: Material) -> Cloth:
    return material if isinstance(material, Cloth) else Cloth(material)


class Brush:
    """Points are (x, y, ...) in statures: x to the right of the feet, y up. Further coordinates are ignored.

    Args:
        canvas: what is painted on.
        unit: pixels of a stature.
        origin: pixel (x, y) of the point between the feet.
        light_side: -1 (light from the left) to 1 (from the right).
        rng: for the folds.
        detail: whether the finished picture is large enough to show eyes.
    """

    def __init__(
        self, canvas: Canvas, unit: float, origin: Colour, light_side: float, rng: Generator, detail: bool = True
    ) -> None:
        self.canvas, self.unit, self.origin, self.light_side = canvas, unit, np.float64(origin), light_side
        self.detail = detail
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
