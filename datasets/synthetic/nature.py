"""Trees and hedges: many small leaves, bright on the side of the light."""

import numpy as np

from datasets.synthetic.brush import Brush

_LEAVES = ((70, 112, 52), (96, 128, 54), (58, 96, 60), (124, 132, 60), (152, 118, 52))
_BARK = (92, 74, 58)
_COARSE = 45.0  # pixels: radius of a crown up to which the fewest blobs do


def leaves(brush, centre, radii, rng, count, light_side):
    """A crown: at least `count` blobs within an ellipse, painted from the shaded to the lit. Measures in the brush's
    units; a crown that is large in the picture gets more and smaller blobs."""
    finer = float(np.clip(min(radii) * brush.unit / _COARSE, 1.0, 3.0))
    count = round(count * finer**1.5)
    base = np.float64(_LEAVES[rng.integers(len(_LEAVES))])
    angle, radius = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    order = np.argsort(0.6 * y + 0.5 * light_side * x + rng.normal(0, 0.35, count))
    for rank, index in enumerate(order):
        tone = 0.52 + 0.72 * rank / count
        size = rng.uniform(0.12, 0.26) * min(radii) / finer**0.75
        place = (centre[0] + x[index] * radii[0], centre[1] + y[index] * radii[1])
        turn = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2 * np.pi, 7)[:-1]
        corners = np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.6, 1.2, (6, 1)) * size
        brush.flat(corners + place, np.clip(base * tone + rng.normal(0, 5, 3), 0, 255))


def paint_tree(canvas, camera, x, distance, rng):
    """A tree standing at (x, distance) metres."""
    foot = camera.project([(x, 0, distance)])[0]
    brush = Brush(canvas, camera.metre(distance), foot, camera.light.side, rng)
    height, wide = rng.uniform(4.2, 7.0), rng.uniform(1.4, 2.3)
    brush.limb((0, 0), (rng.normal(0, 0.15), height * 0.6), (0.2, 0.11), _BARK)
    leaves(brush, (0, height * 0.68), (wide, height * 0.34), rng, 150, camera.light.side)


def paint_hedge(canvas, camera, distance, rng):
    """A hedge across the whole picture."""
    foot = camera.project([(0, 0, distance)])[0]
    brush = Brush(canvas, camera.metre(distance), foot, camera.light.side, rng)
    half = 0.62 * camera.size[0] / camera.metre(distance)
    for x in np.arange(-half, half, 0.8):
        leaves(brush, (x, 0.5), (0.75, 0.5 + 0.1 * rng.random()), rng, 14, camera.light.side)
