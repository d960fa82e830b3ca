"""What every person-search dataset offers: annotations, items, and the gallery of each query."""

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from utils.boxes import box_areas, clip_boxes
from utils.images import read_image

SPLITS = ("train", "gallery", "query")
FULL_GALLERY = -1
"""The gallery size that stands for every gallery image."""


class DatasetError(ValueError):
    """A dataset's files contradict their format; the message names the file or image and says what to do."""


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
        root: the dataset's folder.
        split: one of SPLITS.

    Raises:
        FileNotFoundError: the folder or an annotation file is missing.
        ValueError: an unknown split.
        DatasetError: a file does not hold what its format says.
    """

    name: str
    folder: str
    """Where it lies under a user's data root."""
    cbgm_k1: int
    cbgm_k2: int
    """Settings of context bipartite graph matching: see utils.evaluation.cbgm."""

    def __init__(self, root: str | Path, split: str):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: {self.name} has {', '.join(SPLITS)}")
        self.root, self.split = Path(root), split
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"{self.name}: no folder {self.root}: unpack the dataset there, or set INPUT.DATA_ROOT"
            )
        self.annotations = self._load_annotations()
        if not self.annotations:
            raise DatasetError(f"{self.name}: the {split} split in {self.root} is empty: check its annotation files")

    def _load_annotations(self) -> list[dict]:
        raise NotImplementedError

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

    @property
    def num_identities(self) -> int:
        """Number of identities; of the train split P, the largest pid."""
        pids = np.concatenate([annotation["pids"] for annotation in self.annotations])
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
        `index`. In the train split a box that lies outside the image altogether is left out; elsewhere boxes answer
        the annotation's one by one.
        """
        annotation = self.annotations[index]
        image = read_image(annotation["img_path"])
        height, width = image.shape[:2]
        boxes, pids = clip_boxes(annotation["boxes"], width, height), annotation["pids"]
        if self.split == "train":
            inside = box_areas(boxes) > 0
            boxes, pids = boxes[inside], pids[inside]
        target = {
            "boxes": torch.as_tensor(boxes, dtype=torch.float32),
            "labels": torch.as_tensor(pids, dtype=torch.int64),
            "img_name": annotation["img_name"],
            "index": index,
        }
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), target


def make_annotation(folder: Path, img_name: str, boxes: np.ndarray, pids: np.ndarray, **extra) -> dict:
    """One annotation (see PersonSearchDataset) of the image `img_name` under `folder`.

    Raises:
        DatasetError: the name would lead out of the folder.
    """
    parts = PureWindowsPath(img_name)  # which divides at / as well: what it finds harmless is so everywhere
    if parts.anchor or ".." in parts.parts or not parts.parts:
        raise DatasetError(f"image name {img_name!r} leads out of {folder}: correct the annotation file that holds it")
    return {
        "img_name": img_name,
        "img_path": str(folder / img_name),
        "boxes": np.asarray(boxes).reshape(-1, 4).astype(np.int32),
        "pids": np.asarray(pids).reshape(-1).astype(np.int32),
        **extra,
    }


def warn_of_unmatched(source: Path, unmatched: Sequence[str]) -> None:
    """One warning for all records of an annotation file that name no known box."""
    if unmatched:
        warnings.warn(
            f"{source}: {len(unmatched)} records equal no box of their image, the first: {unmatched[0]}",
            stacklevel=2,
        )
