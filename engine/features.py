"""What a network says of a gallery and its queries, in memory and on disk."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.files import write_atomically

READ_ERRORS = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile)
"""What NumPy raises for .npz files that are damaged, hold pickled objects, or lack an array."""


@dataclass
class Features:
    """What the network says of a gallery and its queries; lists in the order of the datasets' annotations.

    Attributes:
        gallery_dets: per gallery image n x 5: box in the image's own pixels, score.
        gallery_feats: per gallery image n x D, weighted by the score.
        truth_feats: per gallery image the embeddings of its annotated boxes; None if not asked for.
        query_feats: per query D, a unit vector.
        query_context: per query (m x 5, m x D): its image searched as a gallery, the query first, not weighted; None
            where they were not kept.
    """

    gallery_dets: list[np.ndarray]
    gallery_feats: list[np.ndarray]
    truth_feats: list[np.ndarray] | None
    query_feats: list[np.ndarray]
    query_context: list[tuple[np.ndarray, np.ndarray]] | None


def save_features(path: Path, features: Features, gallery_names: list[str], query_names: list[str]) -> None:
    """Write features as an .npz file without pickled objects; lists of arrays as one array and its row counts."""
    contents = {
        "gallery_names": np.array(gallery_names),
        "query_names": np.array(query_names),
        "query_feats": np.stack(features.query_feats) if features.query_feats else np.zeros((0, 0), np.float32),
        **packed("gallery_dets", features.gallery_dets),
        **packed("gallery_feats", features.gallery_feats),
    }
    if features.query_context is not None:
        contents |= packed("context_dets", [dets for dets, _ in features.query_context])
        contents |= packed("context_feats", [feats for _, feats in features.query_context])
    if features.truth_feats is not None:
        contents |= packed("truth_feats", features.truth_feats)
    write_atomically(Path(path), lambda file: np.savez(file, **contents))


def load_features(path: Path, gallery_names: list[str], query_names: list[str]) -> Features:
    """Read features back.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not one of `save_features`, or was made from other images or queries.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            contents = {name: file[name] for name in file.files}
        features = Features(
            gallery_dets=unpacked("gallery_dets", contents),
            gallery_feats=unpacked("gallery_feats", contents),
            truth_feats=unpacked("truth_feats", contents) if "truth_feats" in contents else None,
            query_feats=list(contents["query_feats"]),
            query_context=_unpacked_context(contents) if "context_dets" in contents else None,
        )
        same = list(contents["gallery_names"]) == gallery_names and list(contents["query_names"]) == query_names
    except FileNotFoundError:
        raise
    except READ_ERRORS as error:
        raise ValueError(f"{path} is not a whole file of features: delete it to extract them anew") from error
    if not same:
        raise ValueError(f"{path} holds features of other images than this dataset's; delete it or name another file")
    return features


def _unpacked_context(contents: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(unpacked("context_dets", contents), unpacked("context_feats", contents), strict=True))


def packed(name: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays n_i x ... as one and their numbers of rows, under `name` and `name`_counts; empty ones have any width."""
    filled = [array for array in arrays if len(array)]
    rows = np.concatenate(filled) if filled else np.zeros((0, 0), np.float32)
    return {name: rows, f"{name}_counts": np.array([len(array) for array in arrays], dtype=np.int64)}


def unpacked(name: str, contents: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays of `packed`."""
    counts = contents[f"{name}_counts"]
    return np.split(contents[name], np.cumsum(counts)[:-1]) if len(counts) else []
