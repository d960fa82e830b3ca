"""One annotation file of a dataset: reading it, and saying which of its records are at fault."""

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from datasets.findings import (
    LINKED_FILE,
    MISSING_FILE,
    UNREADABLE_FILE,
    DatasetError,
    Finding,
    Kind,
    Report,
    UnusableFileError,
)
from datasets.matlab import MalformedError
from utils.files import target_outside

_READ_ERRORS = (
    MatReadError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    NameError,
    AttributeError,
    RuntimeError,
    SystemError,
    OSError,
    EOFError,
    MemoryError,
    zlib.error,
)
"""What SciPy raises for files that are of another kind, damaged, or of Matlab's HDF5 format (NotImplementedError).

Garbled sizes ask for absurd amounts of memory. A damaged file that is not compressed may also make SciPy's compiled
reader crash, which ends the process without an exception: tools.check_dataset reads in processes of their own.
"""


class AnnotationFile:
    """An annotation file, and the report that its faults go to.

    Args:
        path: the file.
        within: real path of the dataset's folder, which links may not leave.
        report: takes findings.
    """

    def __init__(self, path: str | Path, within: str, report: Report):
        self.path, self.within, self._report = Path(path), within, report

    def variable(self, names: str | Sequence[str]) -> np.ndarray:
        """The first of the variables `names` that a .mat file holds.

        Raises:
            FileNotFoundError: no such file.
            DatasetError: the file cannot be read, or holds none of them; UnusableFileError where the report took that.
        """
        names = [names] if isinstance(names, str) else list(names)
        self.check_place()
        try:
            content = loadmat(self.path, variable_names=names)
        except _READ_ERRORS as error:
            self.unusable(UNREADABLE_FILE, f"cannot be read ({str(error) or type(error).__name__})", error)
        found = [name for name in names if name in content]
        if not found:
            self.unusable(UNREADABLE_FILE, f"has no variable {' or '.join(names)}, so it is not this dataset's file")
        return content[found[0]]

    def lines(self) -> list[str]:
        """The lines of a text file; what is not UTF-8 is replaced. Raises as `variable`."""
        self.check_place()
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            self.unusable(UNREADABLE_FILE, f"cannot be read ({error})", error)

    def fault(self, kind: Kind, problem: str, record: str = "", image: str = "") -> None:
        """Report that a record (or, without one, the file) is at fault."""
        self._report(Finding(kind, f"annotation file {self.path}", problem, record, image))

    @contextmanager
    def record(self, record: str, image: str = "") -> Iterator[None]:
        """Report a MalformedError of the block; where that does not raise, the rest of the block is left out."""
        try:
            yield
        except MalformedError as error:
            self.malformed(error, record, image)

    def malformed(self, error: MalformedError, record: str, image: str = "") -> None:
        """Report what a record's value raised."""
        self.fault(error.kind, str(error), record, image)

    def unusable(self, kind: Kind, problem: str, cause: BaseException | None = None) -> NoReturn:
        """Report that nothing can be had from this file.

        Raises:
            FileNotFoundError, DatasetError: the report's own, or UnusableFileError where it took the fault.
        """
        try:
            self.fault(kind, problem)
        except (DatasetError, FileNotFoundError) as refused:
            raise refused from cause
        raise UnusableFileError(f"{self.path}: {problem}") from cause

    def check_place(self) -> None:
        """Report a file that is missing or leads out of the dataset's folder. Raises as `unusable`."""
        self._report.reading(self.path)
        outside = target_outside(self.path, self.within)
        if outside is not None:
            self.unusable(LINKED_FILE, f"is, or lies behind, a link to {outside}")
        if not os.path.isfile(self.path):  # noqa: PTH113 (thousands of files: pathlib is slow)
            if os.path.exists(self.path):  # noqa: PTH110 (as above)
                self.unusable(UNREADABLE_FILE, "is not a file")
            self.unusable(MISSING_FILE, "is missing")
