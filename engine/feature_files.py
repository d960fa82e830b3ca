"""The features of a test run in memory, in .npz files, and in the partial results of an interrupted run."""

import hashlib
import logging
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path
from time import monotonic, time_ns

import numpy as np
import torch
from torch import nn

from datasets import PersonSearchDataset
from utils.distributed import from_main, is_main, rank
from utils.errors import UserError
from utils.files import write_atomically

log = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 30.0
VERSION = 3
"""Of partial results: to be raised when their format changes, or the network's arithmetic with the same weights."""

GALLERY_LISTS = ("gallery_dets", "gallery_feats", "ground_truth_feats", "gallery_scenes")
QUERY_LISTS = ("query_feats", "context_dets", "context_feats", "query_scenes")
OPTIONAL = ("ground_truth_feats", "gallery_scenes", "query_scenes")
"""Lists that a file need not have."""


@dataclass
class Features:
    """What a network finds in the images of a gallery and of queries; lists in the order of the annotations.

    Attributes:
        gallery_dets: per gallery image n x 5: x1, y1, x2, y2 in its pixels, score.
        gallery_feats: per gallery image n x D, weighted by the score.
        ground_truth_feats: per gallery image the embeddings of its annotated boxes; empty if not requested.
        query_feats: per query 1 x D, a unit vector.
        context_dets, context_feats: per query m x 5 and m x D: its image searched as a gallery, the query first, not
            weighted.
        gallery_names, query_names: by which a file of features is known to belong to a dataset.
        gallery_scenes, query_scenes: per gallery image and per query 1 x D, the embedding of the whole image; empty
            where the network has no gallery filter.
    """

    gallery_dets: list[np.ndarray] = field(default_factory=list)
    gallery_feats: list[np.ndarray] = field(default_factory=list)
    ground_truth_feats: list[np.ndarray] = field(default_factory=list)
    query_feats: list[np.ndarray] = field(default_factory=list)
    context_dets: list[np.ndarray] = field(default_factory=list)
    context_feats: list[np.ndarray] = field(default_factory=list)
    gallery_names: list[str] = field(default_factory=list)
    query_names: list[str] = field(default_factory=list)
    gallery_scenes: list[np.ndarray] = field(default_factory=list)
    query_scenes: list[np.ndarray] = field(default_factory=list)

    def extend(self, other: "Features") -> None:
        """Append the images and queries of other features."""
        for each in fields(self):
            getattr(self, each.name).extend(getattr(other, each.name))

    def in_order(self, gallery_names: list[str], query_names: list[str]) -> "Features":
        """The features of these images and queries; KeyError where one is missing."""
        image_places = {name: place for place, name in enumerate(self.gallery_names)}
        query_places = {name: place for place, name in enumerate(self.query_names)}
        order = dict.fromkeys(GALLERY_LISTS, [image_places[name] for name in gallery_names])
        order |= dict.fromkeys(QUERY_LISTS, [query_places[name] for name in query_names])
        lists = {name: [rows[i] for i in order[name]] for name in order if (rows := getattr(self, name))}
        return Features(**lists, gallery_names=gallery_names, query_names=query_names)


def save_features(path: Path, features: Features) -> None:
    """Write features as an .npz file of plain arrays."""
    arrays = {"gallery_names": np.array(features.gallery_names), "query_names": np.array(features.query_names)}
    for name in GALLERY_LISTS + QUERY_LISTS:
        rows = getattr(features, name)
        if rows or name not in OPTIONAL:
            arrays |= _joined(name, rows)
    write_atomically(Path(path), lambda file: np.savez(file, **arrays))


def load_features(path: Path, gallery_names: list[str], query_names: list[str]) -> Features:
    """Read the features of these images and queries; nothing in the file is run as code.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        UserError: the file is damaged or no file of features, or lacks an image or a query.
    """
    features = _read(path)
    try:
        return features.in_order(gallery_names, query_names)
    except KeyError as error:
        raise UserError(f"{path} lacks features of {error}: delete it, or name another file") from error


def _read(path: Path) -> Features:
    with Path(path).open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}  # all, which compares all checksums
            names = {name: arrays[name].tolist() for name in ("gallery_names", "query_names")}
            numbers = dict.fromkeys(GALLERY_LISTS, len(names["gallery_names"]))
            numbers |= dict.fromkeys(QUERY_LISTS, len(names["query_names"]))
            numbers = {name: number for name, number in numbers.items() if name in arrays or name not in OPTIONAL}
            features = Features(**names, **{name: _split(name, arrays, numbers[name]) for name in numbers})
            _check(features)
            return features
        except Exception as error:  # NumPy trusts what it reads, so a damaged file raises almost anything
            raise UserError(f"{path} is not a valid file of features ({error}): name another file") from error


