"""A disk that is full after so many bytes, for whatever `write_atomically` writes."""

import errno
from pathlib import Path


class FullDisk:
    """Stands in for Path.open: files whose names end in .part fail when `room` bytes were written to them.

    Attributes:
        opened: how many such files were opened so far.
        asked: bytes that the last of them was asked to take.
    """

    def __init__(self, monkeypatch, room=None, fails=lambda number: True):
        self.opened, self.asked, self._room, self._fails = 0, 0, room, fails
        plain = Path.open

        def opening(path, *args, **kwargs):
            file = plain(path, *args, **kwargs)
            if not path.name.endswith(".part"):
                return file
            self.opened, self.asked = self.opened + 1, 0
            return _Failing(file, self, self._room if self._fails(self.opened) else None)

        monkeypatch.setattr(Path, "open", opening)


class _Failing:
    def __init__(self, file, disk, room):
        self._file, self._disk, self._room = file, disk, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def fileno(self):
        return self._file.fileno()

    def write(self, data):
        """Takes what there is room for, as a real file does, and fails where there is none."""
        part = data if self._room is None else data[: self._room]
        if self._room is not None:
            if not self._room:
                raise OSError(errno.ENOSPC, "No space left on device")
            self._room -= len(part)
        self._disk.asked += len(part)
        return self._file.write(part)
