"""Values out of .mat files, whatever the nesting that Matlab or Python left around them.

The annotation files of CUHK-SYSU come from Matlab (structs), those of MovieNet-CS from Python (cells, nested to
varying depth). Everything here takes values as they are and squeezed, that is without dimensions of one element.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from datasets.base import DatasetError

_READ_ERRORS = (
    MatReadError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    OSError,
    EOFError,
    UnboundLocalError,
)
"""What SciPy raises for files that are of another kind, damaged, or of Matlab's HDF5 format (NotImplementedError)."""


def load_variable(path: str | Path, names: str | Sequence[str], squeeze: bool = False):
    """The first of the variables `names` that a .mat file holds.

    Args:
        squeeze: without dimensions of one element, and what is left of one value is no array. Files of many records
            then take less than half of the memory.

    Raises:
        FileNotFoundError: no such file.
        DatasetError: the file cannot be read, or holds none of them.
    """
    path, names = Path(path), [names] if isinstance(names, str) else list(names)
    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} is missing: check the dataset's folder, or unpack it again")
    try:
        content = loadmat(path, variable_names=names, squeeze_me=squeeze)
    except (*_READ_ERRORS, zlib.error) as error:
        raise DatasetError(f"annotation file {path} cannot be read ({error}): copy or download it again") from error
    for name in names:
        if name in content:
            return content[name]
    raise DatasetError(f"annotation file {path} has no variable {' or '.join(names)}: it is not this dataset's file")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors about values inside this name the file they came from."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"annotation file {path}: {error}; correct the file or unpack it again") from error


def unwrap(value):
    """`value` without the one-element arrays around it: a number, string, struct's element, or array of several."""
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.flat[0]
    return value


def text(value) -> str:
    """The one string inside `value`.

    Raises:
        DatasetError: there is none, or more than one.
    """
    inner = unwrap(value)
    if not isinstance(inner, str):
        raise DatasetError(f"expected a name, found {inner!r}")
    return str(inner)


def integers(value) -> np.ndarray:
    """All numbers inside `value` in order, as int64 (a fraction is cut off), so that no unsigned sum can wrap around.

    Raises:
        DatasetError: something in it is not a finite number.
    """
    array = np.asarray(value)
    if array.dtype == object:
        parts = [integers(part) for part in array.flat]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise DatasetError(f"expected finite numbers, found {value!r}")
    return array.ravel().astype(np.int64)


def records(value, fields: Sequence[str]) -> Iterator[tuple]:
    """The records inside `value`, each a tuple of the values of `fields`.

    Takes a struct array with those fields, a cell with a column per field and a row per record, and cells that hold
    either.

    Raises:
        DatasetError: there are values, but no such records.
    """
    array = np.asarray(value)
    if array.dtype.names is not None:
        missing = [field for field in fields if field not in array.dtype.names]
        if missing:
            raise DatasetError(f"expected the fields {list(fields)}, found {list(array.dtype.names)}")
        yield from zip(*(array[field].flat for field in fields), strict=True)
    elif array.dtype != object:
        if array.size:
            raise DatasetError(f"expected records of {list(fields)}, found {value!r}")
    elif array.ndim in (1, 2) and array.size and array.shape[-1] == len(fields) and _is_leaf(array.flat[0]):
        yield from map(tuple, array.reshape(-1, len(fields)))  # one dimension: a single record, squeezed
    else:
        for part in array.flat:
            yield from records(part, fields)


def _is_leaf(value) -> bool:
    """Whether this is a name or numbers: what every record of the known files starts with."""
    inner = unwrap(value)
    return not isinstance(inner, np.void) and np.asarray(inner).dtype != object
