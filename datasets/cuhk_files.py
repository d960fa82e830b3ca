"""The annotation files of CUHK-SYSU and MovieNet-CS, which differ in how deep values are nested.

Records at fault are added to the file's faults and left out. Protocol files have their name from the number of images
in a gallery, as TestG100.mat; the n-th query of one is identity n.

People in images are structured arrays of `img_name` (str), `box` (int64 x1, y1, x2, y2) and `pid` (int64).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotation_file import AnnotationFile, Box, MalformedError, located, records, text
from datasets.base import check_name
from datasets.cache import Arrays, read_cached
from datasets.faults import ERROR, WARNING
from utils.labels import UNLABELLED

SCENE_FIELDS = ("imname", "idlocate", "ishard")
"""Of the record of a person in an image: name, box x, y, w, h, and a mark that is not used."""
SUBSET_VARIABLES = {"Occlusion": "Occlusion1", "Resolution": "Test_Size"}
"""What the protocols of the test subsets are called inside their files; other protocols have their file's name."""


@dataclass(frozen=True)
class Protocol:
    """A test protocol: which images each query is searched in, and where the person stands in them.

    Attributes:
        queries: Q people.
        names: str: the images of all galleries, each once.
        images: int32, m: the galleries one after the other, as positions in `names`.
        owners: int32, m: whose gallery it is, as positions in `queries`; rising.
        positives: int64, p: positions in `images` of those that show the person.
        boxes: int64, p x 4: the person's box in each of these, x1, y1, x2, y2.
    """

    queries: np.ndarray
    names: np.ndarray
    images: np.ndarray
    owners: np.ndarray
    positives: np.ndarray
    boxes: np.ndarray

    def people(self) -> np.ndarray:
        """The queries, and their appearances in their galleries, by identity."""
        names, pids = self.names[self.images[self.positives]], self.queries["pid"][self.owners[self.positives]]
        shown = _people(zip(names.tolist(), self.boxes.tolist(), pids.tolist(), strict=True))
        people = np.concatenate([self.queries, shown])
        return people[np.argsort(people["pid"], kind="stable")]


def read_boxes(file: AnnotationFile, root: Path) -> dict[str, np.ndarray]:
    """Boxes (n x 4 int64, x1, y1, x2, y2) of each image of Images.mat, those without area left out."""
    arrays = read_cached(file, root, _parse_boxes)
    split = np.split(arrays["boxes"], np.cumsum(arrays["counts"])[:-1])
    return dict(zip(arrays["names"].tolist(), split, strict=False))  # without images, split still gives one part


def _parse_boxes(file: AnnotationFile) -> Arrays:
    boxes: dict[str, list[Box]] = {}
    with file.record("Img"):
        for number, (name, _, held) in enumerate(records(file.variable("Img"), ("imname", "nAppear", "box")), start=1):
            with file.record(f"image {number}"):
                name = _img_name(name)
                if name in boxes:
                    file.fault(f"{name} is listed again: the last record counts", f"image {number}", name, WARNING)
                boxes[name] = []
                for place, (locate, _) in enumerate(records(held, SCENE_FIELDS[1:]), start=1):
                    with file.record(f"{name}, box {place}", name):
                        boxes[name].append(located(locate))
    counts = np.array([len(of_image) for of_image in boxes.values()], dtype=np.int64)
    every = [box for of_image in boxes.values() for box in of_image]
    return {"names": np.array(list(boxes), dtype=str), "counts": counts, "boxes": _boxes(every)}


def read_names(file: AnnotationFile, variable: str) -> list[str]:
    """The image names in a cell array, each once."""
    names = []
    for number, name in enumerate(file.variable(variable).flat, start=1):
        with file.record(f"name {number}"):
            names.append(_img_name(name))
    return list(dict.fromkeys(names))


def read_identities(file: AnnotationFile, root: Path) -> np.ndarray:
    """Appearances of the training identities in Train.mat: the first identity of the file is 1."""
    return read_cached(file, root, _parse_identities)["people"]


