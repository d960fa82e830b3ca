"""PRW: frames of six cameras on a campus; every test frame is every query's gallery."""

import math
import re
import reprlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.annotation_file import AnnotationFile
from datasets.base import FULL_GALLERY, PersonSearchDataset, QueryGallery, check_name, each_once, make_annotation
from datasets.findings import BAD_ID, BAD_RECORD, BOX_CLIPPED, BOX_OUTSIDE, UnusableFileError
from datasets.matlab import MAX_COORDINATE, MalformedError, asked_for, corners, text
from utils.boxes import clip_boxes
from utils.labels import BACKGROUND, UNLABELLED

TABLE_COLUMNS = 5
BOX_VARIABLES = ("box_new", "anno_file", "anno_previous")
"""Names under which an annotation file may hold its n x 5 table, first come first taken."""


class PRW(PersonSearchDataset):
    """PRW (Zheng et al., CVPR 2017).

    Training identities are renumbered 1 ... P in rising order of the files' ids; gallery and queries keep the files'
    ids.
    """

    name = "PRW"
    folder = "prw"
    cbgm_k1, cbgm_k2 = 30, 4

    def _load_annotations(self) -> list[dict]:
        if self.split == "query":
            return list(self._read_queries(self._file(self._queries_file)))
        part = "train" if self.split == "train" else "test"
        file, annotations = self._file(self.root / f"frame_{part}.mat"), []
        for number, name in enumerate(self._frame_names(file, f"img_index_{part}"), start=1):
            # A frame whose own file is of no use is left out, the others are still read.
            with file.record(f"name {number}"), suppress(UnusableFileError):
                annotations.append(self._read_frame(f"{name}.jpg"))
        return renumbered(annotations) if self.split == "train" else annotations

    @staticmethod
    def _frame_names(file: AnnotationFile, variable: str) -> list[str]:
        names = []
        for number, name in enumerate(file.variable(variable).flat, start=1):
            with file.record(f"name {number}"):
                names.append(text(name))
        each_once(names, file)
        return names

    def _read_frame(self, img_name: str) -> dict:
        check_name(img_name, self._image_folder)
        file = self._file(self._annotation_path(img_name))
        table = file.variable(BOX_VARIABLES)
        shaped = table.size == 0 or table.shape[1:] == (TABLE_COLUMNS,)
        if not shaped or table.dtype.kind not in "biuf":
            file.unusable(BAD_RECORD, "does not hold n x 5 numbers pid, x, y, w, h")
        pids, boxes = [], []
        for number, row in enumerate(table.reshape(-1, TABLE_COLUMNS).tolist(), start=1):
            try:  # not record(): tens of thousands of rows
                pid, box = _person(*row)
            except MalformedError as error:
                file.malformed(error, f"row {number}", img_name)
            else:
                _tell_clipped(file, box, f"row {number}", img_name)
                pids.append(pid)
                boxes.append(box)
        return self._annotation(img_name, pids, boxes)

    def _read_queries(self, file: AnnotationFile) -> Iterator[dict]:
        self._lines = []
        for number, line in enumerate(file.lines(), start=1):
            if not line.strip():
                continue
            with file.record(f"line {number}"):
                try:
                    *numbers, img_name = line.split()
                    pid, x, y, w, h = map(float, numbers)
                except ValueError as error:
                    raise MalformedError(f"expected pid x y w h name, found {reprlib.repr(line)}") from error
                check_name(f"{img_name}.jpg", self._image_folder)
                with asked_for():
                    pid, box = _person(pid, x, y, w, h)
                if pid == UNLABELLED:
                    raise MalformedError(f"asks for somebody without identity: {reprlib.repr(line)}", BAD_ID)
                _tell_clipped(file, box, f"line {number}", f"{img_name}.jpg")
                annotation = self._annotation(f"{img_name}.jpg", [pid], [box])
                self._lines.append(number)
                yield annotation

    def _annotation(self, img_name: str, pids: list[int], boxes: list[tuple]) -> dict:
        boxes = clip_boxes(np.array(boxes, dtype=np.int64).reshape(-1, 4))
        return make_annotation(self._image_folder, img_name, boxes, np.array(pids), cam_id=camera_of(img_name))

    @property
    def _image_folder(self) -> Path:
        return self.root / "frames"

    @property
    def _queries_file(self) -> Path:
        return self.root / "query_info.txt"

    def _annotation_path(self, img_name: str) -> Path:
        return self.root / "annotations" / f"{img_name}.mat"

    def record_of(self, index: int) -> tuple[Path, str]:
        if self.split == "query":
            return self._queries_file, f"line {self._lines[index]}"
        return self._annotation_path(self.annotations[index]["img_name"]), self.annotations[index]["img_name"]

    @cached_property
    def _cameras(self) -> np.ndarray:
        return np.array([annotation["cam_id"] for annotation in self.annotations])

    @cached_property
    def _places(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """For each identity the images that hold it, and its first box in each."""
        places: dict[int, dict[int, np.ndarray]] = {}
        for index, annotation in enumerate(self.annotations):
            for pid, box in zip(annotation["pids"].tolist(), annotation["boxes"], strict=True):
                places.setdefault(pid, {}).setdefault(index, box)
        return {pid: (np.array(list(held)), np.array(list(held.values()))) for pid, held in places.items()}

    def galleries(self, gallery_set, size=None, cross_camera=False) -> Iterator[QueryGallery]:
        """All test frames but the query's own, or (cross_camera) those of other cameras."""
        if size not in (None, FULL_GALLERY):
            raise ValueError(
                f"{self.name}: no gallery size {size}: its gallery is all test frames (None or {FULL_GALLERY})"
            )
        return (self._gallery_of(query, gallery_set, cross_camera) for query in self.annotations)

    @staticmethod
    def _gallery_of(query: dict, gallery_set: "PRW", cross_camera: bool) -> QueryGallery:
        member = np.ones(len(gallery_set), dtype=bool)
        own = gallery_set.image_index.get(query["img_name"])
        if own is not None:
            member[own] = False
        if cross_camera:
            member &= gallery_set._cameras != query["cam_id"]
        nowhere = np.zeros(0, dtype=np.int64), np.zeros((0, 4))
        images, boxes = gallery_set._places.get(int(query["pids"][0]), nowhere)
        inside = member[images]
        return QueryGallery(np.flatnonzero(member), images[inside], boxes[inside], int(inside.sum()))


def _person(pid: float, x: float, y: float, w: float, h: float) -> tuple[int, tuple[int, int, int, int]]:
    """Id and box (x1, y1, x2, y2) of a row.

    Raises:
        MalformedError: see datasets.matlab.corners; of the kind BAD_ID where the id is none.
    """
    if not math.isfinite(pid) or pid != int(pid) or pid == BACKGROUND or pid > MAX_COORDINATE:
        raise MalformedError(
            f"id {pid:g}: ids are whole numbers of 1 and up, or -2 for a person without identity", BAD_ID
        )
    # Corners first: cutting x at 0 before w is added would move the far edge.
    return (UNLABELLED if pid < 0 else int(pid)), corners(x, y, w, h)


def _tell_clipped(file: AnnotationFile, box: tuple[int, int, int, int], record: str, img_name: str) -> None:
    if min(box) < 0:
        kind = BOX_CLIPPED if box[2] > 0 and box[3] > 0 else BOX_OUTSIDE
        file.fault(
            kind, f"{list(box)} (x1, y1, x2, y2) reaches beyond the left or upper edge of {img_name}", record, img_name
        )


def camera_of(img_name: str) -> int:
    """The camera that took a frame: the number after the c its name starts with."""
    match = re.match(r"c(\d+)s", img_name)
    if match is None:
        raise MalformedError(f"frame name {img_name!r} does not tell its camera: PRW's start with c, its number and s")
    return int(match.group(1))


def renumbered(annotations: list[dict]) -> list[dict]:
    """The annotations with identities numbered 1 ... P in rising order: the files skip numbers, tables must not."""
    known = sorted({int(pid) for annotation in annotations for pid in annotation["pids"] if pid > 0})
    numbers = {UNLABELLED: UNLABELLED, **{pid: number for number, pid in enumerate(known, start=1)}}
    for annotation in annotations:
        annotation["pids"] = np.array([numbers[int(pid)] for pid in annotation["pids"]], dtype=np.int32)
    return annotations
