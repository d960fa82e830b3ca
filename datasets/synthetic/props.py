"""Trees, hedges, and the things that stand about and hide people: lamp posts, bins, benches, parked cars and more."""

import numpy as np
from numpy.random import Generator

from datasets.synthetic.camera import Camera
from datasets.synthetic.canvas import Brush, Canvas, Colour, Sprite, cut_out

_IRON, _WOOD, _LAMP = (52, 56, 58), (136, 98, 62), (300, 286, 240)
_BRIGHT = ((176, 44, 44), (40, 84, 140), (54, 110, 72), (222, 222, 218), (60, 62, 68), (206, 150, 50))
_LEAVES = ((70, 112, 52), (96, 128, 54), (58, 96, 60), (124, 132, 60), (152, 118, 52))
_BARK = (92, 74, 58)
_COARSE = 45.0  # pixels: larger crowns get more and smaller leaves
_OVERSAMPLING = 2
_STREET = ("lamp", "bin", "planter", "car", "tree")
_BY_SCENE = {
    "park": ("tree", "bench", "bin", "lamp"),
    "plaza": ("planter", "bench", "lamp", "bin"),
    "campus": ("tree", "bench", "planter", "lamp", "bin"),
    "arcade": ("planter", "bin", "bench"),
}


def paint_leaves(brush: Brush, centre: Colour, radii: Colour, rng: Generator, count: int) -> None:
    """A crown: at least `count` leaves within an ellipse, painted from the shaded to the lit; in the brush's units."""
    finer = float(np.clip(min(radii) * brush.unit / _COARSE, 1.0, 3.0))
    count = round(count * finer**1.5)
    base = np.float64(_LEAVES[rng.integers(len(_LEAVES))])
    angle, radius = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    order = np.argsort(0.6 * y + 0.5 * brush.light_side * x + rng.normal(0, 0.35, count))
    for rank, index in enumerate(order):
        tone = 0.52 + 0.72 * rank / count
        size = rng.uniform(0.12, 0.26) * min(radii) / finer**0.75
        place = (centre[0] + x[index] * radii[0], centre[1] + y[index] * radii[1])
        turn = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2 * np.pi, 7)[:-1]
        corners = np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.6, 1.2, (6, 1)) * size
        brush.flat(corners + place, np.clip(base * tone + rng.normal(0, 5, 3), 0, 255))


def standing_brush(canvas: Canvas, camera: Camera, x: float, distance: float, rng: Generator) -> Brush:
    """A brush whose unit is the metre and whose origin stands on the ground at (x, distance) metres."""
    return Brush(canvas, camera.metre(distance), camera.project([(x, 0, distance)])[0], camera.light.side, rng)


def paint_tree(brush: Brush, rng: Generator) -> None:
    """A tree standing at the brush's origin."""
    height, wide = rng.uniform(4.2, 7.0), rng.uniform(1.4, 2.3)
    brush.limb((0, 0), (rng.normal(0, 0.15), height * 0.6), (0.2, 0.11), _BARK)
    paint_leaves(brush, (0, height * 0.68), (wide, height * 0.34), rng, 150)


def paint_hedge(brush: Brush, width: float, rng: Generator) -> None:
    """A hedge of the given width in metres, its middle at the brush's origin."""
    for x in np.arange(-width / 2, width / 2, 0.8):
        paint_leaves(brush, (x, 0.5), (0.75, 0.5 + 0.1 * rng.random()), rng, 14)


def _paint_lamp(brush: Brush, rng: Generator) -> None:
    height = rng.uniform(3.6, 4.6)
    brush.limb((0, 0.05), (0, 0.6), (0.085, 0.07), _IRON)
    brush.limb((0, 0.5), (0, height), (0.045, 0.035), _IRON)
    arm = float(rng.choice((-1, 1))) * 0.8
    brush.limb((0, height), (arm, height + 0.18), (0.03, 0.025), _IRON)
    brush.ellipse((arm, height + 0.1), 0.24, 0.08, _LAMP)


