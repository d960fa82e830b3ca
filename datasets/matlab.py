"""Values out of .mat files, whatever the nesting that Matlab or Python left around them.

The annotation files of CUHK-SYSU come from Matlab (structs), those of MovieNet-CS from Python (cells, nested to
varying depth). Nothing here squeezes: a struct or cell of one element stays a list of one.
"""

import math
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from datasets.findings import BAD_RECORD, BOX_EMPTY, BOX_NOT_FINITE, BOX_REVERSED, QUERY_BOX_EMPTY, DatasetError, Kind

MAX_COORDINATE = 2**31 - 1
"""Boxes are kept as int32."""


class MalformedError(DatasetError):
    """A value that is not what the format says, of a record that the caller knows; `kind` tells which fault it is."""

    def __init__(self, problem: str, kind: Kind = BAD_RECORD):
        super().__init__(problem)
        self.kind = kind


def unwrap(value):
    """`value` without the one-element arrays around it: a number, string, struct's element, or array of several."""
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.flat[0]
    return value


def text(value) -> str:
    """The one string inside `value`.

    Raises:
        MalformedError: there is none, or more than one.
    """
    inner = unwrap(value)
    if not isinstance(inner, str):
        raise MalformedError(f"expected a name, found {_shown(inner)}")
    return str(inner)


def integers(value) -> np.ndarray:
    """All numbers inside `value` in order, as int64 (a fraction is cut off), so that no unsigned sum can wrap around.

    Raises:
        MalformedError: something in it is not a finite number.
    """
    array = np.asarray(value)
    if array.dtype == object:
        parts = [integers(part) for part in array.flat]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise MalformedError(f"expected finite numbers, found {_shown(value)}", BOX_NOT_FINITE)
    if array.dtype.str[1:] in ("u8", "f4", "f8") and np.abs(array).max(initial=0) > MAX_COORDINATE:
        raise MalformedError(f"the number {np.abs(array).max():g} is too large for a box", BOX_NOT_FINITE)
    return array.ravel().astype(np.int64)


def located(value) -> tuple[int, int, int, int]:
    """The box x1, y1, x2, y2 of an idlocate x, y, w, h.

    Raises:
        MalformedError: see `corners`.
    """
    xywh = integers(value).tolist()
    if len(xywh) != 4:
        raise MalformedError(f"the box has the numbers {xywh} where x, y, w, h are expected", BOX_NOT_FINITE)
    return corners(*xywh)


def corners(x: float, y: float, w: float, h: float) -> tuple[int, int, int, int]:
    """A box x, y, w, h as whole x1, y1, x2, y2: sums first, then fractions are cut off.

    Raises:
        MalformedError: of the kinds BOX_NOT_FINITE (also numbers beyond int32), BOX_REVERSED or BOX_EMPTY.
    """
    box = f"the box x {x:g}, y {y:g}, w {w:g}, h {h:g}"
    if not all(math.isfinite(value) and abs(value) <= MAX_COORDINATE for value in (x, y, w, h, x + w, y + h)):
        raise MalformedError(f"{box} is not four finite numbers of a usual size", BOX_NOT_FINITE)
    if w < 0 or h < 0:
        raise MalformedError(f"{box} has a negative side", BOX_REVERSED)
    x1, y1, x2, y2 = int(x), int(y), int(x + w), int(y + h)
    if x1 == x2 or y1 == y2:
        raise MalformedError(f"{box} has no area", BOX_EMPTY)
    return x1, y1, x2, y2


@contextmanager
def asked_for() -> Iterator[None]:
    """Inside, a box without area is a query's, which cannot be left out as others are."""
    try:
        yield
    except MalformedError as error:
        raise MalformedError(str(error), QUERY_BOX_EMPTY if error.kind is BOX_EMPTY else error.kind) from error


def records(value, fields: Sequence[str]) -> Iterator[tuple]:
    """The records inside `value`, each a tuple of the values of `fields`.

    Takes a struct array with those fields, a cell with a column per field and a row per record, and cells that hold
    either.

    Raises:
        MalformedError: there are values, but no such records.
    """
    array = np.asarray(value)
    if array.dtype.names is not None:
        missing = [field for field in fields if field not in array.dtype.names]
        if missing:
            raise MalformedError(f"expected the fields {list(fields)}, found {list(array.dtype.names)}")
        yield from zip(*(array[field].flat for field in fields), strict=True)
    elif array.dtype != object:
        if array.size:
            raise MalformedError(f"expected records of {list(fields)}, found {_shown(value)}")
    elif array.ndim == 2 and array.size and array.shape[1] == len(fields) and _is_leaf(array[0, 0]):
        yield from map(tuple, array)
    else:
        for part in array.flat:
            yield from records(part, fields)


def _is_leaf(value) -> bool:
    """Whether this is a name or numbers: what every record of the known files starts with."""
    inner = unwrap(value)
    return not isinstance(inner, np.void) and np.asarray(inner).dtype != object


def _shown(value) -> str:
    """A value in a message: garbled ones can be long."""
    return reprlib.repr(value.item() if isinstance(value, np.generic) else value)
