"""Composes one image: background, shadows, people and things by distance, the camera's light, noise and blur."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from datasets.synthetic.camera import Camera, Light
from datasets.synthetic.canvas import Colour, Sprite, overlap
from datasets.synthetic.figure import draw_figure
from datasets.synthetic.layout import Actor

_SOLID = 0.5  # coverage from which a pixel belongs to a person
_SMALLEST_SIDE = 3  # pixels: a visible part thinner than this gets no box
_NOBODY = -1


@dataclass(frozen=True)
class Backdrop:
    """What a camera always sees: its background (RGB float32) and the things before it as (distance, Sprite)."""

    camera: Camera
    background: np.ndarray
    props: Sequence[tuple[float, Sprite]]


def _darken_contact(frame: np.ndarray, foot: Colour, height: float) -> None:
    """A soft dark spot where the feet meet the ground."""
    reach_x, reach_y = 0.2 * height, 0.055 * height
    x1, x2 = (int(np.clip(foot[0] + side * 2 * reach_x, 0, frame.shape[1])) for side in (-1, 1))
    y1, y2 = (int(np.clip(foot[1] + side * 2 * reach_y, 0, frame.shape[0])) for side in (-1, 1))
    xx = (np.arange(x1, x2, dtype=np.float32) - np.float32(foot[0])) / np.float32(reach_x)
    yy = (np.arange(y1, y2, dtype=np.float32) - np.float32(foot[1])) / np.float32(reach_y)
    spot = np.exp(-1.6 * (xx[None] ** 2 + yy[:, None] ** 2))
    frame[y1:y2, x1:x2] *= 1 - 0.42 * spot[..., None]


def _cast_shadow(frame: np.ndarray, sprite: Sprite, foot: Colour, light: Light) -> None:
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
    there, here = overlap(shadow.shape, sprite.left - pad, round(foot[1]) - (rows - 4), frame.shape)
    frame[there] *= 1 - light.shadow * shadow[here][..., None]


def compose(backdrop: Backdrop, actors: Sequence[Actor], rng: Generator) -> tuple[np.ndarray, np.ndarray, list[Sprite]]:
    """An image before the camera's light and noise, and the pixels of each actor.

    Returns:
        frame: h x w x 3 RGB float32.
        owners: h x w int16, the index of the actor a pixel shows, -1 for none.
        sprites: the actors' sprites, placed in the frame.
    """
    camera, frame = backdrop.camera, backdrop.background.copy()
    owners = np.full(frame.shape[:2], _NOBODY, np.int16)
    layers = [(distance, _NOBODY, sprite) for distance, sprite in backdrop.props]
    sprites = []
    for index, actor in enumerate(actors):
        foot, height = actor.foot(camera), actor.height(camera)
        sprite = draw_figure(actor.look, actor.pose, height, foot, camera.light.side, rng)
        _cast_shadow(frame, sprite, foot, camera.light)
        _darken_contact(frame, foot, height)
        sprites.append(sprite)
        layers.append((actor.z, index, sprite))
    for _, index, sprite in sorted(layers, key=lambda layer: -layer[0]):
        there, here = overlap(sprite.coverage.shape, sprite.left, sprite.top, frame.shape)
        frame[there] *= 1 - sprite.coverage[here][..., None]
        frame[there] += sprite.colour[here]
        owners[there][sprite.coverage[here] > _SOLID] = index
    return frame, owners, sprites


def measure(owners: np.ndarray, sprites: Sequence[Sprite]) -> tuple[np.ndarray, np.ndarray]:
    """What is visible of each of n actors.

    Returns:
        boxes: n x 4 int32, x1, y1, x2, y2 of the visible pixels, x2 and y2 behind the last one; 0 where there are none.
        visibility: n, the share of the silhouette that is visible.
    """
    boxes, visibility = np.zeros((len(sprites), 4), np.int32), np.zeros(len(sprites))
    for index, sprite in enumerate(sprites):
        rows, columns = np.nonzero(owners == index)
        if len(rows):
            boxes[index] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            visibility[index] = len(rows) / np.count_nonzero(sprite.coverage > _SOLID)
    return boxes, visibility


def is_annotated(boxes: np.ndarray, visibility: np.ndarray, min_visibility: float) -> np.ndarray:
    """Which people are visible enough for a box."""
    return (visibility >= min_visibility) & ((boxes[:, 2:] - boxes[:, :2]).min(1) >= _SMALLEST_SIDE)


def expose(frame: np.ndarray, light: Light, rng: Generator) -> tuple[np.ndarray, int]:
    """The frame as the camera delivers it: h x w x 3 RGB uint8, and the JPEG quality to store it with."""
    image = frame * (np.float32(light.tint) * np.float32(rng.normal(1.0, 0.06)))
    sharpness = float(rng.uniform(0.0, 0.75))
    if sharpness > 0.35:
        image = cv2.GaussianBlur(image, (0, 0), sharpness)
    grain = rng.standard_normal(frame.shape[:2], dtype=np.float32) * np.float32(rng.uniform(1.0, 4.5))
    return np.clip(image + grain[..., None], 0, 255).astype(np.uint8), int(rng.integers(82, 96))


def ground_props(background: np.ndarray, light: Light, props: Sequence[tuple[float, Sprite]]) -> None:
    """Lay the shadows of a camera's props on its background, in place."""
    for _, sprite in props:
        if sprite.coverage.size:
            base = np.flatnonzero(sprite.coverage[-1])
            foot = (sprite.left + base.mean(), sprite.top + sprite.coverage.shape[0])
            _cast_shadow(background, sprite, foot, light)
            _darken_contact(background, foot, 2.5 * len(base))
