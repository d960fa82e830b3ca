"""The picture or video frame that shows a person of an index."""

from pathlib import Path

import numpy as np

from engine.index.rows import Hit, Source
from engine.index.video import read_frame
from utils.errors import UserError
from utils.images import read_photo


def read_scene(hit: Hit, max_pixels: int) -> np.ndarray | None:
    """The image that shows a hit, uint8 H x W x 3 RGB; None where the file is gone or is not what was indexed.

    Args:
        max_pixels: larger image files are not read.
    """
    path = Path(hit.source.path)
    if not is_as_indexed(hit.source):
        return None
    try:
        return read_photo(path, max_pixels) if hit.position is None else read_frame(path, hit.frame, hit.position)
    except (OSError, UserError):
        return None


def is_as_indexed(source: Source) -> bool:
    """Whether a file is there, with the size and the time of change that it had when it was indexed."""
    try:
        stat = Path(source.path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime) == (source.size, source.changed)
