"""The background of each camera: sky, buildings, ground and greenery of its place, without people."""

import cv2
import numpy as np
from numpy.random import Generator

from datasets.synthetic.camera import Camera
from datasets.synthetic.canvas import Canvas, smooth_noise
from datasets.synthetic.facade import Facade, paint_facade
from datasets.synthetic.ground import GROUNDS, Level
from datasets.synthetic.props import paint_hedge, paint_tree, standing_brush
from datasets.synthetic.surface import blend, flat, inside, periodic

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

    def front(
        self, style: Facade, start: tuple[float, float], end: tuple[float, float], height: float, dim: float = 1.0
    ) -> None:
        """A building's front of a height in metres above a line on the ground, from (x, z) to (x, z); `dim` darkens."""
        camera, focal = self.camera, self.camera.focal
        (x, z), length = start, float(np.hypot(end[0] - start[0], end[1] - start[1]))
        step_x, step_z = (end[0] - x) / length, (end[1] - z) / length

        def shade(xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
            slope = (xx - np.float32(camera.middle)) / np.float32(
                focal
            )  # of a pixel's ray: metres aside per metre away
            turn = slope * np.float32(step_z) - np.float32(step_x)
            turn = np.where(np.abs(turn) < 1 / focal, np.copysign(np.float32(1 / focal), x), turn)
            along = np.clip((np.float32(x) - slope * np.float32(z)) / turn, 0, length)
            distance = np.float32(z) + along * np.float32(step_z)
            up = np.float32(camera.height) - (yy - np.float32(camera.horizon)) * distance / np.float32(focal)
            along, up, edge = np.broadcast_arrays(along, up, distance / np.abs(turn) / np.float32(focal))
            cornice = inside(up, height - 0.3, height + 0.1, edge)
            rgb = blend(paint_facade(style, along, up, edge), 0.8 * style.wall, cornice)
            return self.haze(rgb * np.float32(dim), distance)

        corners = [(*start, 0), (*end, 0), (*end, height), (*start, height)]
        self.canvas.paint(camera.project([(x, up, z) for x, z, up in corners]), shade)

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


def _paint_row(
    stage: Stage,
    distances: tuple[float, float],
    heights: tuple[float, float],
    shop: bool = False,
    gap: float = 0.0,
    reach: float = 24.0,
) -> None:
    """Buildings side by side, facing the camera, up to `reach` metres to both sides."""
    x, rng = -reach + stage.rng.uniform(0, 5), stage.rng
    while x < reach:
        width, distance = rng.uniform(7.5, 13), rng.uniform(*distances)
        stage.front(stage.facade(shop), (x, distance), (x + width, distance), rng.uniform(*heights))
        x += width + gap * rng.random()


def _paint_sides(stage: Stage, shop: bool, heights: tuple[float, float]) -> None:
    """Buildings along both sides of the street."""
    camera, rng = stage.camera, stage.rng
    for x in (-camera.half_street - 0.6, camera.half_street + 0.6):
        edges, dim = [0.6], 0.78 if x * stage.light.side > 0 else 1.0
        while edges[-1] < 46:
            edges.append(edges[-1] + rng.uniform(7, 12))
        for near, far in reversed(list(zip(edges, edges[1:], strict=False))):
            stage.front(stage.facade(shop), (x, near), (x, far), rng.uniform(*heights), dim)


def _paint_trees(stage: Stage, distances: tuple[float, float], count: int) -> None:
    for distance in sorted(stage.rng.uniform(*distances, count), reverse=True):
        x = stage.rng.uniform(-0.55 * distance, 0.55 * distance)
        paint_tree(standing_brush(stage.canvas, stage.camera, x, distance, stage.rng), stage.rng)


def _paint_buildings(stage: Stage) -> None:
    camera, depth = stage.camera, stage.camera.depth
    if camera.kind == "arcade":
        stage.front(Facade(stage.rng, True, 0.5, stage.light.sky_low), (-8, 34), (8, 34), _CEILING)
        _paint_sides(stage, True, (_CEILING, _CEILING))
    elif camera.kind == "canyon":
        _paint_sides(stage, True, (8, 15))
    elif camera.kind == "park":
        _paint_trees(stage, (depth + 3, 34), 22)
        brush = standing_brush(stage.canvas, camera, 0, depth + 2.5, stage.rng)
        paint_hedge(brush, 1.24 * camera.size[0] / brush.unit, stage.rng)
    elif camera.kind == "plaza":
        _paint_row(stage, (depth + 11, depth + 11), (7, 14), gap=3.0)
        _paint_trees(stage, (depth + 2, depth + 9), 5)
    elif camera.kind == "campus":
        _paint_row(stage, (depth + 6, depth + 6), (9, 13))
        _paint_trees(stage, (depth + 1.5, depth + 5), 4)
    else:
        _paint_row(stage, (depth + 1.5, depth + 1.5), (7, 12), shop=True)


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
        _paint_row(stage, (48, 70), (8, 24), gap=3.0, reach=70.0)
    top = int(np.ceil(large.horizon + 1.5))
    ground = Level(large, large.height, range(top, large.size[1]))
    rgb = GROUNDS[camera.kind](ground, rng) * _ground_shadow(stage, ground)[..., None]
    stage.canvas.colour[top:] = stage.haze(rgb, ground.z)
    _paint_buildings(stage)
    return cv2.resize(stage.canvas.colour, camera.size, interpolation=cv2.INTER_AREA)
