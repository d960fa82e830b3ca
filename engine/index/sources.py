"""Pictures and videos on disk: what has changed since they were indexed, and when they were taken."""

import hashlib
import re
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from engine.index.rows import Source
from engine.index.video import VIDEO_SUFFIXES, length_of
from utils.errors import UserError
from utils.images import read_time_taken

DEFAULT_FPS = 1.0
_BLOCK = 2**20
_DATE = r"(?<!\d)(20\d\d)[-_.]?(\d\d)[-_.]?(\d\d)"
_TIME = r"(\d\d)[-_.h]?(\d\d)[-_.m]?(\d\d)(?:\d{3})?(?!\d)"
_NAMED_TIME = re.compile(rf"{_DATE}(?:[-_. T]{{0,3}}| at ){_TIME}")
"""Date and time in the names that cameras and phones give: 20260501_143000, 2026-05-01 14.30.00."""
_NAMED_IN_UTC = "PXL_"
"""Google's phones name files by UTC, others by local time."""


def is_video(path: Path) -> bool:
    """Whether a file is read as a video; all others are read as pictures."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def place_of(path: Path) -> Path:
    """The absolute path by which an index knows a file: its folder without links, and its name, a link's own."""
    return path.parent.resolve() / path.name


def describe(path: Path, camera: str, fps: float) -> Source:
    """A file as it is now, of which nothing is searched yet; `fps` is of videos.

    Raises:
        OSError: it cannot be read.
        UserError: it is a video that cannot be read.
    """
    stat = path.stat()
    if is_video(path):
        taken = _time_in_name(path) or stat.st_mtime - length_of(path)
    else:
        taken = _time_in_exif(path) or _time_in_name(path) or stat.st_mtime
    rate = fps if is_video(path) else 0.0
    return Source(str(path), stat.st_size, stat.st_mtime, digest_of(path), taken, camera, rate)


def is_as_before(path: Path, known: Source) -> bool:
    """Whether a file has size and time of change of `known`, or else its content; OSError if it cannot be read."""
    stat = path.stat()
    if stat.st_size != known.size:
        return False
    return stat.st_mtime == known.changed or digest_of(path) == known.digest


def digest_of(path: Path) -> str:
    """A checksum of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _time_in_exif(path: Path) -> float | None:
    """When a photo was taken by its EXIF data, in seconds since 1970; None where they do not say it."""
    with suppress(UserError):  # reading the pixels tells what is wrong with the file
        if taken := read_time_taken(path):
            return taken.timestamp()
    return None


def _time_in_name(path: Path) -> float | None:
    """The date and time that are in a file's name, in seconds since 1970; None where there are none."""
    if match := _NAMED_TIME.search(path.name):
        zone = timezone.utc if path.name.startswith(_NAMED_IN_UTC) else None  # None: local time
        with suppress(ValueError):  # no such date
            return datetime(*map(int, match.groups()), tzinfo=zone).timestamp()
    return None
