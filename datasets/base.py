"""What every person-search dataset offers: annotations, items, and the gallery of each query."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datasets.annotation_file import AnnotationFile, MalformedError
from datasets.faults import DatasetError, Fault, raise_or_log
from utils.boxes import box_areas, clip_boxes
from utils.errors import UserError
from utils.images import MAX_PIXELS, ImageError, read_image, read_size

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "gallery", "query")
FULL_GALLERY = -1
"""The gallery size that stands for every gallery image."""


class QueryGallery(NamedTuple):
    """The images one query is searched in, as positions in a gallery set's annotations.

    Attributes:
        images: int, m: the gallery, each image once.
        positives: int, p: those of them that show the person, each once.
        boxes: p x 4: the person's ground truth in each of these (x1, y1, x2, y2, pixels).
        num_present: how often the person is to be found: p, or more where a protocol lists an image twice, as published
            scores count it.
    """

    images: np.ndarray
    positives: np.ndarray
    boxes: np.ndarray
    num_present: int


class PersonSearchDataset:
    """One split of a dataset. Making it reads the annotation files; images are read when an item is asked for.

    `annotations` holds a dict per image (per query in the query split): `img_name`, `img_path` (both str), `boxes`
    int32 n x 4 (x1, y1, x2, y2, pixels, in the file's order), `pids` int32 n (1 ... for identities, -1 for people
    without), and `cam_id` where cameras are known.

    Args:
        root: the dataset's folder.
        split: one of SPLITS.
        max_pixels: images with more (width x height) are refused.
        faults: given a list, faults of records are added to it, and the dataset holds the other records; without one,
            errors are raised and warnings logged.

    Raises:
        UserError: an unknown split.
        DatasetError: the folder or a file is missing, or does not hold what its format says.
    """

    name: str
    folder: str
    """Where it lies under a user's data root."""
    cbgm_k1: int
    cbgm_k2: int
    """Settings of context bipartite graph matching: see utils.evaluation.cbgm."""

    def __init__(
        self, root: str | Path, split: str, *, max_pixels: int = MAX_PIXELS, faults: list[Fault] | None = None
    ):
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: {self.name} has {', '.join(SPLITS)}")
        self.root, self.split, self._faults = Path(root), split, faults
        self.read_image = partial(read_image, max_pixels=max_pixels)
        self.read_size = partial(read_size, max_pixels=max_pixels)
        if not self.root.is_dir():
            raise DatasetError(
                Fault(str(root), "is no folder", advice="name the dataset's folder: INPUT.DATA_ROOT, or --root")
            )
        with self._collected_faults() as found:
            self.annotations = self._load_annotations(found)
        if not self.annotations:
            raise DatasetError(Fault(str(root), f"has an empty {split} split", advice="check its annotation files"))

    @contextmanager
    def _collected_faults(self) -> Iterator[list[Fault]]:
        """A list for the faults of what is read inside; afterwards they are collected, or raised and logged."""
        found: list[Fault] = []
        try:
            yield found
        finally:
            if self._faults is not None:
                self._faults += found
        if self._faults is None:
            raise_or_log(found, f"{self.name}, {self.split} split")

    def _load_annotations(self, faults: list[Fault]) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _file(self, path: str, faults: list[Fault]) -> AnnotationFile:
        return AnnotationFile(self.root / path, faults)

    @classmethod
    def protocol_files(cls, root: Path) -> dict[int | None, Path | None]:  # noqa: ARG003 (of datasets with protocols)
        """The test protocol of each gallery size that a dataset in `root` has or must have; None: it needs no file."""
        return {None: None}

    def galleries(
        self, gallery_set: "PersonSearchDataset", size: int | None = None, cross_camera: bool = False
    ) -> Iterator[QueryGallery]:
        """The gallery of each query of this query split, in order; the one way in which datasets differ in scoring.

        Args:
            gallery_set: the same dataset's gallery split.
            size: images per gallery; None is the dataset's usual size, FULL_GALLERY every gallery image.
            cross_camera: only images of other cameras than the query's.

        Raises:
            UserError: the dataset has no such size, or does not know its cameras.
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

    def all_but(self, img_name: str) -> np.ndarray:
        """Which images are not that one: bool, n."""
        member = np.ones(len(self), dtype=bool)
        if img_name in self.image_index:
            member[self.image_index[img_name]] = False
        return member

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> "tuple[Tensor, dict[str, Any]]":
        """Image `index`, uint8 3 x H x W RGB, and its target.

        The target holds `boxes` float32 n x 4 (clipped to the image), `labels` int64 n (the pids), `img_name` and
        `index`. In the train split boxes wholly outside the image are left out, and where there are some, `outside`
        holds a message (str) for each; elsewhere boxes and annotation match one by one.
        """
        import torch  # here: programs that read annotations only do not wait for it

        annotation = self.annotations[index]
        image = self.read_image(annotation["img_path"])
        height, width = image.shape[:2]
        boxes, pids = clip_boxes(annotation["boxes"], width, height), annotation["pids"]
        target = {"img_name": annotation["img_name"], "index": index}
        outside = self.boxes_outside(index, width, height) if self.split == "train" else []
        if outside:
            inside = box_areas(boxes) > 0
            boxes, pids = boxes[inside], pids[inside]
            target["outside"] = [str(fault) for fault in outside]
        target["boxes"] = torch.as_tensor(boxes, dtype=torch.float32)
        target["labels"] = torch.as_tensor(pids, dtype=torch.int64)
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), target

    def is_wide(self, index: int) -> bool:
        """Whether image `index` is wider than high, as its file's header says; not where that cannot be read."""
        try:
            height, width = self.read_size(self.annotations[index]["img_path"])
        except ImageError:  # found, and dealt with, when the image itself is read
            return False
        return width > height

    def boxes_outside(self, index: int, width: int, height: int) -> list[Fault]:
        """A fault for each box of annotation `index` that lies wholly outside its image of that size in pixels."""
        boxes = self.annotations[index]["boxes"]
        outside = boxes[box_areas(clip_boxes(boxes, width, height)) == 0]
        problem = f"(x1, y1, x2, y2) lies outside the {width} x {height} pixels of the image"
        return [self.fault(index, f"{box} {problem}") for box in outside.tolist()]

    def fault(self, index: int, problem: str, **fields: str) -> Fault:
        """A fault of annotation `index`; `fields` are further ones of Fault."""
        name = self.annotations[index]["img_name"]
        record = f"query {index + 1} ({name})" if self.split == "query" else name
        return Fault(f"{self.root}, {self.split} split", problem, record, name, **fields)


@lru_cache(maxsize=2**18)  # protocols name the same images millions of times
def check_name(img_name: str) -> None:
    """Refuse the name of an image that is absolute or has .. in it: path traversal. Raises MalformedError."""
    path = PureWindowsPath(img_name)  # whose rules contain the POSIX ones
    if path.anchor or ".." in path.parts or not path.parts or "\0" in img_name:
        raise MalformedError(f"image name {img_name!r} leads out of the image folder")


def make_annotation(folder: Path, img_name: str, boxes: np.ndarray, pids: np.ndarray, **extra: int) -> dict[str, Any]:
    """One annotation (see PersonSearchDataset) of the image `img_name` under `folder`; MalformedError as check_name."""
    check_name(img_name)
    return {
        "img_name": img_name,
        "img_path": str(folder / img_name),
        "boxes": np.asarray(boxes).reshape(-1, 4).astype(np.int32),
        "pids": np.asarray(pids).reshape(-1).astype(np.int32),
        **extra,
    }
