"""A disk that is full after so many bytes, for what `write_atomically` writes."""

import errno
import io
from pathlib import Path


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
