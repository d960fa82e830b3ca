"""Draws the images of one camera: the same background, each image from its own random stream."""

import cv2
import numpy as np

from datasets.synthetic.camera import draw_camera
from datasets.synthetic.layout import lay_out
from datasets.synthetic.props import draw_props
from datasets.synthetic.render import Actor, Backdrop, compose, expose, ground_things, is_annotated, measure
from datasets.synthetic.scene import KINDS, draw_background
from datasets.synthetic.wardrobe import draw_look
from utils.labels import UNLABELLED

_CAMERA_STREAM, _IMAGE_STREAM = 2, 3  # first numbers of the random streams
_SOLID_WIDTH = 0.4  # of a thing's sprite, as a share: the width that hides people


def make_backdrop(config, number):
    """The `Backdrop` of camera `number`."""
    rng = np.random.default_rng([config.seed, _CAMERA_STREAM, number])
    shift = int(np.random.default_rng([config.seed, _CAMERA_STREAM]).integers(len(KINDS)))
    kind = KINDS[(number - 1 + shift) % len(KINDS)]
    camera = draw_camera(rng, number, kind, (config.width, config.height), config.person_height[1])
    background = draw_background(camera, rng)
    props = draw_props(camera, config.props, rng)
    ground_things(background, camera, props)
    return Backdrop(camera, background, tuple(props))


def _solid_box(sprite, z):
    """The middle of a thing as an obstacle: x1, y1, x2, y2 in pixels, and its distance."""
    height, width = sprite.coverage.shape
    spare = (1 - _SOLID_WIDTH) / 2 * width
    return sprite.left + spare, sprite.top, sprite.left + width - spare, sprite.top + height, z


def make_actors(config, backdrop, population, plan, rng):
    """The `Actor`s of an image and their pids: 1 and up within the split, -1 for strangers."""
    pids = [person + 1 for party in plan.parties for person in party] + [UNLABELLED] * plan.strangers
    strangers = [(draw_look(rng),) for _ in range(plan.strangers)]
    looks = [tuple(population.looks[person] for person in party) for party in plan.parties] + strangers
    obstacles = [_solid_box(sprite, z) for z, sprite in backdrop.props]
    low, high = config.person_height
    statures = [[look.stature for look in party] for party in looks]
    places = lay_out(backdrop.camera, statures, obstacles, high, low, rng)
    actors = [
        Actor(look, place)
        for party, spots in zip(looks, places, strict=True)
        for look, place in zip(party, spots, strict=True)
    ]
    return actors, pids


def image_stream(config, number):
    """The random stream of image `number`, whoever draws it."""
    return np.random.default_rng([config.seed, _IMAGE_STREAM, number])


def draw_frames(config, folder, camera, populations, tasks):
    """Draw and store the images of `tasks`, all of one camera; `populations` by split.

    Returns:
        for each a dict with `number`, `img_name`, `cam_id`, `boxes` n x 4 int32, `pids` n (1 and up within the split),
        `visibility` n.
    """
    backdrop = make_backdrop(config, camera)
    items = []
    for task in tasks:
        rng = image_stream(config, task.number)
        actors, pids = make_actors(config, backdrop, populations[task.split], task.plan, rng)
        frame, owners, sprites = compose(backdrop, actors, rng)
        image, quality = expose(frame, backdrop.camera.light, rng)
        _store(folder / task.name, image, quality)
        seen = measure(owners, sprites)
        shown = [(one, pid) for one, pid in zip(seen, pids, strict=True) if is_annotated(one, config.min_visibility)]
        items.append(
            {
                "number": task.number,
                "img_name": task.name,
                "cam_id": camera,
                "boxes": np.array([one.box for one, _ in shown], np.int32).reshape(-1, 4),
                "pids": np.array([pid for _, pid in shown], np.int32),
                "visibility": np.array([one.visibility for one, _ in shown]),
            }
        )
    return items


def _store(path, image, quality):
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    path.write_bytes(encoded.tobytes())
