"""The background of each camera: sky, buildings, ground and greenery of its place, without people."""

import cv2
import numpy as np
from numpy.random import Generator

from datasets.synthetic.camera import Camera
from datasets.synthetic.canvas import Canvas, smooth_noise
from datasets.synthetic.facade import Facade, paint_facade
from datasets.synthetic.ground import Level, paint_ground
from datasets.synthetic.props import paint_hedge, paint_tree, standing_brush
from datasets.synthetic.surface import blend, flat, periodic

_OVERSAMPLING = 2
_HAZE = 90.0  # metres at which a colour is halfway to the sky's
_CEILING = 4.6  # metres


class Stage:
    """A canvas with a camera: surfaces are painted from far to near."""

    def __init__(self, camera: Camera, rng: Generator) -> None:
        self.camera, self.rng, self.light = camera, rng, camera.light
        self.canvas = Canvas(*camera.size)
        self.lit = float(np.clip(1.0 - np.mean(self.light.tint), 0, 0.6) * 2)

    def haze(self, rgb: np.ndarray, distance: float | np.ndarray) -> np.ndarray:
        """The colour as seen through the air; distance a number or a grid."""
        share = np.float32(distance) / (np.float32(distance) + np.float32(_HAZE))
        return rgb + np.broadcast_to(share, rgb.shape[:2])[..., None] * (np.float32(self.light.sky_low) - rgb)

    def front(self, style: Facade, left: float, right: float, distance: float, height: float) -> None:
        """A building's front facing the camera."""
        camera = self.camera
        scale = np.float32(distance / camera.focal)

        def shade(xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
            along = (xx - np.float32(camera.middle)) * scale - np.float32(left)
            up = np.float32(camera.height) - (yy - np.float32(camera.horizon)) * scale
            return self.haze(paint_facade(style, *np.broadcast_arrays(along, up, scale)), distance)

        wall = [(left, 0), (right, 0), (right, height), (left, height)]
        cornice = [(left, height - 0.3), (right, height - 0.3), (right + 0.1, height), (left - 0.1, height)]
        self.canvas.paint(camera.project([(*point, distance) for point in wall]), shade)
        self.canvas.paint(camera.project([(*point, distance) for point in cornice]), np.multiply(style.wall, 0.8))

    def side(self, style: Facade, x: float, near: float, far: float, height: float) -> None:
        """A building's front along the street, in the plane of one x."""
        camera = self.camera
        shadow = 0.78 if np.sign(x) == np.sign(self.light.side) else 1.0

        def shade(xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
            offset = xx - np.float32(camera.middle)
            offset = np.where(np.abs(offset) < 1, np.copysign(1, x), offset)
            distance = np.clip(np.float32(camera.focal * x) / offset, np.float32(near), np.float32(far))
            up = np.float32(camera.height) - (yy - np.float32(camera.horizon)) * distance / np.float32(camera.focal)
            grids = np.broadcast_arrays(distance - np.float32(near), up, distance / np.abs(offset))
            return self.haze(paint_facade(style, *grids) * np.float32(shadow), distance)

        corners = [(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)]
        self.canvas.paint(camera.project(corners), shade)

    def facade(self, shop: bool) -> Facade:
        """A random style of a front in this light."""
        return Facade(self.rng, shop, self.lit, self.light.sky_low)


def _paint_sky(stage: Stage) -> None:
    width, height = stage.camera.size
    rows = np.arange(height, dtype=np.float32)[:, None, None]
    share = np.minimum(rows / np.float32(stage.camera.horizon), 1)
    top, low = np.float32(stage.light.sky_top), np.float32(stage.light.sky_low)
    sky = np.broadcast_to(top + share * (low - top), (height, width, 3)).copy()
    clouds = smooth_noise(stage.rng, (height, width), (width / 5, height / 14), 1.0)
    clouds += smooth_noise(stage.rng, (height, width), (width / 16, height / 40), 0.5)
    sky = blend(sky, np.minimum(low * 1.12, 250), 0.7 * np.clip(clouds - 0.3, 0, 1))
    stage.canvas.colour[:], stage.canvas.coverage[:] = sky, 1.0


def _paint_skyline(stage: Stage) -> None:
    x, rng = -70.0, stage.rng
    while x < 70:
        width = rng.uniform(8, 18)
        stage.front(stage.facade(shop=False), x, x + width, rng.uniform(48, 70), rng.uniform(8, 24))
        x += width + rng.choice((0.0, 0.0, 5.0))


def _paint_row(stage: Stage, distance: float, shop: bool, heights: tuple[float, float], gap: float = 0.0) -> None:
    """Buildings side by side, facing the camera."""
    x, rng = -24.0 + stage.rng.uniform(0, 5), stage.rng
    while x < 24:
        width = rng.uniform(7.5, 13)
        stage.front(stage.facade(shop), x, x + width, distance, rng.uniform(*heights))
        x += width + gap * rng.random()


def _paint_sides(stage: Stage, shop: bool, heights: tuple[float, float]) -> None:
    """Buildings along both sides of the street."""
    camera, rng = stage.camera, stage.rng
    for x in (-camera.half_street - 0.6, camera.half_street + 0.6):
        edges = [0.6]
        while edges[-1] < 46:
            edges.append(edges[-1] + rng.uniform(7, 12))
        for near, far in reversed(list(zip(edges, edges[1:], strict=False))):
            stage.side(stage.facade(shop), x, near, far, rng.uniform(*heights))


def _paint_trees(stage: Stage, distances: tuple[float, float], count: int) -> None:
    for distance in sorted(stage.rng.uniform(*distances, count), reverse=True):
        x = stage.rng.uniform(-0.55 * distance, 0.55 * distance)
        paint_tree(standing_brush(stage.canvas, stage.camera, x, distance, stage.rng), stage.rng)


def _paint_buildings(stage: Stage) -> None:
    camera, depth = stage.camera, stage.camera.depth
    if camera.kind == "arcade":
        stage.front(Facade(stage.rng, True, 0.5, stage.light.sky_low), -8, 8, 34.0, _CEILING)
        _paint_sides(stage, True, (_CEILING, _CEILING))
    elif camera.kind == "canyon":
        _paint_sides(stage, True, (8, 15))
    elif camera.kind == "park":
        _paint_trees(stage, (depth + 3, 34), 22)
        brush = standing_brush(stage.canvas, camera, 0, depth + 2.5, stage.rng)
        paint_hedge(brush, 1.24 * camera.size[0] / brush.unit, stage.rng)
    elif camera.kind == "plaza":
        _paint_row(stage, depth + 11, False, (7, 14), gap=3.0)
        _paint_trees(stage, (depth + 2, depth + 9), 5)
    elif camera.kind == "campus":
        _paint_row(stage, depth + 6, False, (9, 13))
        _paint_trees(stage, (depth + 1.5, depth + 5), 4)
    else:
        _paint_row(stage, depth + 1.5, True, (7, 12))


def _paint_ceiling(stage: Stage) -> None:
    camera = stage.camera
    level = Level(camera, camera.height - _CEILING, range(int(camera.horizon) - 1))
    panels = np.maximum(periodic(level.x, 1.2, 0.03, level.across), periodic(level.z, 1.2, 0.03, level.deep))
    rgb = flat(level.shape, (198, 198, 196)) * (1 - 0.3 * panels)[..., None]
    lamps = (level.columns(-1.9, -1.3) + level.columns(1.3, 1.9)) * periodic(level.z, 2.4, 0.55, level.deep)
    stage.canvas.colour[: level.shape[0]] = stage.haze(blend(rgb, (255, 252, 238), lamps), 0.5 * level.z)


def _ground_shadow(stage: Stage, ground: Level) -> np.ndarray:
    """Brightness of the ground: the shade of what stands outside the picture, and stains."""
    rng, light = stage.rng, stage.light
    noise = smooth_noise(rng, ground.shape, (ground.shape[1] / 9, ground.shape[0] / 22), 0.045)
    edge = rng.uniform(1.0, 4.0) + 0.3 * ground.z * rng.uniform(-1, 1)
    shade = np.clip(0.5 + (ground.x * np.float32(light.side) - edge) / 0.5, 0, 1)
    distant = np.clip(1 - (ground.z - 4) / 60, 0.75, 1)
    return (1 + noise) * (1 - 0.75 * light.shadow * shade) * distant


def draw_background(camera: Camera, rng: Generator) -> np.ndarray:
    """RGB h x w x 3 float32 in [0, 255] of the camera's place, before its light's tint."""
    large = camera.enlarged(_OVERSAMPLING)
    stage = Stage(large, rng)
    _paint_sky(stage)
    if camera.kind == "arcade":
        _paint_ceiling(stage)
    elif camera.kind in ("park", "plaza", "canyon"):
        _paint_skyline(stage)
    top = int(np.ceil(large.horizon + 1.5))
    ground = Level(large, large.height, range(top, large.size[1]))
    rgb = paint_ground(ground, camera.kind, rng) * _ground_shadow(stage, ground)[..., None]
    stage.canvas.colour[top:] = stage.haze(rgb, ground.z)
    _paint_buildings(stage)
    return cv2.resize(stage.canvas.colour, camera.size, interpolation=cv2.INTER_AREA)
