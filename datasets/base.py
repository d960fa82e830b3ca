"""What every person-search dataset offers: annotations, items, and the gallery of each query."""

import os
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.annotation_file import AnnotationFile
from datasets.findings import (
    BAD_NAME,
    BOX_OUTSIDE,
    EMPTY_SPLIT,
    LISTED_TWICE,
    MISSING_FOLDER,
    Finding,
    Report,
    UnusableFileError,
    box_beyond,
)
from datasets.matlab import MalformedError
from utils.boxes import box_areas, clip_boxes
from utils.images import MAX_PIXELS, ImageReader

SPLITS = ("train", "gallery", "query")
FULL_GALLERY = -1
"""The gallery size that stands for every gallery image."""


class QueryGallery(NamedTuple):
    """The images one query is searched in. Indexes count a gallery set's annotations."""

    images: np.ndarray
    """int, m: the gallery, each image once."""
    positives: np.ndarray
    """int, p: those of them that hold the person, each once."""
    boxes: np.ndarray
    """p x 4: the person's true box in each of these (x1, y1, x2, y2, pixels)."""
    num_present: int
    """How often the person is to be found: p, or more where a protocol lists an image twice; published scores do so."""


class PersonSearchDataset(Dataset):
    """One split of a dataset. Making it reads the annotation files alone; images are read when an item is asked for.

    `annotations` holds a dict per image (per query in the query split): `img_name`, `img_path` (both str), `boxes`
    int32 n x 4 (x1, y1, x2, y2, pixels, in the file's order), `pids` int32 n (1 ... for identities, -1 for people
    without), and `cam_id` where the dataset knows its cameras.

    Args:
        root: the dataset's folder. It may be a link; links inside that lead out of it are refused.
        split: one of SPLITS.
        max_pixels: images with more (width x height) are refused.
        report: takes what is wrong with the annotation files; None raises the first fault. With one that does not
            raise, the dataset holds what remains (maybe nothing).

    Raises:
        FileNotFoundError: the folder or an annotation file is missing.
        ValueError: an unknown split, or `max_pixels` below 1.
        DatasetError: a file does not hold what its format says.
    """

    name: str
    folder: str
    """Where it lies under a user's data root."""
    cbgm_k1: int
    cbgm_k2: int
    """Settings of context bipartite graph matching: see utils.evaluation.cbgm."""

    def __init__(self, root: str | Path, split: str, *, max_pixels: int = MAX_PIXELS, report: Report | None = None):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: {self.name} has {', '.join(SPLITS)}")
        self.root, self.split = Path(root), split
        self._real_root = os.path.realpath(root)
        self.read_image = ImageReader(max_pixels)
        """Reads an image of this dataset, see utils.images.read_image."""
        self._report = report or Report()
        self.complete = False
        """Whether the files that the split needs are of use; it is empty where the report let pass that one is not."""
        if not self.root.is_dir():
            self._report(Finding(MISSING_FOLDER, f"{self.name}: no folder", str(root)))
            self.annotations = []
            return
        self.annotations = self._loaded()
        self._tell_counted()

    def _loaded(self) -> list[dict]:
        try:
            annotations = self._load_annotations()
        except UnusableFileError:
            return []
        self.complete = True
        if not annotations:
            self._report(Finding(EMPTY_SPLIT, f"{self.name} in {self.root}", f"has an empty {self.split} split"))
        return annotations

    def _tell_counted(self) -> None:
        self._report.finish(f"{self.name}, {self.split} split")

    def _file(self, path: Path) -> AnnotationFile:
        return AnnotationFile(path, self._real_root, self._report)

    def _load_annotations(self) -> list[dict]:
        raise NotImplementedError

    @classmethod
    def sizes_to_check(cls, root: Path) -> list[int | None]:  # noqa: ARG003 (of those with files)
        """The gallery sizes that a dataset in `root` has or must have files for; None where its one needs none."""
        return [None]

    def salvaged(self) -> Iterator[tuple[Path, dict]]:
        """What the files of a split that is not `complete` tell one by one: files, each with an image's annotation.

        Identities are left out, and boxes where no file tells them. Faults go to the report.
        """
        yield from ()

    def read_alone(self, size: int | None) -> None:
        """Read the file of a gallery size for its faults alone, which go to the report."""

    def galleries(
        self, gallery_set: "PersonSearchDataset", size: int | None = None, cross_camera: bool = False
    ) -> Iterator[QueryGallery]:
        """The gallery of each query of this query split, in order; the one way in which datasets differ in scoring.

        Args:
            gallery_set: the same dataset's gallery split.
            size: images per gallery; None is the dataset's usual size, FULL_GALLERY every gallery image.
            cross_camera: only images of other cameras than the query's.

        Raises:
            ValueError: the dataset has no such size, or knows no cameras.
        """
        raise NotImplementedError

    def record_of(self, index: int) -> tuple[Path, str]:
        """The annotation file that holds annotation `index`, and its record there, in words."""
        raise NotImplementedError

    @property
    def num_identities(self) -> int:
        """Number of identities; of the train split P, the largest pid."""
        pids = np.concatenate([np.zeros(0, np.int32), *(annotation["pids"] for annotation in self.annotations)])
        return int(pids.max(initial=0)) if self.split == "train" else len(np.unique(pids[pids > 0]))

    @cached_property
    def image_index(self) -> dict[str, int]:
        """Position of each image name in `annotations`."""
        return {annotation["img_name"]: index for index, annotation in enumerate(self.annotations)}

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict]:
        """Image `index`, uint8 3 x H x W RGB, and its target.

        The target holds `boxes` float32 n x 4 (clipped to the image), `labels` int64 n (the pids), `img_name` and
        `index`. In the train split a box that lies outside the image altogether is left out, and `outside` holds a
        message (str) for each, if there is one; elsewhere boxes answer the annotation's one by one.
        """
        annotation = self.annotations[index]
        image = self.read_image(annotation["img_path"])
        height, width = image.shape[:2]
        boxes, pids = clip_boxes(annotation["boxes"], width, height), annotation["pids"]
        outside = []
        if self.split == "train":
            inside = box_areas(boxes) > 0
            boxes, pids = boxes[inside], pids[inside]
            outside = annotation["boxes"][~inside].tolist()
        target = {
            "boxes": torch.as_tensor(boxes, dtype=torch.float32),
            "labels": torch.as_tensor(pids, dtype=torch.int64),
            "img_name": annotation["img_name"],
            "index": index,
        }
        if outside:
            target["outside"] = [self._outside(index, box, (width, height)) for box in outside]
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), target

    def _outside(self, index: int, box: list[int], size: tuple[int, int]) -> str:
        return str(box_beyond(BOX_OUTSIDE, *self.record_of(index), box, size, self.annotations[index]["img_name"]))


