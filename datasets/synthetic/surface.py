"""Procedural surfaces, colours as functions of metres on a plane, and the ground of each kind of scene.

Grids of coordinates are float32, in metres, and `footprint` the metres per pixel there. RGB and weights come in the
grids' shape. Detail finer than a pixel fades out instead of aliasing.
"""

import numpy as np
from numpy.random import Generator

from datasets.synthetic.camera import Camera
from datasets.synthetic.canvas import Colour

_ASPHALT, _KERB, _PAINT = (92, 93, 97), (168, 166, 160), (226, 226, 220)
_PAVING = ((164, 158, 150), (176, 166, 148), (150, 148, 150), (180, 150, 130))
_LAWN, _PATH = (98, 132, 62), (188, 170, 138)
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


class Level:
    """Metres (x, z) and their footprint for the pixels of a level plane, `below` metres under the camera, in `rows`.

    `across` is the footprint along x, `deep` that along z, which grows faster towards the horizon.
    """

    def __init__(self, camera: Camera, below: float, rows: range) -> None:
        down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(camera.horizon)
        columns = np.arange(camera.size[0], dtype=np.float32)[None] - np.float32(camera.middle)
        self.shape = len(rows), camera.size[0]
        self.z = np.broadcast_to(np.float32(camera.focal * below) / down, self.shape)
        self.x = columns * self.z / np.float32(camera.focal)
        self.across = self.z / np.float32(camera.focal)
        self.deep = np.abs(self.z / down)
        self.half_street = camera.half_street

    def columns(self, left: float | np.ndarray, right: float | np.ndarray) -> np.ndarray:
        """1 between two x, 0 outside."""
        return inside(self.x, left, right, self.across)

    def rows(self, near: float, far: float) -> np.ndarray:
        """1 between two distances, 0 outside."""
        return inside(self.z, near, far, self.deep)


def _asphalt(ground: Level, rng: Generator) -> np.ndarray:
    base = flat(ground.shape, np.add(_ASPHALT, rng.normal(0, 8)))
    grit = cell_noise(np.floor(ground.x / 0.05), np.floor(ground.z / 0.1), rng.integers(1 << 20)) - 0.5
    return base * (1 + 0.12 * np.clip(1.5 - ground.deep / 0.1, 0, 1) * grit)[..., None]


def _paving(ground: Level, rng: Generator) -> np.ndarray:
    size = rng.choice((0.4, 0.6, 0.9))
    colour = np.add(_PAVING[rng.integers(len(_PAVING))], rng.normal(0, 6, 3))
    footprint = np.maximum(ground.across, 0.6 * ground.deep)
    return masonry(ground.x, ground.z, footprint, (size, size), colour, rng.integers(1 << 20))


def _grass(ground: Level, rng: Generator) -> np.ndarray:
    patches = cell_noise(np.floor(ground.x / 0.09), np.floor(ground.z / 0.16), rng.integers(1 << 20)) - 0.5
    mowing = periodic(ground.x + 0.3 * ground.z, 3.0, 0.5, ground.across) - 0.5
    tone = 1 + 0.25 * np.clip(1.5 - ground.deep / 0.12, 0, 1) * patches + 0.09 * mowing
    return flat(ground.shape, _LAWN) * tone[..., None]


def _road_across(ground: Level, rng: Generator) -> tuple[np.ndarray, float, float]:
    """A road from left to right with pavement on both sides, and the distances of its edges."""
    near, far = rng.uniform(4.2, 5.2), rng.uniform(8.2, 9.6)
    rgb = blend(_paving(ground, rng), _asphalt(ground, rng), ground.rows(near, far))
    for edge in (near, far):
        rgb = blend(rgb, _KERB, ground.rows(edge - 0.12, edge + 0.12))
    return rgb, near, far


def _shops(ground: Level, rng: Generator) -> np.ndarray:
    rgb, near, far = _road_across(ground, rng)
    middle = (near + far) / 2
    dashes = periodic(ground.x, 3.0, 0.5, ground.across) * ground.rows(middle - 0.07, middle + 0.07)
    return blend(rgb, _PAINT, 0.9 * dashes)


def _crossing(ground: Level, rng: Generator) -> np.ndarray:
    rgb, near, far = _road_across(ground, rng)
    left = rng.uniform(-4.0, 0.0)
    bars = periodic(ground.x - left, 1.0, 0.5, ground.across) * ground.columns(left, left + 3.6)
    return blend(rgb, _PAINT, 0.9 * bars * ground.rows(near + 0.3, far - 0.3))


def _canyon(ground: Level, rng: Generator) -> np.ndarray:
    """A road that leads away, a pavement on both sides."""
    half = 0.5 * ground.half_street
    road = ground.columns(-half, half)
    rgb = blend(_paving(ground, rng), _asphalt(ground, rng), road)
    for edge in (-half, half):
        rgb = blend(rgb, _KERB, ground.columns(edge - 0.1, edge + 0.1))
    start = rng.uniform(5.0, 7.5)
    bars = periodic(ground.x, 0.9, 0.5, ground.across) * ground.rows(start, start + 2.6) * road
    line = periodic(ground.z, 3.4, 0.5, ground.deep) * ground.columns(-0.07, 0.07)
    return blend(rgb, _PAINT, 0.88 * np.maximum(line * (1 - ground.rows(start - 1, start + 3.6)), bars))


def _park(ground: Level, rng: Generator) -> np.ndarray:
    bend, width = rng.uniform(-0.6, 0.6), rng.uniform(1.6, 2.4)
    centre = rng.uniform(-1.0, 1.0) + bend * (ground.z - 5) + 0.8 * np.sin(0.35 * ground.z)
    offset = ground.x - centre
    rgb = blend(_grass(ground, rng), _PATH, inside(offset, -width - 0.12, width + 0.12, ground.across))
    gravel = flat(ground.shape, _PATH) * (0.9 + 0.16 * cell_noise(ground.x / 0.07, ground.z / 0.12, 5))[..., None]
    return blend(rgb, gravel, inside(offset, -width, width, ground.across))


def _plaza(ground: Level, rng: Generator) -> np.ndarray:
    rgb = _paving(ground, rng)
    tile = rng.uniform(2.4, 3.4)
    lattice = np.maximum(periodic(ground.x, tile, 0.12, ground.across), periodic(ground.z, tile, 0.12, ground.deep))
    return blend(rgb, np.multiply(_PAVING[rng.integers(len(_PAVING))], 0.72), 0.7 * lattice)


def _campus(ground: Level, rng: Generator) -> np.ndarray:
    lawn = rng.uniform(8.5, 10.0)
    rgb = blend(_paving(ground, rng), _grass(ground, rng), ground.rows(lawn, 1e4))
    return blend(rgb, _KERB, ground.rows(lawn - 0.12, lawn + 0.1))


def _arcade(ground: Level, rng: Generator) -> np.ndarray:
    size = rng.uniform(0.8, 1.2)
    light, dark = np.float32((206, 200, 190)), np.float32((150, 142, 134))
    odd = np.mod(np.floor(ground.x / size) + np.floor(ground.z / size), 2) * np.clip(2 - 3 * ground.deep / size, 0, 1)
    return flat(ground.shape, light) + odd[..., None] * (dark - light) * np.float32(rng.uniform(0.3, 1.0))


GROUNDS = {"shops": _shops, "park": _park, "canyon": _canyon, "plaza": _plaza, "crossing": _crossing,
           "campus": _campus, "arcade": _arcade}  # fmt: skip
"""What gives the RGB of the ground's pixels, from a `Level` and a random generator, by kind of scene."""
