"""Things that stand about and hide people: lamp posts, bins, bollards, signs, benches, planters, trees, parked cars."""

import numpy as np

from datasets.synthetic.brush import Brush
from datasets.synthetic.canvas import Canvas, cut_out
from datasets.synthetic.nature import leaves, paint_tree

_METAL, _IRON, _WOOD, _LAMP = (96, 100, 106), (52, 56, 58), (136, 98, 62), (300, 286, 240)
_BRIGHT = ((176, 44, 44), (40, 84, 140), (54, 110, 72), (222, 222, 218), (60, 62, 68), (206, 150, 50))
_OVERSAMPLING = 2
_BY_KIND = {
    "park": ("tree", "bench", "bin", "lamp"),
    "plaza": ("planter", "bench", "lamp", "bin"),
    "campus": ("tree", "bench", "planter", "lamp", "bin"),
    "arcade": ("planter", "bin", "bench"),
}
_STREET = ("lamp", "bin", "bollard", "sign", "car", "tree")


def _lamp(brush, rng):
    height = rng.uniform(3.6, 4.6)
    brush.limb((0, 0.05), (0, 0.6), (0.085, 0.07), _IRON)
    brush.limb((0, 0.5), (0, height), (0.045, 0.035), _IRON)
    arm = float(rng.choice((-1, 1))) * 0.8
    brush.limb((0, height), (arm, height + 0.18), (0.03, 0.025), _IRON)
    brush.ellipse((arm, height + 0.1), 0.24, 0.08, _LAMP)


def _bin(brush, rng):
    colour = _BRIGHT[rng.integers(len(_BRIGHT))]
    brush.profile([0.0, 0.05, 0.75, 0.8], [0.21, 0.235, 0.26, 0.26], 0.0, colour)
    brush.profile([0.78, 0.88, 0.93], [0.275, 0.25, 0.15], 0.0, tuple(np.multiply(colour, 0.6)))
    brush.flat([(-0.13, 0.6), (0.13, 0.6), (0.13, 0.68), (-0.13, 0.68)], (30, 30, 32))


def _bollard(brush, _rng):
    for x in (-0.9, 0.0, 0.9):
        brush.limb((x, 0.0), (x, 0.85), (0.085, 0.075), _METAL)
        brush.profile([0.62, 0.74], [0.085, 0.085], x, (226, 222, 214))


def _sign(brush, rng):
    brush.limb((0, 0), (0, 2.5), (0.035, 0.035), _METAL)
    brush.ellipse((0, 2.4), 0.33, 0.33, (232, 230, 226))
    brush.ellipse((0, 2.4), 0.28, 0.28, _BRIGHT[rng.integers(2)])
    brush.flat([(-0.17, 2.36), (0.17, 2.36), (0.17, 2.44), (-0.17, 2.44)], (240, 238, 232))


def _bench(brush, _rng):
    for x in (-0.75, 0.75):
        brush.limb((x, 0), (x, 0.85), (0.035, 0.03), _IRON)
    for height in (0.42, 0.6, 0.74):
        brush.profile([height, height + 0.1], [0.95, 0.95], 0.0, _WOOD, 0.9 + 0.2 * (height - 0.42))


def _planter(brush, rng):
    brush.profile([0.0, 0.55], [0.55, 0.66], 0.0, (170, 162, 152))
    brush.profile([0.5, 0.6], [0.7, 0.7], 0.0, (150, 142, 132))
    leaves(brush, (0, 0.85), (0.62, 0.36), rng, 70, brush.light_side)


def _car(brush, rng):
    colour = _BRIGHT[rng.integers(len(_BRIGHT))]
    facing = float(rng.choice((-1, 1)))
    x = facing * np.array([-2.1, -2.08, -1.55, -0.95, 0.55, 1.15, 1.95, 2.1, 2.1])
    y = np.array([0.3, 0.86, 0.96, 1.44, 1.46, 0.98, 0.84, 0.6, 0.3])
    brush.ellipse((0, 0.1), 2.15, 0.14, (24, 24, 26))
    brush.flat(np.stack([x, y], 1), colour)
    brush.flat([(-2.1, 0.3), (2.1, 0.3), (2.1, 0.56), (-2.1, 0.56)], np.multiply(colour, 0.72))
    brush.flat([(-2.08, 0.8), (2.0, 0.8), (2.0, 0.86), (-2.08, 0.86)], np.minimum(np.multiply(colour, 1.25) + 12, 255))
    glass = (62, 76, 88)
    for corners in (
        ((-1.42, 0.98), (-0.9, 1.36), (-0.25, 1.38), (-0.25, 0.98)),
        ((-0.15, 0.98), (-0.15, 1.38), (0.5, 1.38), (0.98, 0.98)),
    ):
        brush.flat(np.array(corners) * (facing, 1), glass)
        brush.flat(np.array([corners[0], corners[1], np.mean(corners[:3], 0)]) * (facing, 1), (122, 140, 152), 0.6)
    for wheel in (-1.3, 1.3):
        brush.ellipse((wheel, 0.33), 0.36, 0.36, (28, 28, 30))
        brush.ellipse((wheel, 0.33), 0.19, 0.19, (158, 160, 164))
    brush.ellipse((facing * 2.0, 0.7), 0.1, 0.07, (246, 240, 208))
    brush.ellipse((-facing * 2.02, 0.74), 0.07, 0.09, (190, 40, 36))


_PAINTERS = {
    "lamp": _lamp,
    "bin": _bin,
    "bollard": _bollard,
    "sign": _sign,
    "bench": _bench,
    "planter": _planter,
    "car": _car,
}


def draw_props(camera, count, rng):
    """The camera's things that may hide people: a list of (distance in metres, Sprite)."""
    kinds = _BY_KIND.get(camera.kind, _STREET)
    height = camera.size[1]
    near = camera.distance(1.02 * height)
    props = []
    for _ in range(int(rng.integers(count // 2, 3 * count // 2 + 1))):
        kind = kinds[rng.integers(len(kinds))]
        z = float(rng.uniform(near + (2.5 if kind in ("car", "tree") else 0.5), camera.depth))
        reach = min(0.5 * camera.size[0] / camera.metre(z), camera.half_street)
        x = float(rng.choice((-1, 1)) * reach * rng.uniform(0.35, 0.95))
        props.append((z, _draw_prop(camera, kind, x, z, rng)))
    return props


def _draw_prop(camera, kind, x, z, rng):
    """One thing drawn on a canvas of the frame's size, then cut out."""
    canvas = Canvas(*(side * _OVERSAMPLING for side in camera.size))
    large = camera.enlarged(_OVERSAMPLING)
    if kind == "tree":
        paint_tree(canvas, large, x, z, rng)
    else:
        foot = large.project([(x, 0, z)])[0]
        _PAINTERS[kind](Brush(canvas, large.metre(z), foot, camera.light.side, rng), rng)
    return cut_out(canvas, 1 / _OVERSAMPLING, 0, 0)