def check_name(img_name: str, folder: str | Path = "the image folder") -> None:
    """Refuse the name of an image that would lead out of `folder`, which is told in the message alone.

    Raises:
        MalformedError: of the kind BAD_NAME.
    """
    if _leads_out(img_name):
        raise MalformedError(f"image name {img_name!r} leads out of {folder}", BAD_NAME)


@lru_cache(maxsize=2**18)  # protocols name the same images millions of times
def _leads_out(img_name: str) -> bool:
    parts = PureWindowsPath(img_name)  # whose rules contain the POSIX ones
    return bool(parts.anchor) or ".." in parts.parts or not parts.parts or "\0" in img_name


def make_annotation(folder: Path, img_name: str, boxes: np.ndarray, pids: np.ndarray, **extra) -> dict:
    """One annotation (see PersonSearchDataset) of the image `img_name` under `folder`.

    Raises:
        MalformedError: the name would lead out of the folder.
    """
    check_name(img_name, folder)
    return {
        "img_name": img_name,
        "img_path": str(folder / img_name),
        "boxes": np.asarray(boxes).reshape(-1, 4).astype(np.int32),
        "pids": np.asarray(pids).reshape(-1).astype(np.int32),
        **extra,
    }


def each_once(names: list[str], file: AnnotationFile) -> list[str]:
    """The names in their order, each once; further mentions are reported."""
    once = list(dict.fromkeys(names))
    if len(once) < len(names):
        seen = set()
        for number, name in enumerate(names, start=1):
            if name in seen:
                file.fault(LISTED_TWICE, f"{name} is listed again", f"name {number}", name)
            seen.add(name)
    return once
