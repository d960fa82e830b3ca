"""Annotation files: reading them, the values inside .mat files, and recording which records are at fault.

The annotation files of CUHK-SYSU come from Matlab (structs), those of MovieNet-CS from Python (cells, nested to
varying depth). Nothing here squeezes: a struct or cell of one element stays a list of one.
"""

import math
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from datasets.faults import COPY, ERROR, UNPACK, WARNING, DatasetError, Fault
from utils.errors import UserError

MAX_COORDINATE = 2**31 - 1
"""Boxes are kept as int32."""
NO_AREA = "has no area and is left out"

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""


class MalformedError(UserError):
    """A value that is not what the format says, in a record that the caller names."""

    def __init__(self, problem: str, severity: str = ERROR):
        super().__init__(problem)
        self.severity = severity


class AnnotationFile:
    """An annotation file, and the list that its faults are added to."""

    def __init__(self, path: Path, faults: list[Fault]):
        self.path, self.faults = path, faults

    def variable(self, *names: str) -> np.ndarray:
        """The first of the variables `names` that this .mat file holds.

        Raises:
            DatasetError: there is no such file, it cannot be read, or it holds none of them.
        """
        self.check_exists()
        try:
            content = loadmat(self.path, variable_names=names)
        except Exception as error:  # SciPy raises almost anything for damaged files, MemoryError for garbled sizes
            raise self._unreadable(error) from error
        for name in names:
            if name in content:
                return content[name]
        problem = f"has no variable {' or '.join(names)}, so it is not this dataset's file"
        raise DatasetError(Fault(str(self.path), problem, advice=COPY))

    def lines(self) -> list[str]:
        """The lines of a text file; what is not UTF-8 is replaced. Raises as `variable`."""
        self.check_exists()
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise self._unreadable(error) from error

    def check_exists(self) -> None:
        """Raise DatasetError where there is no such file."""
        if not self.path.is_file():
            problem = "is not a file" if self.path.exists() else "is missing"
            raise DatasetError(Fault(str(self.path), problem, advice=UNPACK))

    def _unreadable(self, error: Exception) -> DatasetError:
        reason = str(error) or type(error).__name__
        return DatasetError(Fault(str(self.path), f"cannot be read ({reason})", advice=COPY))

    def fault(self, problem: str, record: str, image: str = "", severity: str = ERROR) -> None:
        """Add a fault of a record."""
        self.faults.append(Fault(str(self.path), problem, record, image, severity))

    @contextmanager
    def record(self, record: str, image: str = "", severity: str = "") -> Iterator[None]:
        """Add a MalformedError of the block to the faults, with its own severity unless one is given."""
        try:
            yield
        except MalformedError as error:
            self.fault(str(error), record, image, severity or error.severity)


def unwrap(value: Any) -> Any:
    """`value` without the one-element arrays around it: a number, string, struct's element, or array of several."""
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.flat[0]
    return value


def text(value: Any) -> str:
    """The one string inside `value`. Raises MalformedError where there is none, or more than one."""
    inner = unwrap(value)
    if not isinstance(inner, str):
        raise MalformedError(f"expected a name, found {_shown(inner)}")
    return str(inner)


def numbers(value: Any) -> list[float]:
    """All numbers inside `value` in order, as Python's: no unsigned sum wraps around. Raises MalformedError."""
    array = np.asarray(value)
    if array.dtype == object:
        return [number for part in array.flat for number in numbers(part)]
    if array.dtype.kind not in "biuf":
        raise MalformedError(f"expected numbers, found {_shown(value)}")
    return array.ravel().tolist()


def located(value: Any) -> Box:
    """The box of an idlocate x, y, w, h. Raises MalformedError, see `corners`."""
    xywh = numbers(value)
    if len(xywh) != 4:
        raise MalformedError(f"the box has the numbers {reprlib.repr(xywh)} where x, y, w, h are expected")
    return corners(*xywh)


def corners(x: float, y: float, w: float, h: float) -> Box:
    """A box x, y, w, h as whole x1, y1, x2, y2: sums first, then fractions are cut off.

    Raises:
        MalformedError: the numbers are not finite or beyond int32, or a side is negative; a WARNING where the box is
            without area, as some of the published CUHK-SYSU are.
    """
    box = f"the box x {x:g}, y {y:g}, w {w:g}, h {h:g}"
    if not all(math.isfinite(value) and abs(value) <= MAX_COORDINATE for value in (x, y, w, h, x + w, y + h)):
        raise MalformedError(f"{box} is not four finite numbers of a usual size")
    if w < 0 or h < 0:
        raise MalformedError(f"{box} has a negative side")
    x1, y1, x2, y2 = int(x), int(y), int(x + w), int(y + h)
    if x1 == x2 or y1 == y2:
        raise MalformedError(f"{box} {NO_AREA}", WARNING)
    return x1, y1, x2, y2


def records(value: Any, fields: Sequence[str]) -> Iterator[tuple]:
    """The records inside `value`, each a tuple of the values of `fields`.

    Takes a struct array with those fields, a cell with a column per field and a row per record, and cells that hold
    either.

    Raises:
        MalformedError: there are values, but no such records.
    """
    array = np.asarray(value)
    if array.dtype.names is not None:
        if not set(fields) <= set(array.dtype.names):
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


def _is_leaf(value: Any) -> bool:
    """Whether this is a name or numbers: what every record of the known files starts with."""
    inner = unwrap(value)
    return not isinstance(inner, np.void) and np.asarray(inner).dtype != object


def _shown(value: Any) -> str:
    """A value in a message: garbled ones can be long."""
    return reprlib.repr(value.item() if isinstance(value, np.generic) else value)
