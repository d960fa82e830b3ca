"""A checksum at the end of a file, over all that comes before it."""

import io
import zlib
from pathlib import Path
from typing import BinaryIO

_MARK = b"\ncrc32 "
_SIZE = len(_MARK) + 8
_CHUNK = 1 << 22
"""Bytes that are read at once."""


class SummedFile(io.RawIOBase):
    """Writes to another binary file, and its checksum with `write_sum` at the end."""

    def __init__(self, file: BinaryIO):
        self._file, self._sum = file, 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:
        self._sum = zlib.crc32(data, self._sum)
        return self._file.write(data)

    def write_sum(self) -> None:
        """Append the checksum of all that was written: text, so that it can be told from what it follows."""
        self._file.write(_MARK + b"%08x" % self._sum)


def is_as_written(path: Path) -> bool | None:
    """Whether a file's content still has the checksum at its end; None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        rest = path.stat().st_size - _SIZE
        if rest < 0:
            return None
        found = 0
        while rest:
            data = file.read(min(rest, _CHUNK))
            if not data:
                return None
            found, rest = zlib.crc32(data, found), rest - len(data)
        end = file.read()
    return end == _MARK + b"%08x" % found if end.startswith(_MARK) else None
