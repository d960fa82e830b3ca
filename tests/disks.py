"""A disk that is full after so many bytes, for what `write_atomically` writes."""

import errno
from pathlib import Path


def fill_disk(monkeypatch, room: int, name: str = "") -> None:
    """Have every file that is written beside one whose name begins so fail when it holds `room` bytes."""
    plain = Path.open

    def opening(path, *args, **kwargs):
        file = plain(path, *args, **kwargs)
        beside = path.name.startswith(f".{name}") and path.name.endswith(".part")
        return _Failing(file, room) if beside else file

    monkeypatch.setattr(Path, "open", opening)


class _Failing:
    def __init__(self, file, room: int):
        self._file, self._room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def flush(self) -> None:
        self._file.flush()

    def write(self, data) -> int:
        """Take what there is room for, and fail if that is not all."""
        taken = self._file.write(data[: self._room])
        self._room -= taken
        if taken < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return taken
