"""The ground of each kind of scene: road, pavement, crossings, lawn and path, seen in perspective."""

import numpy as np

from datasets.synthetic.surface import blend, cell_noise, flat, inside, periodic, slabs

_ASPHALT, _KERB, _PAINT = (92, 93, 97), (168, 166, 160), (226, 226, 220)
_PAVING = ((164, 158, 150), (176, 166, 148), (150, 148, 150), (180, 150, 130))
_LAWN, _PATH = (98, 132, 62), (188, 170, 138)


class Ground:
    """Metres (x, z) and their footprint for the pixels of the rows from `top` down.

    `across` is the footprint along x, `deep` that along z, which grows faster towards the horizon.
    """

    def __init__(self, camera):
        width, height = camera.size
        self.top = int(np.ceil(camera.horizon + 1.5))
        rows = np.arange(self.top, height, dtype=np.float32)[:, None] - np.float32(camera.horizon)
        columns = np.arange(width, dtype=np.float32)[None] - np.float32(camera.middle)
        self.z = np.broadcast_to(np.float32(camera.focal * camera.height) / rows, (height - self.top, width))
        self.x = columns * self.z / np.float32(camera.focal)
        self.across = self.z / np.float32(camera.focal)
        self.deep = self.z / rows
        self.shape = self.z.shape


def _asphalt(ground, rng):
    base = flat(ground.shape, np.add(_ASPHALT, rng.normal(0, 8)))
    grit = cell_noise(np.floor(ground.x / 0.05), np.floor(ground.z / 0.1), rng.integers(1 << 20)) - 0.5
    return base * (1 + 0.12 * np.clip(1.5 - ground.deep / 0.1, 0, 1) * grit)[..., None]


def _paving(ground, rng):
    size = rng.choice((0.4, 0.6, 0.9))
    colour = np.add(_PAVING[rng.integers(len(_PAVING))], rng.normal(0, 6, 3))
    return slabs(
        ground.x, ground.z, np.maximum(ground.across, 0.6 * ground.deep), (size, size), colour, rng.integers(1 << 20)
    )


def _grass(ground, rng):
    seed = rng.integers(1 << 20)
    patches = cell_noise(np.floor(ground.x / 0.09), np.floor(ground.z / 0.16), seed) - 0.5
    mowing = periodic(ground.x + 0.3 * ground.z, 3.0, 0.5, ground.across) - 0.5
    tone = 1 + 0.25 * np.clip(1.5 - ground.deep / 0.12, 0, 1) * patches + 0.09 * mowing
    return flat(ground.shape, _LAWN) * tone[..., None]


def _street_across(ground, rng, zebra):
    """A road that runs across the picture, pavement beyond and before it."""
    near, far = rng.uniform(4.2, 5.2), rng.uniform(8.2, 9.6)
    rgb = blend(_paving(ground, rng), _asphalt(ground, rng), inside(ground.z, near, far, ground.deep))
    for edge in (near, far):
        rgb = blend(rgb, _KERB, inside(ground.z, edge - 0.12, edge + 0.12, ground.deep))
    middle = (near + far) / 2
    dashes = periodic(ground.x, 3.0, 0.5, ground.across) * inside(ground.z, middle - 0.07, middle + 0.07, ground.deep)
    if not zebra:
        return blend(rgb, _PAINT, 0.9 * dashes)
    left = rng.uniform(-4.0, 0.0)
    bars = periodic(ground.x - left, 1.0, 0.5, ground.across) * inside(ground.x, left, left + 3.6, ground.across)
    return blend(rgb, _PAINT, 0.9 * bars * inside(ground.z, near + 0.3, far - 0.3, ground.deep))