def _parse_identities(file: AnnotationFile) -> Arrays:
    people = []
    with file.record("Train"):
        for pid, (_, _, scenes) in enumerate(records(file.variable("Train"), ("idname", "nAppear", "scene")), start=1):
            with file.record(f"identity {pid}"):
                for number, (name, locate, _) in enumerate(records(scenes, SCENE_FIELDS), start=1):
                    with file.record(f"identity {pid}, scene {number}"):
                        people.append((_img_name(name), located(locate), pid))
    return {"people": _people(people)}


def read_protocol(file: AnnotationFile, root: Path) -> Protocol:
    """The queries of a TestG file, or of a test subset, with their galleries."""
    return Protocol(**read_cached(file, root, _parse_protocol))


def _parse_protocol(file: AnnotationFile) -> Arrays:
    variable = SUBSET_VARIABLES.get(file.path.stem, file.path.stem)
    queries, counts, images, positives, boxes = [], [], [], [], []
    places: dict[str, int] = {}
    with file.record(variable):
        for pid, (query, gallery) in enumerate(records(file.variable(variable), ("Query", "Gallery")), start=1):
            with file.record(f"query {pid}", severity=ERROR):  # a query without area cannot just be left out
                person, shown = _person(query), list(_gallery(file, pid, gallery))
                queries.append((*person, pid))
                counts.append(len(shown))
                for name, box in shown:
                    if box is not None:
                        positives.append(len(images))
                        boxes.append(box)
                    images.append(places.setdefault(name, len(places)))
    return {
        "queries": _people(queries),
        "names": np.array(list(places), dtype=str),
        "images": np.array(images, dtype=np.int32),
        "owners": np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        "positives": np.array(positives, dtype=np.int64),
        "boxes": _boxes(boxes),
    }


def _person(query: Any) -> tuple[str, Box]:
    """Image name and box of the one record of a query."""
    people = list(records(query, SCENE_FIELDS))
    if len(people) != 1:
        raise MalformedError(f"asks for {len(people)} people")
    return _img_name(people[0][0]), located(people[0][1])


def _gallery(file: AnnotationFile, pid: int, gallery: Any) -> Iterator[tuple[str, Box | None]]:
    """Name of each gallery image and the person's box in it; None where the person is not there."""
    for number, (name, locate, _) in enumerate(records(gallery, SCENE_FIELDS), start=1):
        try:  # not file.record: millions of images in the large protocols
            yield _img_name(name), located(locate) if np.size(locate) else None
        except MalformedError as error:
            file.fault(str(error), f"query {pid}, gallery image {number}", severity=error.severity)


def _img_name(value: Any) -> str:
    """The image's name inside `value`. Raises MalformedError, also where it would lead out of the images' folder."""
    name = text(value)
    check_name(name)
    return name


def _people(rows: Iterable[tuple[str, Sequence[int], int]]) -> np.ndarray:
    rows = list(rows)
    names = np.array([name for name, _, _ in rows], dtype=str)
    return np.array(rows, dtype=[("img_name", names.dtype), ("box", np.int64, 4), ("pid", np.int64)])


def _boxes(boxes: Sequence[Box]) -> np.ndarray:
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def assign_identities(
    names: Iterable[str], boxes: dict[str, np.ndarray], people: np.ndarray, file: AnnotationFile
) -> dict[str, np.ndarray]:
    """The pids of the boxes of the images `names` of a split: of the person whose box it equals, else UNLABELLED.

    Args:
        boxes: those of all images.
        people: of `file`, which gets a warning for each whose box is in no image of the split.
    """
    pids = {name: np.full(len(boxes[name]), UNLABELLED) for name in names}
    for img_name, box, pid in people.tolist():
        equal = np.flatnonzero((boxes[img_name] == box).all(axis=1)) if img_name in pids else []
        if len(equal):
            pids[img_name][equal[0]] = pid
        else:
            problem = f"this split has no box {box.tolist()} (x1, y1, x2, y2) in {img_name}: left out"
            file.fault(problem, f"identity {pid}", img_name, WARNING)
    return pids
