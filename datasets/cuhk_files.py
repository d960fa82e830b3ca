"""The annotation files of CUHK-SYSU and MovieNet-CS, which differ in how deep values are nested (see matlab.py).

Records that are at fault are reported, and left out where the report lets them pass.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from datasets.annotation_file import AnnotationFile
from datasets.base import check_name, each_once
from datasets.findings import LISTED_TWICE, OTHER_SPLIT, UNKNOWN_SCENE, UNMATCHED, DatasetError, StrictReport
from datasets.matlab import MAX_COORDINATE, MalformedError, asked_for, located, records, text
from datasets.protocol import SCENE_FIELDS, Appearance, Protocol, joined
from datasets.protocol_fast import read_plain_protocol
from utils.labels import UNLABELLED

BOX_FIELDS = ("idlocate", "ishard")


def read_boxes(file: AnnotationFile) -> dict[str, np.ndarray]:
    """Boxes (n x 4 int64, x1, y1, x2, y2) of each image of Images.mat, those without area left out."""
    boxes = {}
    with file.record("Img"):
        for number, (name, _, held) in enumerate(records(file.variable("Img"), ("imname", "nAppear", "box")), start=1):
            with file.record(f"image {number}"):
                name = text(name)
                if name in boxes:
                    file.fault(LISTED_TWICE, "is listed again: the last record counts", f"image {number}, {name}", name)
                boxes[name] = _boxes_of(file, name, held)
    return boxes


def _boxes_of(file: AnnotationFile, name: str, held) -> np.ndarray:
    corners = []
    with file.record(name, name):
        for number, (locate, _) in enumerate(records(held, BOX_FIELDS), start=1):
            try:  # not record(): a hundred thousand boxes
                corners.append(located(locate))
            except MalformedError as error:
                file.malformed(error, f"{name}, box {number}", name)
    return np.array(corners, dtype=np.int64).reshape(-1, 4)


def read_pool(file: AnnotationFile) -> list[str]:
    """Names of a pool file, each once, in its order."""
    names = []
    for number, name in enumerate(file.variable("pool").flat, start=1):
        with file.record(f"name {number}"):
            names.append(text(name))
    return each_once(names, file)


def read_identities(file: AnnotationFile) -> Iterator[Appearance]:
    """Appearances of the training identities: the first identity of the file is 1."""
    with file.record("Train"):
        for pid, (_, _, scenes) in enumerate(records(file.variable("Train"), ("idname", "nAppear", "scene")), start=1):
            with file.record(f"identity {pid}"):
                for number, (name, locate, _) in enumerate(records(scenes, SCENE_FIELDS), start=1):
                    with file.record(f"identity {pid}, scene {number}"):
                        yield Appearance(_img_name(name), located(locate), pid)


def _img_name(value) -> str:
    """The image's name inside `value`. Raises MalformedError, also where it would lead out of the images' folder."""
    name = text(value)
    check_name(name)
    return name


def read_protocol(file: AnnotationFile) -> Protocol:
    """The queries of a TestG file with their galleries; the n-th query is identity n.

    The last ones without fault are kept: several splits need the same one, and a large one takes long to read.
    """
    file.check_place()
    return _read_faultless(file.path, file.within, file.path.stat().st_mtime_ns) or read_any_protocol(file)


@lru_cache(maxsize=2)
def _read_faultless(path: Path, within: str, _changed: int) -> Protocol | None:
    """The protocol in a file, by NumPy where it is plain; None where anything is wrong with it, which is not told."""
    protocol = read_plain_protocol(path)
    if protocol is not None and _usual(protocol):
        return protocol
    with suppress(DatasetError):
        return read_any_protocol(AnnotationFile(path, within, StrictReport()))
    return None


def _usual(protocol: Protocol) -> bool:
    """Whether its boxes and names are such as `read_any_protocol` takes."""
    boxes = np.array([*(query.box for query in protocol.queries), *protocol.boxes]).reshape(-1, 4)
    if not (np.abs(boxes) <= MAX_COORDINATE).all() or not (boxes[:, 2:] > boxes[:, :2]).all():
        return False
    try:
        for name in [*protocol.names, *(query.img_name for query in protocol.queries)]:
            check_name(name)
    except MalformedError:
        return False
    return True


def read_any_protocol(file: AnnotationFile) -> Protocol:
    """A protocol file of any layout that `records` takes, read value by value, its faults reported."""
    return joined(_entries(file))


def _entries(file: AnnotationFile) -> Iterator[Protocol]:
    """The protocol of each query alone."""
    variable = file.path.stem
    with file.record(variable):
        for pid, (query, gallery) in enumerate(records(file.variable(variable), ("Query", "Gallery")), start=1):
            with file.record(f"query {pid}"):
                yield _entry(file, pid, query, gallery)


def _entry(file: AnnotationFile, pid: int, query, gallery) -> Protocol:
    asked = list(records(query, SCENE_FIELDS))
    if len(asked) != 1:
        raise MalformedError(f"asks for {len(asked)} people")
    name, locate, _ = asked[0]
    with asked_for():
        query = Appearance(_img_name(name), np.array(located(locate)), pid)
    places, images, positives, boxes = {}, [], [], []
    for number, (name, locate, _) in enumerate(records(gallery, SCENE_FIELDS), start=1):
        try:  # not record(): millions of images in the large protocols
            name = _img_name(name)
            if np.size(locate):
                boxes.append(located(locate))
                positives.append(len(images))
            images.append(places.setdefault(name, len(places)))
        except MalformedError as error:
            file.malformed(error, f"query {pid}, gallery image {number}")
    return Protocol(
        [query],
        list(places),
        np.array(images, dtype=np.int32),
        np.zeros(len(images), dtype=np.int32),
        np.array(positives, dtype=np.int64),
        np.array(boxes, dtype=np.int64).reshape(-1, 4),
    )


def assign_identities(
    names: Iterable[str],
    boxes: dict[str, np.ndarray],
    appearances: Iterable[Appearance],
    file: AnnotationFile,
    split: str,
) -> dict[str, np.ndarray]:
    """The pids of the boxes of the images `names`: that of the appearance that equals a box, else UNLABELLED.

    An appearance that equals none is reported as a fault of `file`. `split`, whose images these are, is told there.
    """
    pids = {name: np.full(len(boxes[name]), UNLABELLED) for name in names}
    for img_name, box, pid in appearances:
        equal = np.flatnonzero((boxes[img_name] == box).all(axis=1)) if img_name in pids else []
        if len(equal):
            pids[img_name][equal[0]] = pid
            continue
        if img_name in pids:
            kind, problem = UNMATCHED, f"{np.asarray(box).tolist()} (x1, y1, x2, y2) equals no box of {img_name}"
        elif img_name in boxes:
            kind, problem = OTHER_SPLIT, f"{img_name} is not in the pool, whose images are the gallery split"
            if split == "train":
                problem = f"{img_name} is in the pool, whose images are not trained on"
        else:
            kind, problem = UNKNOWN_SCENE, f"Images.mat does not hold {img_name}"
        file.fault(kind, problem, f"identity {pid}", img_name)
    return pids