def _check(features: Features) -> None:
    """Raise ValueError where the arrays of an image or query do not fit each other."""
    pairs = [*zip(features.gallery_dets, features.gallery_feats, strict=True)]
    pairs += zip(features.context_dets, features.context_feats, strict=True)
    if any(len(dets) != len(feats) or (len(dets) and dets.shape[1] != 5) for dets, feats in pairs):
        raise ValueError("detections are not n x 5, or not as many as their embeddings")
    for name in ("query_feats", "gallery_scenes", "query_scenes"):
        if any(len(vectors) != 1 for vectors in getattr(features, name)):
            raise ValueError(f"{name} are not one vector for each image or query")
    embeddings = [*features.gallery_feats, *features.ground_truth_feats, *features.query_feats, *features.context_feats]
    embeddings += features.gallery_scenes + features.query_scenes
    if len({feats.shape[1] for feats in embeddings if len(feats)}) > 1:
        raise ValueError("the embeddings have different numbers of dimensions")


def _joined(name: str, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays n_i x C as one array of all rows, `name`, and their numbers of rows, `name`_counts."""
    filled = [array for array in rows if len(array)]
    joint = np.concatenate(filled) if filled else np.zeros((0, 0), np.float32)
    return {name: joint, f"{name}_counts": np.array([len(array) for array in rows], dtype=np.int64)}


def _split(name: str, arrays: dict[str, np.ndarray], number: int) -> list[np.ndarray]:
    """Undo `_joined`; ValueError or KeyError where these are not `number` arrays of finite numbers."""
    rows, counts = arrays[name], arrays[f"{name}_counts"]
    if rows.ndim != 2 or rows.dtype.kind != "f" or not np.isfinite(rows).all() or (counts < 0).any():
        raise ValueError(f"{name} is not a table of finite numbers")
    if counts.shape != (number,) or counts.sum() != len(rows):
        raise ValueError(f"{name} are not {number} arrays with {len(rows)} rows in all")
    return np.split(rows, np.cumsum(counts)[:-1]) if number else []


class PartialResults:
    """Partial results of an extraction, written to a folder, from which it can be resumed.

    Each process writes files of its own, the main one reads all. Where they cannot be written, a warning says so.

    Args:
        folder: must belong to this extraction alone, see `extraction_id`.

    Attributes:
        num_found: images that `read` found.
    """

    def __init__(self, folder: Path):
        self.folder, self.num_found = Path(folder), 0
        self._pending, self._last, self._warned = Features(), monotonic(), False

    def read(self) -> tuple[Features, set[str]]:
        """Features found earlier (in the main process; the others get none), and the names of their images."""
        found = Features()
        for path in sorted(self.folder.glob("*.npz")) if is_main() else []:
            try:
                found.extend(_read(path))
            except (OSError, UserError) as error:
                log.warning("%s; its images are searched again", error)
        done = from_main(lambda: set(found.gallery_names))
        self.num_found = len(done)
        if done:
            log.info("%s: resumed with the features of %d images found earlier", self.folder, len(done))
        return found, done

    def add(self, features: Features) -> None:
        """Add features, and periodically write those not yet on disk."""
        self._pending.extend(features)
        if monotonic() - self._last > SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write the features not yet on disk; those that cannot be written are kept for the next time."""
        if not self._pending.gallery_names:
            return
        path = self.folder / f"{rank()}-{time_ns()}.npz"
        try:
            save_features(path, self._pending)
            self._pending = Features()
        except OSError as error:
            if not self._warned:
                log.warning("%s cannot be written (%s): an interruption now would lose results", path, error)
            self._warned = True
        self._last = monotonic()

    def remove(self) -> None:
        """Delete the folder, when the features are safe elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


def extraction_id(
    model: nn.Module, gallery_set: PersonSearchDataset, query_set: PersonSearchDataset, *settings: object
) -> str:
    """A digest of all that features depend on: weights, boxes, image files (size and time of change) and settings."""
    digest = hashlib.blake2b(repr((VERSION, settings)).encode(), digest_size=8)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    for annotations in (gallery_set.annotations, query_set.annotations):
        digest.update(repr(len(annotations)).encode())
        for annotation in annotations:
            path, boxes = Path(annotation["img_path"]), annotation["boxes"]
            stat = path.stat() if path.exists() else None
            digest.update(repr((str(path), stat and (stat.st_size, stat.st_mtime_ns), boxes.tolist())).encode())
    return digest.hexdigest()