def _paint_bin(brush: Brush, rng: Generator) -> None:
    colour = _BRIGHT[rng.integers(len(_BRIGHT))]
    brush.profile([0.0, 0.05, 0.75, 0.8], [0.21, 0.235, 0.26, 0.26], 0.0, colour)
    brush.profile([0.78, 0.88, 0.93], [0.275, 0.25, 0.15], 0.0, np.multiply(colour, 0.6))
    brush.rectangle(-0.13, 0.6, 0.13, 0.68, (30, 30, 32))


def _paint_bench(brush: Brush, _rng: Generator) -> None:
    for x in (-0.75, 0.75):
        brush.limb((x, 0), (x, 0.85), (0.035, 0.03), _IRON)
    for height in (0.42, 0.6, 0.74):
        brush.profile([height, height + 0.1], [0.95, 0.95], 0.0, _WOOD, 0.9 + 0.2 * (height - 0.42))


def _paint_planter(brush: Brush, rng: Generator) -> None:
    brush.profile([0.0, 0.55], [0.55, 0.66], 0.0, (170, 162, 152))
    brush.profile([0.5, 0.6], [0.7, 0.7], 0.0, (150, 142, 132))
    paint_leaves(brush, (0, 0.85), (0.62, 0.36), rng, 70)


def _paint_car(brush: Brush, rng: Generator) -> None:
    colour = _BRIGHT[rng.integers(len(_BRIGHT))]
    facing = float(rng.choice((-1, 1)))
    x = facing * np.array([-2.1, -2.08, -1.55, -0.95, 0.55, 1.15, 1.95, 2.1, 2.1])
    y = np.array([0.3, 0.86, 0.96, 1.44, 1.46, 0.98, 0.84, 0.6, 0.3])
    brush.ellipse((0, 0.1), 2.15, 0.14, (24, 24, 26))
    brush.flat(np.stack([x, y], 1), colour)
    brush.rectangle(-2.1, 0.3, 2.1, 0.56, np.multiply(colour, 0.72))
    brush.rectangle(-2.08, 0.8, 2.0, 0.86, np.minimum(np.multiply(colour, 1.25) + 12, 255))
    windows = np.array([[(-1.42, 0.98), (-0.9, 1.36), (-0.25, 1.38), (-0.25, 0.98)],
                        [(-0.15, 0.98), (-0.15, 1.38), (0.5, 1.38), (0.98, 0.98)]])  # fmt: skip
    for corners in windows:
        brush.flat(corners * (facing, 1), (62, 76, 88))
        brush.flat(np.array([*corners[:2], corners[:3].mean(0)]) * (facing, 1), (122, 140, 152), 0.6)
    for wheel in (-1.3, 1.3):
        brush.ellipse((wheel, 0.33), 0.36, 0.36, (28, 28, 30))
        brush.ellipse((wheel, 0.33), 0.19, 0.19, (158, 160, 164))
    brush.ellipse((facing * 2.0, 0.7), 0.1, 0.07, (246, 240, 208))
    brush.ellipse((-facing * 2.02, 0.74), 0.07, 0.09, (190, 40, 36))


_PAINTERS = {"lamp": _paint_lamp, "bin": _paint_bin, "bench": _paint_bench, "planter": _paint_planter,
             "car": _paint_car, "tree": paint_tree}  # fmt: skip


def draw_props(camera: Camera, count: int, rng: Generator) -> list[tuple[float, Sprite]]:
    """About `count` random things that may hide people, each with its distance in metres."""
    kinds = _BY_SCENE.get(camera.kind, _STREET)
    near = camera.distance(1.02 * camera.size[1])
    large = camera.enlarged(_OVERSAMPLING)
    props = []
    for _ in range(int(rng.integers(count // 2, 3 * count // 2 + 1))):
        kind = kinds[rng.integers(len(kinds))]
        z = float(rng.uniform(near + (2.5 if kind in ("car", "tree") else 0.5), camera.depth))
        reach = min(0.5 * camera.size[0] / camera.metre(z), camera.half_street)
        x = float(rng.choice((-1, 1)) * reach * rng.uniform(0.35, 0.95))
        canvas = Canvas(*large.size)
        _PAINTERS[kind](standing_brush(canvas, large, x, z, rng), rng)
        sprite = cut_out(canvas, 1 / _OVERSAMPLING, 0, 0)
        if sprite.coverage.size:
            props.append((z, sprite))
    return props
