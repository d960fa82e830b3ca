"""What a network says of a gallery and its queries, in memory and on disk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.files import write_atomically

READ_ERRORS = (OSError, ValueError, LookupError, TypeError)
"""What `read_arrays` raises, and taking apart arrays that do not fit each other."""
DETECTION_COLUMNS = 5


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
        OSError: there is no such file, or it cannot be opened.
        ValueError: the file is not one of `save_features`, or was made from other images or queries.
    """
    try:
        contents = read_arrays(path)
        features = _checked(contents)
    except OSError:
        raise
    except READ_ERRORS as error:
        fault = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path} is not a whole file of features ({fault}): name another file to extract them anew"
        ) from error
    if [contents["gallery_names"].tolist(), contents["query_names"].tolist()] != [gallery_names, query_names]:
        raise ValueError(f"{path} holds features of other images than this dataset's; delete it or name another file")
    return features


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their names, read as data: one that holds code is refused and runs nothing.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: the file is damaged, or holds anything but plain arrays; it is the caller who names it.
    """
    with Path(path).open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                contents = {name: archive[name] for name in archive.files}
        except Exception as error:  # NumPy trusts what it reads, so a damaged file raises almost anything
            raise ValueError("it is damaged, or is not an .npz file of arrays alone") from error
    if others := [name for name, array in contents.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"it holds {', '.join(others)}, which are no arrays")
    return contents


def _checked(contents: dict[str, np.ndarray]) -> Features:
    """The features of `save_features`; raises one of READ_ERRORS where the arrays do not fit each other."""
    images, queries = len(_names("gallery_names", contents)), len(_names("query_names", contents))
    gallery_dets, gallery_feats = _dets_and_feats("gallery", images, contents)
    query_feats = list(_finite_rows("query_feats", contents))
    if len(query_feats) != queries:
        raise ValueError(f"query_feats has {len(query_feats)} rows, but there are {queries} queries")
    truth_feats = query_context = None
    if "truth_feats" in contents:
        truth_feats = _list_of("truth_feats", images, contents)
    if "context_dets" in contents:
        query_context = list(zip(*_dets_and_feats("context", queries, contents), strict=True))
    embeddings = ("gallery_feats", "query_feats", "truth_feats", "context_feats")
    widths = {name: contents[name].shape[1] for name in embeddings if name in contents and len(contents[name])}
    if len(set(widths.values())) > 1:
        raise ValueError(f"the embeddings have different numbers of dimensions: {widths}")
    return Features(gallery_dets, gallery_feats, truth_feats, query_feats, query_context)


def _names(name: str, contents: dict[str, np.ndarray]) -> np.ndarray:
    names = contents[name]
    if names.ndim != 1 or (len(names) and names.dtype.kind != "U"):
        raise ValueError(f"{name} is not a list of texts")
    return names


def _dets_and_feats(
    owner: str, number: int, contents: dict[str, np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Detections and their embeddings, of each of so many images."""
    dets, feats = (_list_of(f"{owner}_{kind}", number, contents) for kind in ("dets", "feats"))
    if [len(rows) for rows in dets] != [len(rows) for rows in feats]:
        raise ValueError(f"{owner}_feats are not as many for each image as {owner}_dets")
    columns = contents[f"{owner}_dets"].shape[1]
    if any(map(len, dets)) and columns != DETECTION_COLUMNS:
        raise ValueError(f"{owner}_dets has {columns} columns, not the {DETECTION_COLUMNS} of box and score")
    return dets, feats


def _list_of(name: str, number: int, contents: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays of `packed`, if there are so many of them, of finite numbers."""
    arrays = unpacked(name, contents)
    _finite_rows(name, contents)
    if len(arrays) != number:
        raise ValueError(f"{name}_counts has {len(arrays)} counts, not the {number} of the names")
    return arrays


def _finite_rows(name: str, contents: dict[str, np.ndarray]) -> np.ndarray:
    """Rows of finite floating-point numbers."""
    rows = contents[name]
    if rows.ndim != 2 or rows.dtype.kind != "f" or not np.isfinite(rows).all():
        raise ValueError(f"{name} is not a table of finite floating-point numbers")
    return rows


def packed(name: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays n_i x ... as one and their numbers of rows, under `name` and `name`_counts; empty ones have any width."""
    filled = [array for array in arrays if len(array)]
    rows = np.concatenate(filled) if filled else np.zeros((0, 0), np.float32)
    return {name: rows, f"{name}_counts": np.array([len(array) for array in arrays], dtype=np.int64)}


def unpacked(name: str, contents: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays of `packed`.

    Raises:
        KeyError: `contents` lacks them.
        ValueError: the numbers of rows are no such numbers, or not those of the rows.
    """
    rows, counts = contents[name], contents[f"{name}_counts"]
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or not rows.ndim:
        raise ValueError(f"{name}_counts is not a list of whole numbers, or {name} is a single number")
    if ((counts < 0) | (counts > len(rows))).any() or counts.sum() != len(rows):
        raise ValueError(f"{name}_counts tells of {counts.sum()} rows, but {name} has {len(rows)}")
    return np.split(rows, np.cumsum(counts)[:-1]) if len(counts) else []
