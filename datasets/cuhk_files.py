"""The annotation files of CUHK-SYSU and MovieNet-CS, which differ in how deep values are nested (see matlab.py)."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.base import DatasetError, warn_of_unmatched
from datasets.matlab import integers, load_variable, reading, records, text
from utils.boxes import box_areas, xywh_to_xyxy
from utils.labels import UNLABELLED

BOX_FIELDS = ("idlocate", "ishard")
SCENE_FIELDS = ("imname", *BOX_FIELDS)


class Appearance(NamedTuple):
    """A record of an annotation file: identity `pid` stands in `box` (x1, y1, x2, y2) of image `img_name`."""

    img_name: str
    box: np.ndarray
    pid: int


class ProtocolEntry(NamedTuple):
    """One query of a test protocol and its gallery."""

    query: Appearance
    names: list[str]
    positives: np.ndarray
    """Positions in `names` of the images that hold the person."""
    boxes: np.ndarray
    """The person's box in each of these, x1, y1, x2, y2."""


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    """Boxes (n x 4 int64, x1, y1, x2, y2) of each image of Images.mat, those without area dropped."""
    boxes = {}
    images = records(load_variable(path, "Img"), ("imname", "nAppear", "box"))
    with reading(path):
        for name, _, held in images:
            corners = [_corners(locate) for locate, _ in records(held, BOX_FIELDS)]
            corners = np.array(corners, dtype=np.int64).reshape(-1, 4)
            boxes[text(name)] = corners[box_areas(corners) > 0]
    return boxes


def read_pool(path: Path) -> list[str]:
    """Names of a pool file, each once, in its order."""
    pool = load_variable(path, "pool")
    with reading(path):
        return list(dict.fromkeys(text(name) for name in pool.flat))


def read_identities(path: Path) -> Iterator[Appearance]:
    """Appearances of the training identities: the first identity of the file is 1."""
    identities = records(load_variable(path, "Train"), ("idname", "nAppear", "scene"))
    with reading(path):
        for pid, (_, _, scenes) in enumerate(identities, start=1):
            for name, locate, _ in records(scenes, SCENE_FIELDS):
                yield Appearance(text(name), _corners(locate), pid)


def read_protocol(path: Path) -> Iterator[ProtocolEntry]:
    """The queries of a TestG file with their galleries; the first query is identity 1."""
    entries = records(load_variable(path, path.stem), ("Query", "Gallery"))
    with reading(path):
        for pid, (query, gallery) in enumerate(entries, start=1):
            asked = [Appearance(text(name), _corners(locate), pid) for name, locate, _ in records(query, SCENE_FIELDS)]
            if len(asked) != 1:
                raise DatasetError(f"query {pid} asks for {len(asked)} people")
            images = [(text(name), locate) for name, locate, _ in records(gallery, SCENE_FIELDS)]
            positives = [k for k, (_, locate) in enumerate(images) if np.size(locate)]
            boxes = np.array([_corners(images[k][1]) for k in positives], dtype=np.int64).reshape(-1, 4)
            yield ProtocolEntry(asked[0], [name for name, _ in images], np.array(positives, dtype=np.int64), boxes)


def _corners(locate) -> np.ndarray:
    """The box x1, y1, x2, y2 of an idlocate x, y, w, h."""
    xywh = integers(locate)
    if len(xywh) != 4:
        raise DatasetError(f"a box has the numbers {xywh.tolist()} where x, y, w, h are expected")
    return xywh_to_xyxy(xywh[None])[0]


def assign_identities(names, boxes, appearances, source: Path) -> dict[str, np.ndarray]:
    """The pids of the boxes of the images `names`: that of the appearance that equals a box, else UNLABELLED.

    An appearance that equals none is counted in a warning that names `source`.
    """
    pids = {name: np.full(len(boxes[name]), UNLABELLED) for name in names}
    unmatched = []
    for img_name, box, pid in appearances:
        equal = np.flatnonzero((boxes[img_name] == box).all(axis=1)) if img_name in pids else []
        if len(equal):
            pids[img_name][equal[0]] = pid
        else:
            unmatched.append(f"identity {pid} at {box.tolist()} in {img_name}")
    warn_of_unmatched(source, unmatched)
    return pids
