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
from utils.distributed import barrier, is_main, rank
from utils.files import write_atomically

log = logging.getLogger(__name__)

SECONDS = 30.0
"""Between two parts: what a crash costs at most."""


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

    Every process writes parts of its own, and reads those of all when it begins.

    Args:
        folder: where; made when the first part is written. It must belong to this extraction alone, see
            `extraction_id`.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._pending: list[ImageFeatures] = []
        self._written, self._last = 0, monotonic()

    def read(self) -> list[ImageFeatures]:
        """What earlier calls of the program have found, each image once."""
        found = {}
        for path in sorted(self.folder.glob("*.npz")):
            found |= {image.path: image for image in _read_part(path)}
        barrier()  # no process writes before all have read
        if found and is_main():
            log.info("%s: going on with the features of %d images found earlier", self.folder, len(found))
        return list(found.values())

    def add(self, images: list[ImageFeatures]) -> None:
        """Remember results; from time to time they are written."""
        self._pending += images
        if monotonic() - self._last > SECONDS:
            self.write()

    def write(self) -> None:
        """Write what is not on disk yet."""
        if self._pending:
            name = f"{rank()}-{self._written}.npz"
            while (self.folder / name).exists():
                self._written += 1
                name = f"{rank()}-{self._written}.npz"
            contents = _packed_images(self._pending)
            write_atomically(self.folder / name, lambda file: np.savez(file, **contents))
            self._pending = []
        self._last = monotonic()

    def remove(self) -> None:
        """Delete the folder, when the extraction is kept elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


def extraction_id(model: nn.Module, gallery_set, query_set, *settings: object) -> str:
    """A name for an extraction: a digest of the weights, the boxes and images, and the settings (by their text)."""
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=8)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    for annotation in [*gallery_set.annotations, *query_set.annotations]:
        digest.update(annotation["img_path"].encode())
        digest.update(annotation["boxes"].tobytes())
    return digest.hexdigest()


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
    gallery = zip(unpacked("gallery_dets", contents), unpacked("gallery_feats", contents), strict=True)
    queries = iter(
        zip(
            (feat[0] for feat in unpacked("query_feats", contents)),
            unpacked("context_dets", contents),
            unpacked("context_feats", contents),
            strict=True,
        )
    )
    rows = zip(
        contents["paths"], contents["in_gallery"], gallery, unpacked("truth", contents), contents["query_counts"],
        strict=True,
    )  # fmt: skip
    return [
        ImageFeatures(str(path), found if in_gallery else None, truth, [next(queries) for _ in range(count)])
        for path, in_gallery, found, truth, count in rows
    ]
