"""Draws the images of a camera: background, shadows, people and things by distance, then light, noise and blur."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from datasets.synthetic.camera import Camera, Light, draw_camera
from datasets.synthetic.canvas import Colour, Sprite, overlap
from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.figure import draw_figure
from datasets.synthetic.layout import Actor, lay_out
from datasets.synthetic.props import draw_props
from datasets.synthetic.scene import draw_background
from datasets.synthetic.surface import GROUNDS
from datasets.synthetic.wardrobe import draw_look
from datasets.synthetic.world import FramePlan, Population
from utils.labels import UNLABELLED

_CAMERA_STREAM, _IMAGE_STREAM = 2, 3  # first numbers of the random streams, see also build.py
_SOLID_WIDTH = 0.4  # of a thing's sprite, as a share: the width that hides people
_SOLID = 0.5  # coverage from which a pixel belongs to a person
_SMALLEST_SIDE = 3  # pixels: a visible part thinner than this gets no box
_NOBODY = -1


@dataclass(frozen=True)
class Task:
    """An image to draw: its number (1 and up, over both splits), split, plan, and file name."""

    number: int
    split: str
    plan: FramePlan
    name: str


@dataclass(frozen=True)
class Backdrop:
    """What a camera always sees: its background (RGB float32) and the things before it as (distance, Sprite)."""

    camera: Camera
    background: np.ndarray
    props: Sequence[tuple[float, Sprite]]


def _darken_contact(frame: np.ndarray, foot: Colour, height: float) -> None:
    """A soft dark spot where the feet of somebody `height` pixels tall meet the ground."""
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

    Returns the frame h x w x 3 RGB float32, h x w int16 owners (the index of the actor that a pixel shows, -1 for none)
    and the actors' sprites, placed in the frame.
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
    """What is visible of each of n actors: boxes n x 4 int32, x1, y1, x2, y2 of the visible pixels (x2 and y2 behind
    the last one, all 0 where there are none), and of each the share of its silhouette."""
    boxes, visibility = np.zeros((len(sprites), 4), np.int32), np.zeros(len(sprites))
    for index, sprite in enumerate(sprites):
        seen = (owners == index).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(seen)
        boxes[index] = x, y, x + width, y + height
        visibility[index] = seen.sum() / max(np.count_nonzero(sprite.coverage > _SOLID), 1)
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


def make_backdrop(config: SyntheticConfig, number: int) -> Backdrop:
    """The `Backdrop` of camera `number`."""
    rng = np.random.default_rng([config.seed, _CAMERA_STREAM, number])
    kinds = list(GROUNDS)
    shift = int(np.random.default_rng([config.seed, _CAMERA_STREAM]).integers(len(kinds)))
    kind = kinds[(number - 1 + shift) % len(kinds)]
    camera = draw_camera(rng, kind, (config.width, config.height), config.person_height[1])
    background = draw_background(camera, rng)
    props = draw_props(camera, config.props, rng)
    for _, sprite in props:
        base = np.flatnonzero(sprite.coverage[-1])
        foot = (sprite.left + base.mean(), sprite.top + sprite.coverage.shape[0])
        _cast_shadow(background, sprite, foot, camera.light)
        _darken_contact(background, foot, 2.5 * len(base))
    return Backdrop(camera, background, props)


def make_actors(
    config: SyntheticConfig, backdrop: Backdrop, population: Population, plan: FramePlan, rng: Generator
) -> tuple[list[Actor], list[int]]:
    """The people of an image and their pids: 1 and up within the split, -1 for those without identity."""
    pids = [person + 1 for party in plan.parties for person in party] + [UNLABELLED] * plan.strangers
    strangers = [[draw_look(rng)] for _ in range(plan.strangers)]
    looks = [[population.looks[person] for person in party] for party in plan.parties] + strangers
    obstacles = []
    for z, sprite in backdrop.props:
        height, width = sprite.coverage.shape
        spare = (1 - _SOLID_WIDTH) / 2 * width
        obstacles.append((sprite.left + spare, sprite.top, sprite.left + width - spare, sprite.top + height, z))
    return lay_out(backdrop.camera, looks, obstacles, config.person_height, rng), pids


def draw_frames(
    config: SyntheticConfig, folder: Path, camera: int, populations: Mapping[str, Population], tasks: Sequence[Task]
) -> list[tuple[int, dict]]:
    """Draw and store the images of `tasks`, all of one camera; `populations` by split.

    Returns for each its number and a dict with `img_name`, `cam_id`, `boxes` n x 4 int32, `pids` n (1 and up within the
    split), `visibility` n.
    """
    backdrop = make_backdrop(config, camera)
    items = []
    for task in tasks:
        rng = np.random.default_rng([config.seed, _IMAGE_STREAM, task.number])
        actors, pids = make_actors(config, backdrop, populations[task.split], task.plan, rng)
        frame, owners, sprites = compose(backdrop, actors, rng)
        image, quality = expose(frame, backdrop.camera.light, rng)
        _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
        (folder / task.name).write_bytes(encoded.tobytes())
        boxes, visibility = measure(owners, sprites)
        kept = is_annotated(boxes, visibility, config.min_visibility)
        people = {"boxes": boxes[kept], "pids": np.array(pids, np.int32)[kept], "visibility": visibility[kept]}
        items.append((task.number, {"img_name": task.name, "cam_id": camera, **people}))
    return items
