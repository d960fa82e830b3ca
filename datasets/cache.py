"""Arrays read from large .mat files, kept as .npz: SciPy takes minutes for a protocol with millions of records."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from datasets.annotation_file import AnnotationFile
from datasets.faults import ERROR, WARNING, Fault
from utils.files import write_atomically

log = logging.getLogger("datasets")

VERSION = 2
"""Of what is stored; caches of other versions are rebuilt."""
MIN_BYTES = 100_000
"""Smaller files are not cached: reading them takes less than a second."""

Arrays = dict[str, np.ndarray]


def read_cached(file: AnnotationFile, root: Path, read: Callable[[AnnotationFile], Arrays]) -> Arrays:
    """The arrays that `read` makes of an annotation file, from a cache if there is one of the file as it is now.

    The cache lies in the dataset's folder or, where that cannot be written, in the user's cache folder. What was read
    with errors is not kept; warnings are.

    Args:
        file: the .mat file; gets the faults of the reading.
        root: the dataset's folder.
        read: reads the file with SciPy; gives arrays of numbers or strings, none named `source` or `warnings`.

    Raises:
        DatasetError: see AnnotationFile.variable.
    """
    file.check_exists()
    status = file.path.stat()
    if status.st_size < MIN_BYTES:
        return read(file)
    source = [VERSION, status.st_size, status.st_mtime_ns]
    places = _places(file.path, root)
    for place in places:
        cached = _load(place, source)
        if cached is not None:
            arrays, warnings = cached
            file.faults += [Fault(str(file.path), *warning, severity=WARNING) for warning in warnings]
            return arrays
    fresh = AnnotationFile(file.path, [])
    arrays = read(fresh)
    file.faults += fresh.faults
    if not any(fault.severity == ERROR for fault in fresh.faults):
        warnings = json.dumps([(fault.problem, fault.record, fault.image) for fault in fresh.faults])
        _store(places, arrays | {"source": np.array(source), "warnings": np.array(warnings)})
    return arrays


def _places(path: Path, root: Path) -> list[Path]:
    """Where the cache of a file may lie, in the order in which they are tried."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "person-search"
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return [root / ".cache" / f"{path.stem}.npz", user / f"{path.stem}-{digest}.npz"]


def _load(place: Path, source: list[int]) -> tuple[Arrays, list[list[str]]] | None:
    """The arrays and warnings (problem, record, image) of a cache, or None where there is none of this source."""
    if not place.is_file():
        return None
    try:
        with np.load(place, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        warnings = json.loads(str(arrays.pop("warnings")))
        return (arrays, warnings) if arrays.pop("source").tolist() == source else None
    except Exception as error:  # noqa: BLE001 (NumPy raises almost anything for a damaged file)
        log.warning("%s is damaged (%s) and rebuilt", place, error)
        return None


def _store(places: list[Path], arrays: Arrays) -> None:
    for place in places:
        try:
            write_atomically(place, lambda file: np.savez_compressed(file, **arrays))
        except OSError as error:
            log.warning("%s cannot be written: %s", place, error)
        else:
            return
