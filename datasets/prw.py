"""PRW: frames of six cameras on a campus; every test frame is every query's gallery."""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.base import FULL_GALLERY, DatasetError, PersonSearchDataset, QueryGallery, make_annotation
from datasets.matlab import load_variable, reading, text
from utils.boxes import clip_boxes, xywh_to_xyxy
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
            return self._read_queries(self.root / "query_info.txt")
        part = "train" if self.split == "train" else "test"
        path = self.root / f"frame_{part}.mat"
        with reading(path):
            names = [text(name) for name in load_variable(path, f"img_index_{part}").flat]
        annotations = [self._read_frame(f"{name}.jpg") for name in names]
        return renumbered(annotations) if self.split == "train" else annotations

    def _read_frame(self, img_name: str) -> dict:
        path = self.root / "annotations" / f"{img_name}.mat"
        table = load_variable(path, BOX_VARIABLES)
        shaped = table.size == 0 or table.shape[1:] == (TABLE_COLUMNS,)
        if not shaped or table.dtype.kind not in "biuf" or not np.isfinite(table).all():
            raise DatasetError(f"annotation file {path} does not hold n x 5 numbers pid, x, y, w, h: unpack it again")
        table = table.reshape(-1, TABLE_COLUMNS)
        return self._annotation(img_name, table[:, 0], table[:, 1:], path)

    def _read_queries(self, path: Path) -> list[dict]:
        if not path.is_file():
            raise FileNotFoundError(
                f"annotation file {path} is missing: check the dataset's folder, or unpack it again"
            )
        queries = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                pid, *box, img_name = line.split()
                pid, box = int(pid), np.array(box, dtype=np.float64).reshape(1, 4)
            except ValueError as error:
                raise DatasetError(f"{path}, line {number}: expected pid x y w h name, found {line!r}") from error
            queries.append(self._annotation(f"{img_name}.jpg", pid, box, path))
        return queries

    def _annotation(self, img_name: str, pids, xywh: np.ndarray, source: Path) -> dict:
        pids = np.where(np.asarray(pids) < 0, UNLABELLED, pids)
        if (pids == BACKGROUND).any():
            raise DatasetError(f"{source}: id 0 in {img_name}: ids are 1 and up, or -2 for a person without identity")
        # Corners first: cutting x at 0 before w is added would move the far edge.
        boxes = clip_boxes(xywh_to_xyxy(xywh).astype(np.int64))
        return make_annotation(self.root / "frames", img_name, boxes, pids, cam_id=camera_of(img_name))

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


def camera_of(img_name: str) -> int:
    """The camera that took a frame: the number after the c its name starts with."""
    match = re.match(r"c(\d+)s", img_name)
    if match is None:
        raise DatasetError(f"frame name {img_name!r} does not tell its camera: PRW's start with c, its number and s")
    return int(match.group(1))


def renumbered(annotations: list[dict]) -> list[dict]:
    """The annotations with identities numbered 1 ... P in rising order: the files skip numbers, tables must not."""
    known = sorted({int(pid) for annotation in annotations for pid in annotation["pids"] if pid > 0})
    numbers = {UNLABELLED: UNLABELLED, **{pid: number for number, pid in enumerate(known, start=1)}}
    for annotation in annotations:
        annotation["pids"] = np.array([numbers[int(pid)] for pid in annotation["pids"]], dtype=np.int32)
    return annotations
