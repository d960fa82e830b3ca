"""A disk that is full after so many bytes, for what `write_atomically` writes; and files that a disk damaged."""

import errno
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np


class _Failing(io.FileIO):
    room = 0

    def write(self, data) -> int:
        """Take what there is room for, and fail if that is not all."""
        taken = super().write(data[: self.room])
        self.room -= taken
        if taken < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return taken


def fill_disk(monkeypatch, room: int, name: str = "") -> None:
    """Have every file that is written beside one whose name begins so fail when it holds `room` bytes."""
    plain = Path.open

    def opening(path, *args, **kwargs):
        if not (path.name.startswith(f".{name}") and path.name.endswith(".part")):
            return plain(path, *args, **kwargs)
        file = _Failing(path, "wb")
        file.room = room
        return file

    monkeypatch.setattr(Path, "open", opening)


def damaged_copies(whole: bytes) -> Iterator[bytes]:
    """Ninety copies of a file's content: every third one cut off, the others with a few bytes changed."""
    draw = np.random.default_rng(0)
    for trial in range(90):
        damaged = bytearray(whole)
        if trial % 3 == 0:
            del damaged[draw.integers(len(whole) - 20) :]
        else:
            for place in draw.choice(len(whole), draw.choice([1, 3, 10]), replace=False):
                damaged[place] ^= draw.integers(1, 256)
        yield bytes(damaged)
