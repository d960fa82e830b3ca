"""Faults of a dataset's files: what is wrong, where it stands, and what to do about it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from utils.errors import UserError
from utils.text import printable

log = logging.getLogger("datasets")

ERROR, WARNING = "error", "warning"
"""Severities: with an error, training or scores would be wrong or fail; with a warning, they may be as meant."""

CORRECT = "correct the record, or unpack the dataset again"
UNPACK = "check the dataset's folder (INPUT.DATA_ROOT, or --root), or unpack it again"
COPY = "copy or download it again"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a dataset.

    Attributes:
        file: the annotation file, image or part of the dataset that is at fault.
        problem: what is wrong, continuing a sentence that begins with the file.
        record: which record of the file; empty where all of it is meant.
        image: name of the image concerned, where there is one.
        severity: ERROR or WARNING.
        advice: what to do.
    """

    file: str
    problem: str
    record: str = ""
    image: str = ""
    severity: str = ERROR
    advice: str = CORRECT

    @property
    def fact(self) -> str:
        """What is wrong where, without the advice."""
        where = f"{self.file}, {self.record}:" if self.record else self.file
        return printable(f"{where} {self.problem}")

    def __str__(self) -> str:
        return f"{self.fact}; {self.advice}"


class DatasetError(UserError):
    """A dataset's files contradict their format; the message names the file and says what to do.

    Args:
        faults: one or more; the message is the first one's.
    """

    def __init__(self, *faults: Fault):
        more = f" (and {len(faults) - 1} more faults: python -m tools.check_dataset)" if len(faults) > 1 else ""
        super().__init__(f"{faults[0]}{more}")
        self.faults = faults


def read_all(*reads: Callable[[], Any]) -> list[Any]:
    """The results of all `reads`, so that one unreadable file does not hide the faults of the others.

    Raises:
        DatasetError: with the faults of all that raised one.
    """
    results, faults = [], []
    for read in reads:
        try:
            results.append(read())
        except DatasetError as error:
            faults += error.faults
    if faults:
        raise DatasetError(*faults)
    return results


def raise_or_log(faults: Sequence[Fault], name: str) -> None:
    """Raise the errors among the faults of the dataset `name`; without any, log a line for each file with warnings."""
    errors = [fault for fault in faults if fault.severity == ERROR]
    if errors:
        raise DatasetError(*errors)
    for file in dict.fromkeys(fault.file for fault in faults):
        found = [fault for fault in faults if fault.file == file]
        log.warning("%s: %d faults (all of them: python -m tools.check_dataset): %s", name, len(found), found[0])