def _street_along(ground, rng, camera):
    """A road that leads away, a pavement on both sides."""
    half = 0.5 * camera.half_street
    road = inside(ground.x, -half, half, ground.across)
    rgb = blend(_paving(ground, rng), _asphalt(ground, rng), road)
    for edge in (-half, half):
        rgb = blend(rgb, _KERB, inside(ground.x, edge - 0.1, edge + 0.1, ground.across))
    line = periodic(ground.z, 3.4, 0.5, ground.deep) * inside(ground.x, -0.07, 0.07, ground.across)
    start = rng.uniform(5.0, 7.5)
    bars = periodic(ground.x, 0.9, 0.5, ground.across) * inside(ground.z, start, start + 2.6, ground.deep) * road
    return blend(
        rgb, _PAINT, 0.88 * np.maximum(line * (1 - inside(ground.z, start - 1, start + 3.6, ground.deep)), bars)
    )


def _junction(ground, rng):
    rgb = _asphalt(ground, rng)
    start = rng.uniform(4.0, 5.0)
    bars = periodic(ground.x + rng.uniform(0, 1), 1.1, 0.5, ground.across) * inside(
        ground.z, start, start + 3.4, ground.deep
    )
    rgb = blend(rgb, _PAINT, 0.9 * np.maximum(bars, inside(ground.z, start + 4.3, start + 4.6, ground.deep)))
    kerb = start + 6.5
    rgb = blend(rgb, _paving(ground, rng), inside(ground.z, kerb, 1e4, ground.deep))
    return blend(rgb, _KERB, inside(ground.z, kerb - 0.12, kerb + 0.12, ground.deep))


def _park(ground, rng):
    bend, width = rng.uniform(-0.6, 0.6), rng.uniform(1.6, 2.4)
    centre = rng.uniform(-1.0, 1.0) + bend * (ground.z - 5) + 0.8 * np.sin(0.35 * ground.z)
    rgb = blend(_grass(ground, rng), _PATH, inside(ground.x - centre, -width - 0.12, width + 0.12, ground.across))
    gravel = flat(ground.shape, _PATH) * (0.9 + 0.16 * cell_noise(ground.x / 0.07, ground.z / 0.12, 5))[..., None]
    return blend(rgb, gravel, inside(ground.x - centre, -width, width, ground.across))


def _plaza(ground, rng):
    rgb = _paving(ground, rng)
    tile = rng.uniform(2.4, 3.4)
    lattice = np.maximum(periodic(ground.x, tile, 0.12, ground.across), periodic(ground.z, tile, 0.12, ground.deep))
    return blend(rgb, np.multiply(_PAVING[rng.integers(len(_PAVING))], 0.72), 0.7 * lattice)


def _campus(ground, rng):
    lawn = rng.uniform(8.5, 10.0)
    rgb = blend(_paving(ground, rng), _grass(ground, rng), inside(ground.z, lawn, 1e4, ground.deep))
    return blend(rgb, _KERB, inside(ground.z, lawn - 0.12, lawn + 0.1, ground.deep))


def _hall(ground, rng):
    size = rng.uniform(0.8, 1.2)
    light, dark = np.float32((206, 200, 190)), np.float32((150, 142, 134))
    odd = np.mod(np.floor(ground.x / size) + np.floor(ground.z / size), 2) * np.clip(2 - 3 * ground.deep / size, 0, 1)
    return flat(ground.shape, light) + odd[..., None] * (dark - light) * np.float32(rng.uniform(0.3, 1.0))


def paint_ground(camera, ground, rng):
    """RGB of the ground's pixels for the camera's kind of scene."""
    painters = {
        "shops": lambda: _street_across(ground, rng, zebra=False),
        "crossing": lambda: _street_across(ground, rng, zebra=True),
        "canyon": lambda: _street_along(ground, rng, camera),
        "junction": lambda: _junction(ground, rng),
        "park": lambda: _park(ground, rng),
        "plaza": lambda: _plaza(ground, rng),
        "campus": lambda: _campus(ground, rng),
        "arcade": lambda: _hall(ground, rng),
    }
    return painters[camera.kind]()
