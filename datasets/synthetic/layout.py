"""Where people stand in an image: parties walk side by side over the ground, seen by a camera, without piling up."""

from dataclasses import dataclass

import numpy as np

from datasets.synthetic.camera import STATURE
from datasets.synthetic.pose import Pose

_ATTEMPTS = 14
_MOST_COVERED = 0.5  # share of a person that others may cover, by boxes: the first placement under it is taken
_HALF_WIDTH = 0.15  # of a person's box, in heights
_SPACING, _ROW_SPACING = 0.78, 0.95  # metres between people side by side, between rows
_BELOW = 1.05  # feet may be this far down, in image heights
_DIRECTIONS = np.radians((0, 25, -25, 90, -90, 70, -70, 180, 155, -155))


@dataclass(frozen=True)
class Place:
    """A person's place: metres across and away, and the pose it is seen in."""

    x: float
    z: float
    pose: Pose


def lay_out(camera, parties, obstacles, nearest_height, farthest_height, rng):
    """A list of `Place`s for each party.

    Args:
        camera: a `Camera`.
        parties: for each party, the relative statures of its people.
        obstacles: boxes with distance (x1, y1, x2, y2, z) of what stands in the way, in pixels and metres.
        nearest_height, farthest_height: of a person of average stature, as shares of the image's height.
        rng: decides everything.
    """
    obstacles, taken = np.reshape(obstacles, (-1, 5)), []
    places = []
    for statures in parties:
        best, best_cover = None, np.inf
        for _ in range(_ATTEMPTS):
            party = _place_party(camera, len(statures), nearest_height, farthest_height, rng)
            boxes = [_box(camera, place, stature) for place, stature in zip(party, statures, strict=True)]
            cover = _worst_cover(np.array([*taken, *boxes]), obstacles, camera.size)
            if cover < best_cover:
                best, best_cover, best_boxes = party, cover, boxes
            if best_cover <= _MOST_COVERED:
                break
        taken += best_boxes
        places.append(best)
    return places


def _place_party(camera, size, nearest_height, farthest_height, rng):
    width, height = camera.size
    reach = camera.focal * STATURE / height
    near = max(reach / nearest_height, camera.distance(_BELOW * height))
    far = max(min(reach / farthest_height, camera.depth), near + 0.5)
    z = near + (far - near) * rng.random() ** 1.35
    left, right = ((column - camera.middle) / camera.metre(z) for column in (0.06 * width, 0.94 * width))
    bound = camera.half_street - 0.3
    x = rng.uniform(max(left, -bound), min(right, bound))
    direction = float(rng.choice(_DIRECTIONS) + rng.normal(0, 0.12))
    abreast = int(rng.integers(1, 4))
    stride = 0.03 if rng.random() < 0.12 else rng.uniform(0.25, 0.46)
    places = []
    for index in range(size):
        row, column = divmod(index, abreast)
        aside = (column - (min(size, abreast) - 1) / 2) * _SPACING + rng.normal(0, 0.08)
        behind = row * _ROW_SPACING + rng.normal(0, 0.18)
        across = x + aside * np.cos(direction) - behind * np.sin(direction)
        away = z + aside * np.sin(direction) + behind * np.cos(direction)
        pose = Pose(
            heading=direction + float(rng.normal(0, 0.15)),
            phase=float(rng.uniform(0, 2 * np.pi)),
            stride=float(stride),
            bends=(
                float(rng.choice((0.2, 0.35, 1.6), p=(0.5, 0.4, 0.1))),
                float(rng.choice((0.15, 0.3, 1.9), p=(0.5, 0.4, 0.1))),
            ),
        )
        places.append(Place(float(np.clip(across, -bound, bound)), float(np.clip(away, near, far + 1.0)), pose))
    return places


def _box(camera, place, stature):
    column, row = camera.project([(place.x, 0, place.z)])[0]
    height = STATURE * stature * camera.metre(place.z)
    return column - _HALF_WIDTH * height, row - height, column + _HALF_WIDTH * height, row, place.z


def _worst_cover(people, obstacles, size):
    """The largest share of any person's box that is hidden by nearer boxes or outside the image."""
    x1, y1, x2, y2, z = people.T[:, :, None]
    left, top, right, bottom, distance = np.concatenate([people, obstacles]).T[:, None]
    wide = np.maximum(np.minimum(right, x2) - np.maximum(left, x1), 0)
    tall = np.maximum(np.minimum(bottom, y2) - np.maximum(top, y1), 0)
    hidden = (wide * tall * (distance < z)).sum(1, keepdims=True)
    seen = np.maximum(np.minimum(x2, size[0]) - np.maximum(x1, 0), 0) * np.maximum(np.minimum(y2, size[1]) - y1, 0)
    area = (x2 - x1) * (y2 - y1)
    return float(((hidden + area - seen) / area).max())
