"""The annotation files of CUHK-SYSU and MovieNet-CS, which differ in how deep values are nested (see matlab.py)."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from datasets.base import DatasetError, warn_of_unmatched
from datasets.matlab import integers, load_variable, reading, records, text
from datasets.protocol import SCENE_FIELDS, Appearance, Protocol, joined
from datasets.protocol_fast import read_plain_protocol
from utils.boxes import box_areas, xywh_to_xyxy
from utils.labels import UNLABELLED

BOX_FIELDS = ("idlocate", "ishard")


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


def read_protocol(path: Path) -> Protocol:
    """The queries of a TestG file with their galleries.

    The last files read are kept: two splits need the same one, and reading takes seconds.
    """
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    return _read_protocol(path, changed)


@lru_cache(maxsize=2)
def _read_protocol(path: Path, _changed: int) -> Protocol:
    return read_plain_protocol(path) or read_any_protocol(path)


def read_any_protocol(path: Path) -> Protocol:
    """A protocol file of any layout that `records` takes, read value by value.

    Raises:
        FileNotFoundError, DatasetError: it is missing, or does not hold a protocol.
    """
    return joined(_entries(path))


def _entries(path: Path) -> Iterator[Protocol]:
    """The protocol of each query alone."""
    entries = records(load_variable(path, path.stem, squeeze=True), ("Query", "Gallery"))
    with reading(path):
        for number, (query, gallery) in enumerate(entries, start=1):
            asked = [Appearance(text(name), _corners(locate), 1) for name, locate, _ in records(query, SCENE_FIELDS)]
            if len(asked) != 1:
                raise DatasetError(f"query {number} asks for {len(asked)} people")
            listed = [(text(name), locate) for name, locate, _ in records(gallery, SCENE_FIELDS)]
            names = list(dict.fromkeys(name for name, _ in listed))
            places = {name: place for place, name in enumerate(names)}
            positives = [k for k, (_, locate) in enumerate(listed) if np.size(locate)]
            yield Protocol(
                asked,
                names,
                np.array([places[name] for name, _ in listed], dtype=np.int32),
                np.zeros(len(listed), dtype=np.int32),
                np.array(positives, dtype=np.int64),
                np.array([_corners(listed[k][1]) for k in positives], dtype=np.int64).reshape(-1, 4),
            )


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
