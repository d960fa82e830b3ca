"""Files that are whole or not there."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def target_outside(path: str | Path, folder: str) -> str | None:
    """Where `path` leads if links take it out of `folder`, a real path (os.path.realpath); None while it stays inside.

    Cheap: one look at each part of the path. What does not exist stays inside.
    """
    real = os.path.realpath(path)
    return None if real.startswith(os.path.join(folder, "")) else real  # noqa: PTH118 (thousands of paths: pathlib is slow)


class _CountingFile(io.RawIOBase):
    """A file to write to, front to back, that takes note of its first failure and counts the bytes that come after.

    The failure is not raised where it happens: libraries that write through a Python file would hide it behind an
    error of their own, and the bytes that are still to come would not be known.
    """

    def __init__(self, file: io.FileIO):
        self._file = file
        self._error: OSError | None = None
        self._missing = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while len(rest) and self._error is None:
            try:
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self._error = error
        self._missing += len(rest)
        return size

    def check(self, path: Path) -> None:
        """Raise the failure, if there was one, with the number of bytes that are missing from `path`."""
        if self._error is not None:
            reason = f"{self._error.strerror}: {self._missing} bytes more are needed for"
            raise OSError(self._error.errno, reason, str(path)) from self._error


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], make_way: Callable[[], None] = lambda: None
) -> None:
    """Write a file beside `path`, flush it to disk and rename it: after a crash the old file or the new one is there.

    Args:
        path: file to write; its folder is made if missing.
        write: called with the open binary file, which can be written to but not moved about in.
        make_way: called when the new file is whole, just before it takes its place.

    Raises:
        OSError: the disk is full or not writable; the message says how many bytes were missing. The old file is
            untouched and no half file is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb", buffering=0) as file:
            counting = _CountingFile(file)
            write(counting)
            counting.check(path)
            os.fsync(file.fileno())
        make_way()
        beside.replace(path)
        _flush_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder where it was killed; no process may be writing there."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Flush the renaming of files to disk, where the system can."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_json(path: Path, value: object) -> None:
    """Write a value of plain Python types as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))
