"""Composes one image: background, shadows, people and things by distance, the camera's light, noise and blur."""

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic.camera import STATURE
from datasets.synthetic.figure import draw_figure

_SOLID = 0.5  # coverage from which a pixel belongs to a person
_SMALLEST_SIDE = 3  # pixels: a visible part thinner than this gets no box
_NOBODY = -1


@dataclass(frozen=True)
class Backdrop:
    """What a camera always sees: its background (RGB float32) and the things before it as (distance, Sprite)."""

    camera: object
    background: np.ndarray
    props: tuple


@dataclass(frozen=True)
class Actor:
    """A person in an image: a `Look` at a `Place`."""

    look: object
    place: object


@dataclass(frozen=True)
class Visible:
    """What an image shows of an actor: the box of its visible pixels and their share of the whole silhouette."""

    box: tuple
    visibility: float


def _window(sprite, left, top, shape):
    """Slices of the frame and of the sprite where both overlap, or None."""
    height, width = sprite.coverage.shape
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, shape[1]), min(top + height, shape[0])
    if x1 >= x2 or y1 >= y2:
        return None
    return np.s_[y1:y2, x1:x2], np.s_[y1 - top : y2 - top, x1 - left : x2 - left]


def _lay_over(frame, sprite, left, top):
    window = _window(sprite, left, top, frame.shape)
    if window is not None:
        there, here = window
        frame[there] *= 1 - sprite.coverage[here][..., None]
        frame[there] += sprite.colour[here]
    return window


def _darken_contact(frame, foot, height):
    """A soft dark spot where the feet meet the ground."""
    reach_x, reach_y = 0.2 * height, 0.055 * height
    x1, x2 = (int(np.clip(foot[0] + side * 2 * reach_x, 0, frame.shape[1])) for side in (-1, 1))
    y1, y2 = (int(np.clip(foot[1] + side * 2 * reach_y, 0, frame.shape[0])) for side in (-1, 1))
    xx = (np.arange(x1, x2, dtype=np.float32) - np.float32(foot[0])) / np.float32(reach_x)
    yy = (np.arange(y1, y2, dtype=np.float32) - np.float32(foot[1])) / np.float32(reach_y)
    spot = np.exp(-1.6 * (xx[None] ** 2 + yy[:, None] ** 2))
    frame[y1:y2, x1:x2] *= 1 - 0.42 * spot[..., None]


def _cast_shadow(frame, sprite, foot, light):
    """The sprite's silhouette laid down on the ground, away from the light."""
    height, width = sprite.coverage.shape
    lean, flatten = -light.side * light.shadow_length, 0.22 * light.shadow_length
    reach = int(np.ceil(abs(lean) * height)) + 4
    rows = max(int(np.ceil(flatten * height)) + 6, 8)
    base_row = foot[1] - sprite.top  # of the feet, within the sprite
    pad = reach if lean < 0 else 2
    matrix = np.float32([[1, -lean, pad + lean * base_row], [0, flatten, rows - 4 - flatten * base_row]])
    shadow = cv2.warpAffine(sprite.coverage, matrix, (width + reach + 4, rows), flags=cv2.INTER_LINEAR)
    shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.6, 0.012 * height))
    left, top = sprite.left - pad, round(foot[1]) - (rows - 4)
    x1, y1, x2, y2 = (
        max(left, 0),
        max(top, 0),
        min(left + shadow.shape[1], frame.shape[1]),
        min(top + rows, frame.shape[0]),
    )
    if x1 < x2 and y1 < y2:
        frame[y1:y2, x1:x2] *= 1 - light.shadow * shadow[y1 - top : y2 - top, x1 - left : x2 - left, None]


def _shift(sprite, foot):
    column, row = round(float(foot[0])), round(float(foot[1]))
    return type(sprite)(sprite.colour, sprite.coverage, sprite.left + column, sprite.top + row)


def compose(backdrop, actors, rng):
    """An image before the camera's light and noise, and the pixels of each actor.

    Returns:
        frame: h x w x 3 RGB float32.
        owners: h x w int16, the index of the actor a pixel shows, -1 for none.
        sprites: the actors' sprites, placed in the frame.
    """
    camera, frame = backdrop.camera, backdrop.background.copy()
    owners = np.full(frame.shape[:2], _NOBODY, np.int16)
    feet = [camera.project([(actor.place.x, 0, actor.place.z)])[0] for actor in actors]
    sprites = []
    for actor, foot in zip(actors, feet, strict=True):
        height = STATURE * actor.look.stature * camera.metre(actor.place.z)
        sprites.append(_shift(draw_figure(actor.look, actor.place.pose, height, camera.light.side, rng), foot))
        _cast_shadow(frame, sprites[-1], foot, camera.light)
        _darken_contact(frame, foot, height)
    layers = [(actor.place.z, index, sprites[index]) for index, actor in enumerate(actors)]
    layers += [(distance, _NOBODY, sprite) for distance, sprite in backdrop.props]
    for _, index, sprite in sorted(layers, key=lambda layer: -layer[0]):
        window = _lay_over(frame, sprite, sprite.left, sprite.top)
        if window is not None:
            owners[window[0]][sprite.coverage[window[1]] > _SOLID] = index
    return frame, owners, sprites


def measure(owners, sprites):
    """For each actor a `Visible`, or None where no pixel of it shows. Boxes are x1, y1, x2, y2 in pixels, x2 and y2
    behind the last one."""
    seen = []
    for index, sprite in enumerate(sprites):
        window = _window(sprite, sprite.left, sprite.top, owners.shape)
        shown = owners[window[0]] == index if window else np.zeros((0, 0), bool)
        rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        if not len(rows):
            seen.append(None)
            continue
        left, top = max(sprite.left, 0), max(sprite.top, 0)
        box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
        silhouette = np.count_nonzero(sprite.coverage > _SOLID)
        seen.append(Visible(tuple(map(int, box)), np.count_nonzero(shown) / silhouette))
    return seen


def is_annotated(visible, min_visibility):
    """Whether what is seen of a person is enough for a box."""
    if visible is None or visible.visibility < min_visibility:
        return False
    x1, y1, x2, y2 = visible.box
    return min(x2 - x1, y2 - y1) >= _SMALLEST_SIDE


def expose(frame, light, rng):
    """The frame as the camera delivers it: h x w x 3 RGB uint8, and the JPEG quality to store it with."""
    gain = np.float32(light.tint) * np.float32(rng.normal(1.0, 0.06))
    image = frame * gain
    sharpness = float(rng.uniform(0.0, 0.75))
    if sharpness > 0.35:
        image = cv2.GaussianBlur(image, (0, 0), sharpness)
    grain = rng.standard_normal(frame.shape[:2], dtype=np.float32) * np.float32(rng.uniform(1.0, 4.5))
    image += grain[..., None]
    return np.clip(image, 0, 255).astype(np.uint8), int(rng.integers(82, 96))


def ground_things(background, camera, props):
    """Lay the shadows of a camera's things on its background, in place."""
    for _, sprite in props:
        if sprite.coverage.size:
            base = np.flatnonzero(sprite.coverage[-1])
            foot = (sprite.left + base.mean(), sprite.top + sprite.coverage.shape[0])
            _cast_shadow(background, sprite, foot, camera.light)
            _darken_contact(background, foot, 2.5 * len(base))
