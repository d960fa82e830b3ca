"""Draws the images of one camera: the same background, each image from its own random stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from datasets.synthetic.camera import draw_camera
from datasets.synthetic.canvas import Sprite
from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.ground import KINDS
from datasets.synthetic.layout import Actor, Obstacle, lay_out
from datasets.synthetic.props import draw_props
from datasets.synthetic.render import Backdrop, compose, expose, ground_props, is_annotated, measure
from datasets.synthetic.scene import draw_background
from datasets.synthetic.wardrobe import draw_look
from datasets.synthetic.world import FramePlan, Population
from utils.labels import UNLABELLED

_CAMERA_STREAM, _IMAGE_STREAM = 2, 3  # first numbers of the random streams, see also build.py
_SOLID_WIDTH = 0.4  # of a thing's sprite, as a share: the width that hides people


@dataclass(frozen=True)
class Task:
    """An image to draw: its number (1 and up, over both splits), split, plan, and file name."""

    number: int
    split: str
    plan: FramePlan
    name: str


def make_backdrop(config: SyntheticConfig, number: int) -> Backdrop:
    """The `Backdrop` of camera `number`."""
    rng = np.random.default_rng([config.seed, _CAMERA_STREAM, number])
    shift = int(np.random.default_rng([config.seed, _CAMERA_STREAM]).integers(len(KINDS)))
    kind = KINDS[(number - 1 + shift) % len(KINDS)]
    camera = draw_camera(rng, kind, (config.width, config.height), config.person_height[1])
    background = draw_background(camera, rng)
    props = draw_props(camera, config.props, rng)
    ground_props(background, camera.light, props)
    return Backdrop(camera, background, props)


def _solid_box(z: float, sprite: Sprite) -> Obstacle:
    """The middle of a thing as an obstacle."""
    height, width = sprite.coverage.shape
    spare = (1 - _SOLID_WIDTH) / 2 * width
    return sprite.left + spare, sprite.top, sprite.left + width - spare, sprite.top + height, z


def make_actors(
    config: SyntheticConfig, backdrop: Backdrop, population: Population, plan: FramePlan, rng: Generator
) -> tuple[list[Actor], list[int]]:
    """The people of an image and their pids: 1 and up within the split, -1 for those without identity."""
    pids = [person + 1 for party in plan.parties for person in party] + [UNLABELLED] * plan.strangers
    strangers = [[draw_look(rng)] for _ in range(plan.strangers)]
    looks = [[population.looks[person] for person in party] for party in plan.parties] + strangers
    obstacles = [_solid_box(z, sprite) for z, sprite in backdrop.props]
    return lay_out(backdrop.camera, looks, obstacles, config.person_height, rng), pids


def draw_frames(
    config: SyntheticConfig, folder: Path, camera: int, populations: Mapping[str, Population], tasks: Sequence[Task]
) -> list[dict]:
    """Draw and store the images of `tasks`, all of one camera; `populations` by split.

    Returns:
        for each a dict with `number`, `img_name`, `cam_id`, `boxes` n x 4 int32, `pids` n (1 and up within the split),
        `visibility` n.
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
        items.append({"number": task.number, "img_name": task.name, "cam_id": camera, **people})
    return items
