"""What an extraction has found so far, on disk: an interrupted one goes on where it stopped."""

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from torch import nn

from engine.features import READ_ERRORS, packed, read_arrays, unpacked
from utils.distributed import from_main, is_main, rank
from utils.files import write_atomically

log = logging.getLogger(__name__)

SECONDS_BETWEEN_PARTS = 30.0
"""What a crash costs at most."""
VERSION = 1
"""Of what parts hold: to be raised when their format changes, or the network's arithmetic with the same weights."""


@dataclass
class ImageFeatures:
    """What the network says of one image file.

    Attributes:
        path: the file.
        gallery: detections n x 5 (see `Features`) and embeddings n x D; None where the image is a query's alone.
        truth: t x D, embeddings of the annotated boxes, where they were asked for.
        queries: for each query in it the embedding D, and of its context m x 5 and m x D.
    """

    path: str
    gallery: tuple[np.ndarray, np.ndarray] | None
    truth: np.ndarray
    queries: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


class FeatureParts:
    """A folder of parts, each the results of some images, that together are one extraction.

    Every process writes parts of its own; the main one reads those of all when an extraction begins. Parts are a safety
    net: where they cannot be written, a warning says so, and the extraction goes on with its results in memory.

    Args:
        folder: where; made when the first part is written. It must belong to this extraction alone, see
            `extraction_id`.

    Attributes:
        found_earlier: images whose results `read` found.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.found_earlier = 0
        self._pending: list[ImageFeatures] = []
        self._written, self._last, self._failing = 0, monotonic(), False

    def read(self) -> tuple[list[ImageFeatures], set[str]]:
        """What earlier calls of the program have found.

        To be called by every process, before it writes.

        Returns:
            The results, each image once (beside the main process none, for they may be many), and in every process the
            paths of these images.
        """
        found = {}
        if is_main():
            for path in sorted(self.folder.glob("*.npz")):
                found |= {image.path: image for image in _read_part(path)}
        paths = from_main(lambda: set(found))
        self.found_earlier = len(paths)
        if paths:
            log.info("%s: going on with the features of %d images found earlier", self.folder, len(paths))
        return list(found.values()), paths

    def add(self, images: list[ImageFeatures]) -> None:
        """Remember results; from time to time they are written."""
        self._pending += images
        if monotonic() - self._last > SECONDS_BETWEEN_PARTS:
            self.write()

    def write(self) -> None:
        """Write what is not on disk yet; what cannot be written is kept for the next time."""
        if self._pending:
            try:
                self._write_part(_packed_images(self._pending))
                self._pending, self._failing = [], False
            except OSError as error:
                if not self._failing:  # once, not every half minute
                    log.warning(
                        "%s cannot be written (%s): the extraction goes on, but what it finds now would be lost if it "
                        "were interrupted",
                        self._path(), error.strerror or error,
                    )  # fmt: skip
                self._failing = True
        self._last = monotonic()

    def _write_part(self, contents: dict[str, np.ndarray]) -> None:
        while self._path().exists():
            self._written += 1
        write_atomically(self._path(), lambda file: np.savez(file, **contents))

    def _path(self) -> Path:
        """Of the next part."""
        return self.folder / f"{rank()}-{self._written}.npz"

    def remove(self) -> None:
        """Delete the folder, when the extraction is kept elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


def extraction_id(model: nn.Module, gallery_set, query_set, *settings: object) -> str:
    """A name for an extraction: a digest of all that its results follow from.

    It covers VERSION, the weights, the boxes, the image files (path, size, time of the last change) and the settings
    (by their text).
    """
    digest = hashlib.blake2b(repr((VERSION, settings)).encode(), digest_size=8)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    for dataset in (gallery_set, query_set):
        digest.update(repr(len(dataset.annotations)).encode())
        for annotation in dataset.annotations:
            path, boxes = annotation["img_path"], annotation["boxes"]
            digest.update(repr((path, _stamp(path), boxes.shape)).encode())
            digest.update(boxes.tobytes())
    return digest.hexdigest()


def _stamp(path: str) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in ns; None for a missing file, which is an error when it is read."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _read_part(path: Path) -> list[ImageFeatures]:
    try:
        return _unpacked_images(read_arrays(path))
    except READ_ERRORS as error:
        log.warning("%s is damaged (%s): its images are searched anew", path, error)
        return []


def _packed_images(images: list[ImageFeatures]) -> dict[str, np.ndarray]:
    nothing = (np.zeros((0, 5), np.float32), np.zeros((0, 0), np.float32))
    gallery = [image.gallery or nothing for image in images]
    queries = [query for image in images for query in image.queries]
    return {
        "paths": np.array([image.path for image in images]),
        "in_gallery": np.array([image.gallery is not None for image in images]),
        "query_counts": np.array([len(image.queries) for image in images], dtype=np.int64),
        **packed("gallery_dets", [dets for dets, _ in gallery]),
        **packed("gallery_feats", [feats for _, feats in gallery]),
        **packed("truth", [image.truth for image in images]),
        **packed("query_feats", [feat[None] for feat, _, _ in queries]),
        **packed("context_dets", [dets for _, dets, _ in queries]),
        **packed("context_feats", [feats for _, _, feats in queries]),
    }


def _unpacked_images(contents: dict[str, np.ndarray]) -> list[ImageFeatures]:
    """What `_packed_images` made; raises one of READ_ERRORS where the arrays do not fit each other."""
    gallery = zip(unpacked("gallery_dets", contents), unpacked("gallery_feats", contents), strict=True)
    contexts = unpacked("context_dets", contents), unpacked("context_feats", contents)
    queries, counts = list(zip(contents["query_feats"], *contexts, strict=True)), contents["query_counts"]
    if counts.sum() != len(queries):
        raise ValueError(f"query_counts tells of {counts.sum()} queries, but there are {len(queries)}")
    ends = np.cumsum(counts)
    rows = zip(
        contents["paths"], contents["in_gallery"], gallery, unpacked("truth", contents), ends - counts, ends,
        strict=True,
    )  # fmt: skip
    return [
        ImageFeatures(str(path), found if in_gallery else None, truth, queries[start:end])
        for path, in_gallery, found, truth, start, end in rows
    ]
