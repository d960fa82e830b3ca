"""Fronts of buildings as procedural surfaces: windows by storey, shop fronts with signs, awnings and doors."""

import numpy as np
from numpy.random import Generator

from datasets.synthetic.canvas import Colour
from datasets.synthetic.surface import blend, cell_noise, flat, inside, masonry, periodic

_WALLS = ((196, 182, 160), (172, 108, 84), (150, 84, 66), (206, 200, 190), (188, 160, 120), (140, 146, 150),
          (214, 196, 150), (176, 186, 176))  # fmt: skip
_SIGNS = ((180, 40, 44), (32, 92, 150), (36, 110, 70), (226, 160, 40), (70, 50, 92), (40, 40, 46), (214, 96, 50))
_SHOP_HEIGHT, _SHOP_WIDTH = 3.6, 5.2


class Facade:
    """A random style of a front, in metres.

    Args:
        rng: for every random choice.
        shop: whether there are shops on the ground floor.
        lit: share of the windows with light behind them.
        sky: the RGB that the panes reflect.
    """

    def __init__(self, rng: Generator, shop: bool, lit: float, sky: Colour) -> None:
        self.shop, self.lit, self.sky = shop, lit, sky
        self.wall = np.clip(np.float64(_WALLS[rng.integers(len(_WALLS))]) + rng.normal(0, 8, 3), 30, 240)
        self.brick = rng.random() < 0.45
        self.storey, self.bay = rng.uniform(2.9, 3.5), rng.uniform(1.9, 3.1)
        self.window = rng.uniform(0.42, 0.66), rng.uniform(0.5, 0.64)
        self.frame = (238, 236, 230) if rng.random() < 0.6 else (60, 56, 54)
        self.seed = int(rng.integers(1 << 30))


def paint_facade(style: Facade, along: np.ndarray, up: np.ndarray, footprint: np.ndarray) -> np.ndarray:
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
