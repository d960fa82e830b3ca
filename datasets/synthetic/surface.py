"""Procedural surfaces: colours as functions of metres on a plane, softened by how many metres a pixel covers.

Every function takes coordinate grids (float32, metres) and `footprint`, the metres per pixel there, and returns RGB or
a weight of the grids' shape. Detail finer than a pixel fades out instead of aliasing.
"""

import numpy as np

from datasets.synthetic.canvas import Colour

_JOINT = 0.017  # metres between stones


def cell_noise(columns: np.ndarray, rows: np.ndarray | float, seed: int) -> np.ndarray:
    """A value in [0, 1) for each pair of integers: a hash, so the same in every call."""
    columns, rows = np.asarray(columns, np.int64), np.asarray(rows, np.int64)
    mixed = (columns * 73856093) ^ (rows * 19349663) ^ (int(seed) * 83492791)
    mixed = (mixed ^ (mixed >> 13)) * 1274126177
    return ((mixed ^ (mixed >> 16)) & 0xFFFF).astype(np.float32) / np.float32(65536)


def inside(coordinate: np.ndarray, low: float, high: float, footprint: np.ndarray) -> np.ndarray:
    """1 between low and high, 0 outside, with an edge one pixel wide."""
    return np.clip((coordinate - low) / footprint + 0.5, 0, 1) * np.clip((high - coordinate) / footprint + 0.5, 0, 1)


def periodic(coordinate: np.ndarray, period: float, share: float, footprint: np.ndarray) -> np.ndarray:
    """1 in the first `share` of each period; where a period is finer than two pixels, the share itself."""
    offset = np.mod(coordinate, period)
    sharp = inside(offset, 0, share * period, footprint) + inside(offset, period, 2 * period, footprint)
    fade = np.clip(2 - 4 * footprint / period, 0, 1)
    return fade * np.clip(sharp, 0, 1) + (1 - fade) * share


def blend(base: np.ndarray, colour: Colour, weight: np.ndarray) -> np.ndarray:
    """`base` (RGB grid) with `colour` (RGB, or a grid) laid over it by `weight` (h x w, 0 to 1)."""
    return base + weight[..., None] * (np.float32(colour) - base)


def flat(shape: tuple[int, ...], colour: Colour) -> np.ndarray:
    """An RGB grid of one colour."""
    return np.broadcast_to(np.float32(colour), (*shape, 3))


def masonry(
    along: np.ndarray, up: np.ndarray, footprint: np.ndarray, size: tuple[float, float], colour: Colour, seed: int
) -> np.ndarray:
    """Bricks or slabs of their own brightness with dark joints, every other row shifted by half a stone.

    `size` is the length and height of a stone in metres.
    """
    length, height = size
    row = np.floor(up / height)
    shifted = along + 0.5 * length * np.mod(row, 2)
    tone = cell_noise(np.floor(shifted / length), row, seed)
    visible = np.clip(2 - 3 * footprint / height, 0, 1)
    rgb = flat(along.shape, colour) * (1 + 0.2 * visible * (tone - 0.5))[..., None]
    upright = periodic(shifted, length, _JOINT / length, footprint)
    joints = np.maximum(upright, periodic(up, height, _JOINT / height, footprint))
    return rgb * (1 - 0.35 * joints)[..., None]
