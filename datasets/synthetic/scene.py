"""The background of each camera: sky, buildings, ground and greenery of its place, without people."""

import cv2
import numpy as np
from numpy.random import Generator

from datasets.synthetic.camera import Camera, Light
from datasets.synthetic.canvas import Canvas, smooth_noise
from datasets.synthetic.props import paint_hedge, paint_tree, standing_brush
from datasets.synthetic.surface import GROUNDS, Level, blend, cell_noise, flat, inside, masonry, periodic

_OVERSAMPLING = 2
_HAZE = 90.0  # metres at which a colour is halfway to the sky's
_CEILING = 4.6  # metres
_WALLS = ((196, 182, 160), (172, 108, 84), (150, 84, 66), (206, 200, 190), (188, 160, 120), (140, 146, 150),
          (214, 196, 150), (176, 186, 176))  # fmt: skip
_SIGNS = ((180, 40, 44), (32, 92, 150), (36, 110, 70), (226, 160, 40), (70, 50, 92), (40, 40, 46), (214, 96, 50))
_SHOP_HEIGHT, _SHOP_WIDTH = 3.6, 5.2


class Facade:
    """A random style of a front, in metres, with shops on the ground floor or not."""

    def __init__(self, rng: Generator, light: Light, shop: bool) -> None:
        self.shop, self.sky = shop, light.sky_low
        self.lit = float(np.clip(2 - 2 * np.mean(light.tint), 0, 1.2))  # share of the windows with light behind them
        self.wall = np.clip(np.float64(_WALLS[rng.integers(len(_WALLS))]) + rng.normal(0, 8, 3), 30, 240)
        self.brick = rng.random() < 0.45
        self.storey, self.bay = rng.uniform(2.9, 3.5), rng.uniform(1.9, 3.1)
        self.window = rng.uniform(0.42, 0.66), rng.uniform(0.5, 0.64)
        self.frame = (238, 236, 230) if rng.random() < 0.6 else (60, 56, 54)
        self.seed = int(rng.integers(1 << 30))


