"""Finding a person's pictures: image files below folders, and what else lies there."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from utils.find import find_files
from utils.images import HEIF_SUFFIXES, SUFFIXES


def find_photos(paths: Sequence[Path]) -> tuple[list[Path], Counter]:
    """The image files among `paths` and below the folders among them; see `utils.find.find_files`."""
    return find_files(paths, (*SUFFIXES, *HEIF_SUFFIXES), "images")
