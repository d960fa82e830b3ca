"""One annotation file of a dataset: reading it, and recording which of its records are at fault."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from datasets.faults import COPY, ERROR, UNPACK, DatasetError, Fault
from datasets.matlab import MalformedError


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