def _paint_facade(style: Facade, along: np.ndarray, up: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """RGB of a front, from grids of metres along it, metres up from the ground, and metres per pixel."""
    if style.brick:
        rgb = masonry(along, up, footprint, (0.3, 0.12), style.wall, style.seed)
    else:
        rgb = flat(up.shape, style.wall) * (1 - 0.1 * periodic(up, style.storey, 0.04, footprint))[..., None]
    rgb = _paint_windows(style, rgb, along, up, footprint / style.bay)
    if style.shop:
        rgb = _paint_shops(style, rgb, along, up, footprint)
    else:
        rgb = blend(rgb, np.multiply(style.wall, 0.66), inside(up, -1.0, 0.6, footprint))
    return rgb * (0.86 + 0.14 * np.clip(up / 2.0, 0, 1))[..., None]


def _paint_windows(style: Facade, rgb: np.ndarray, along: np.ndarray, up: np.ndarray, edge: np.ndarray) -> np.ndarray:
    column, row = np.floor(along / style.bay), np.floor(up / style.storey)
    x, y = np.mod(along, style.bay) / style.bay, np.mod(up, style.storey) / style.storey
    wide, tall = style.window
    left, low = (1 - wide) / 2, 0.28
    frame = inside(x, left - 0.03, left + wide + 0.03, edge) * inside(y, low - 0.03, low + tall + 0.02, edge)
    sill = inside(y, low - 0.09, low - 0.05, edge) * inside(x, 0.12, 0.88, edge)
    pane = inside(x, left, left + wide, edge) * inside(y, low, low + tall, edge)
    pane = pane * (1 - 0.8 * inside(x, 0.485, 0.515, edge))
    blind = (cell_noise(column, row, style.seed) > 0.72) & (y > low + 0.55 * tall)
    lamp = np.float32((255, 216, 140)) * (1 + style.lit)
    glass = flat(along.shape, (44, 56, 70)) + (0.42 * (y - low) / tall)[..., None] * np.float32(style.sky)
    glass = blend(glass, (206, 200, 186), 0.5 * blind)
    glass = blend(glass, lamp, 0.9 * (cell_noise(column, row, style.seed + 1) < style.lit))
    rgb = blend(rgb, style.frame, frame)
    rgb = blend(rgb, np.multiply(style.wall, 0.7), sill)
    return blend(rgb, glass, pane)


def _paint_shops(style: Facade, rgb: np.ndarray, along: np.ndarray, up: np.ndarray, edge: np.ndarray) -> np.ndarray:
    shop, x = np.floor(along / _SHOP_WIDTH), np.mod(along, _SHOP_WIDTH)
    sign = np.float32(_SIGNS)[(cell_noise(shop, 0, style.seed + 2) * len(_SIGNS)).astype(int)]
    rgb = blend(rgb, 0.45 * sign + np.float32((56, 54, 52)), inside(up, -1.0, _SHOP_HEIGHT, edge))
    glow = 0.35 + 0.5 * cell_noise(shop, 1, style.seed + 3) + 1.5 * style.lit
    display = flat(along.shape, (84, 84, 88)) + (glow * (1 - 0.2 * up))[..., None] * np.float32((120, 112, 94))
    display = display + 0.1 * np.float32(style.sky)
    place = np.floor(along / 0.34)  # of the goods on the shelf
    height = cell_noise(np.floor(x / 0.34), place, style.seed + 4)
    goods = np.stack([cell_noise(place, channel, style.seed + 5) for channel in range(3)], -1)
    display = blend(display, 60 + 150 * goods, 0.75 * inside(up, 0.55, 0.7 + 1.1 * height, edge))
    door = inside(x, 3.75, 4.85, edge) * inside(up, 0.0, 2.6, edge) * (1 - inside(x, 4.26, 4.34, edge))
    rgb = blend(rgb, display, inside(x, 0.35, 3.45, edge) * inside(up, 0.5, 2.6, edge))
    rgb = blend(rgb, 0.62 * display, door)
    rgb = blend(rgb, sign, inside(up, 2.9, 3.5, edge) * inside(x, 0.15, 5.05, edge))
    letters = periodic(along, 0.34, 0.62, edge) * inside(x, 1.2, 4.0, edge) * inside(up, 3.06, 3.34, edge)
    rgb = blend(rgb, (244, 240, 230), 0.85 * letters)
    has_awning = cell_noise(shop, 2, style.seed + 6) < 0.5
    stripes = 0.5 + 0.5 * np.sign(np.sin(along * 14))
    cloth = sign + (stripes * 0.75)[..., None] * (np.float32((242, 240, 234)) - sign)
    return blend(rgb, cloth, has_awning * inside(up, 2.35, 2.86, edge) * inside(x, 0.15, 5.05, edge))


class Stage:
    """A canvas with a camera: surfaces are painted from far to near."""

    def __init__(self, camera: Camera, rng: Generator) -> None:
        self.camera, self.rng, self.light = camera, rng, camera.light
        self.canvas = Canvas(*camera.size)

    def haze(self, rgb: np.ndarray, distance: float | np.ndarray) -> np.ndarray:
        """The colour as seen through the air; distance a number or a grid."""
        share = np.float32(distance) / (np.float32(distance) + np.float32(_HAZE))
        return rgb + np.broadcast_to(share, rgb.shape[:2])[..., None] * (np.float32(self.light.sky_low) - rgb)

    def front(
        self, shop: bool, start: tuple[float, float], end: tuple[float, float], height: float, dim: float = 1.0
    ) -> None:
        """A building's front of a height in metres above a line on the ground, from (x, z) to (x, z); `dim` darkens."""
        style = Facade(self.rng, self.light, shop)
        camera, focal = self.camera, self.camera.focal
        (x, z), length = start, float(np.hypot(end[0] - start[0], end[1] - start[1]))
        step_x, step_z = (end[0] - x) / length, (end[1] - z) / length

        def shade(xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
            slope = (xx - np.float32(camera.middle)) / np.float32(focal)  # of a pixel's ray: metres aside per metre
            turn = slope * np.float32(step_z) - np.float32(step_x)
            turn = np.where(np.abs(turn) < 1 / focal, np.copysign(np.float32(1 / focal), x), turn)
            along = np.clip((np.float32(x) - slope * np.float32(z)) / turn, 0, length)
            distance = np.float32(z) + along * np.float32(step_z)
            up = np.float32(camera.height) - (yy - np.float32(camera.horizon)) * distance / np.float32(focal)
            along, up, edge = np.broadcast_arrays(along, up, distance / np.abs(turn) / np.float32(focal))
            cornice = inside(up, height - 0.3, height + 0.1, edge)
            rgb = blend(_paint_facade(style, along, up, edge), 0.8 * style.wall, cornice)
            return self.haze(rgb * np.float32(dim), distance)

        corners = [(*start, 0), (*end, 0), (*end, height), (*start, height)]
        self.canvas.paint(camera.project([(x, up, z) for x, z, up in corners]), shade)


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


def _paint_row(stage: Stage, distance: float, heights: tuple[float, float], shop: bool = False, gap: float = 0) -> None:
    """Buildings side by side, facing the camera."""
    rng, reach = stage.rng, 1.3 * distance  # metres to both sides
    x = rng.uniform(0, 5) - reach
    while x < reach:
        width = rng.uniform(7.5, 13)
        stage.front(shop, (x, distance), (x + width, distance), rng.uniform(*heights))
        x += width + gap * rng.random()


def _paint_sides(stage: Stage, heights: tuple[float, float]) -> None:
    """Shops along both sides of the street."""
    camera, rng = stage.camera, stage.rng
    for x in (-camera.half_street - 0.6, camera.half_street + 0.6):
        edges, dim = [0.6], 0.78 if x * stage.light.side > 0 else 1.0
        while edges[-1] < 46:
            edges.append(edges[-1] + rng.uniform(7, 12))
        for near, far in reversed(list(zip(edges, edges[1:], strict=False))):
            stage.front(True, (x, near), (x, far), rng.uniform(*heights), dim)


def _paint_trees(stage: Stage, distances: tuple[float, float], count: int) -> None:
    for distance in sorted(stage.rng.uniform(*distances, count), reverse=True):
        x = stage.rng.uniform(-0.55 * distance, 0.55 * distance)
        paint_tree(standing_brush(stage.canvas, stage.camera, x, distance, stage.rng), stage.rng)


def _paint_buildings(stage: Stage) -> None:
    camera, depth = stage.camera, stage.camera.depth
    if camera.kind == "arcade":
        stage.front(True, (-8, 34), (8, 34), _CEILING)
        _paint_sides(stage, (_CEILING, _CEILING))
    elif camera.kind == "canyon":
        _paint_sides(stage, (8, 15))
    elif camera.kind == "park":
        _paint_trees(stage, (depth + 3, 34), 22)
        brush = standing_brush(stage.canvas, camera, 0, depth + 2.5, stage.rng)
        paint_hedge(brush, 1.24 * camera.size[0] / brush.unit, stage.rng)
    elif camera.kind == "plaza":
        _paint_row(stage, depth + 11, (7, 14), gap=3.0)
        _paint_trees(stage, (depth + 2, depth + 9), 5)
    elif camera.kind == "campus":
        _paint_row(stage, depth + 6, (9, 13))
        _paint_trees(stage, (depth + 1.5, depth + 5), 4)
    else:
        _paint_row(stage, depth + 1.5, (7, 12), shop=True)


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
        _paint_row(stage, 58, (8, 24), gap=3.0)
    top = int(np.ceil(large.horizon + 1.5))
    ground = Level(large, large.height, range(top, large.size[1]))
    rgb = GROUNDS[camera.kind](ground, rng) * _ground_shadow(stage, ground)[..., None]
    stage.canvas.colour[top:] = stage.haze(rgb, ground.z)
    _paint_buildings(stage)
    return cv2.resize(stage.canvas.colour, camera.size, interpolation=cv2.INTER_AREA)
