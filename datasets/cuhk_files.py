"""The annotation files of CUHK-SYSU and MovieNet-CS, which differ in how deep values are nested (see matlab.py)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
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


@dataclass(frozen=True)
class Protocol:
    """The queries of a test protocol and their galleries, which stand one after the other.

    Attributes:
        queries: the first is identity 1.
        names: the images that galleries name, each once.
        images: int32, m: all galleries, as positions in `names`.
        query: int32, m: whose gallery it is; rising.
        positives: int64, p: positions in `images` of those that hold the person asked for.
        boxes: p x 4 int64: the person's box in each of these, x1, y1, x2, y2.
    """

    queries: list[Appearance]
    names: list[str]
    images: np.ndarray
    query: np.ndarray
    positives: np.ndarray
    boxes: np.ndarray

    def appearances(self, held: set[str]) -> list[Appearance]:
        """Of each query in turn: itself, where its image is one of `held`, then its appearances in its gallery."""
        names = [self.names[image] for image in self.images[self.positives]]
        pids = self.query[self.positives] + 1
        found = list(map(Appearance, names, self.boxes, pids.tolist()))
        return sorted([query for query in self.queries if query.img_name in held] + found, key=lambda a: a.pid)


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
    entries = records(load_variable(path, path.stem, squeeze=True), ("Query", "Gallery"))
    queries, codes, positives, corners = [], {}, [], []
    images, sizes, total = [np.zeros(0, np.int32)], [], 0
    with reading(path):
        for pid, (query, gallery) in enumerate(entries, start=1):
            asked = [Appearance(text(name), _corners(locate), pid) for name, locate, _ in records(query, SCENE_FIELDS)]
            if len(asked) != 1:
                raise DatasetError(f"query {pid} asks for {len(asked)} people")
            queries += asked
            listed = [(text(name), locate) for name, locate, _ in records(gallery, SCENE_FIELDS)]
            held = [k for k, (_, locate) in enumerate(listed) if np.size(locate)]
            corners += [_corners(listed[k][1]) for k in held]
            positives += [total + k for k in held]
            total += len(listed)
            sizes.append(len(listed))
            images.append(np.array([codes.setdefault(name, len(codes)) for name, _ in listed], dtype=np.int32))
    return Protocol(
        queries,
        list(codes),
        np.concatenate(images),
        np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        np.array(positives, dtype=np.int64),
        np.array(corners, dtype=np.int64).reshape(-1, 4),
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
