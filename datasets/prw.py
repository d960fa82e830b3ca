"""PRW: frames of six cameras on a campus; every test frame is in every query's gallery."""

import math
import re
import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from datasets.annotation_file import MAX_COORDINATE, Box, MalformedError, corners
from datasets.base import FULL_GALLERY, PersonSearchDataset, QueryGallery, check_name, make_annotation
from datasets.cuhk_files import read_names
from datasets.faults import ERROR, DatasetError, Fault
from utils.boxes import clip_boxes
from utils.errors import UserError
from utils.labels import BACKGROUND, UNLABELLED

BOX_VARIABLES = ("box_new", "anno_file", "anno_previous")
"""Names under which an annotation file may hold its n x 5 table of pid, x, y, w, h."""


class PRW(PersonSearchDataset):
    """PRW (Zheng et al., CVPR 2017).

    Training identities are renumbered 1 ... P in rising order of the files' ids; gallery and queries keep the files'
    ids.
    """

    name = "PRW"
    folder = "prw"
    cbgm_k1, cbgm_k2 = 30, 4

    def _load_annotations(self, faults: list[Fault]) -> list[dict[str, Any]]:
        if self.split == "query":
            file, annotations = self._file("query_info.txt", faults), []
            for number, line in enumerate(file.lines(), start=1):
                if line.strip():
                    with file.record(f"line {number}", severity=ERROR):  # a query without area is one too
                        annotations.append(self._query(line))
            return annotations
        part = "train" if self.split == "train" else "test"
        frames, annotations = self._file(f"frame_{part}.mat", faults), []
        for name in read_names(frames, f"img_index_{part}"):
            try:  # one damaged file of thousands leaves the others
                with frames.record(name, f"{name}.jpg"):
                    annotations.append(self._read_frame(f"{name}.jpg", faults))
            except DatasetError as error:
                faults += error.faults
        return renumbered(annotations) if self.split == "train" else annotations

    def _read_frame(self, img_name: str, faults: list[Fault]) -> dict[str, Any]:
        file = self._file(f"annotations/{img_name}.mat", faults)
        table = file.variable(*BOX_VARIABLES)
        if table.dtype.kind not in "biuf" or (table.size and table.shape[1:] != (5,)):
            raise DatasetError(Fault(str(file.path), "does not hold n x 5 numbers pid, x, y, w, h"))
        people = []
        for number, row in enumerate(table.reshape(-1, 5).tolist(), start=1):
            with file.record(f"row {number}", img_name):
                people.append(_person(*row))
        return self._annotation(img_name, people)

    def _query(self, line: str) -> dict[str, Any]:
        try:
            *numbers, name = line.split()
            pid, x, y, w, h = map(float, numbers)
        except ValueError as error:
            raise MalformedError(f"expected pid x y w h name, found {reprlib.repr(line)}") from error
        person = _person(pid, x, y, w, h)
        if person[0] == UNLABELLED:
            raise MalformedError(f"asks for somebody without identity: {reprlib.repr(line)}")
        return self._annotation(f"{name}.jpg", [person])

    def _annotation(self, img_name: str, people: list[tuple[int, Box]]) -> dict[str, Any]:
        check_name(img_name)
        boxes = clip_boxes(np.array([box for _, box in people], dtype=np.int64).reshape(-1, 4))
        pids = np.array([pid for pid, _ in people])
        return make_annotation(self.root / "frames", img_name, boxes, pids, cam_id=camera_of(img_name))

    def galleries(
        self, gallery_set: "PRW", size: int | None = None, cross_camera: bool = False
    ) -> Iterator[QueryGallery]:
        """All test frames but the query's own, or (cross_camera) those of other cameras."""
        if size not in (None, FULL_GALLERY):
            raise UserError(f"{self.name}: no gallery size {size}: its gallery is all test frames ({FULL_GALLERY})")
        annotations = gallery_set.annotations
        pids, boxes = (np.concatenate([annotation[key] for annotation in annotations]) for key in ("pids", "boxes"))
        owners = np.repeat(np.arange(len(annotations)), [len(annotation["pids"]) for annotation in annotations])
        cameras = np.array([annotation["cam_id"] for annotation in annotations])

        def gallery_of(query: dict[str, Any]) -> QueryGallery:
            member = gallery_set.all_but(query["img_name"])
            if cross_camera:
                member &= cameras != query["cam_id"]
            shown = np.flatnonzero((pids == query["pids"][0]) & member[owners])
            images, first = np.unique(owners[shown], return_index=True)
            return QueryGallery(np.flatnonzero(member), images, boxes[shown[first]], len(images))

        return map(gallery_of, self.annotations)


def _person(pid: float, x: float, y: float, w: float, h: float) -> tuple[int, Box]:
    """Id and box (x1, y1, x2, y2) of a row. Raises MalformedError where either is none."""
    if not math.isfinite(pid) or pid != int(pid) or pid == BACKGROUND or pid > MAX_COORDINATE:
        raise MalformedError(f"id {pid:g}: ids are whole numbers of 1 and up, or -2 for a person without identity")
    # Corners first: cutting x at 0 before w is added would move the far edge.
    box = corners(x, y, w, h)
    return (UNLABELLED if pid < 0 else int(pid)), box


def camera_of(img_name: str) -> int:
    """The camera that took a frame: the number after the c its name starts with."""
    match = re.match(r"c(\d+)s", img_name)
    if match is None:
        raise MalformedError(f"frame name {img_name!r} has no camera: names start with c, its number and s")
    return int(match.group(1))


def renumbered(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The annotations with identities numbered 1 ... P in rising order, without the gaps that the files have."""
    known = sorted({int(pid) for annotation in annotations for pid in annotation["pids"] if pid > 0})
    numbers = {UNLABELLED: UNLABELLED, **{pid: number for number, pid in enumerate(known, start=1)}}
    for annotation in annotations:
        annotation["pids"] = np.array([numbers[int(pid)] for pid in annotation["pids"]], dtype=np.int32)
    return annotations
