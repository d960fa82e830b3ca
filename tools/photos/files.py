"""Finding a person's pictures: image files below folders, and what else lies there."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.images import HEIF_SUFFIXES, SUFFIXES


def find_photos(paths: Sequence[Path]) -> tuple[list[Path], Counter]:
    """The image files among `paths` and below the folders among them, sorted, each once.

    Hidden files and folders (names that begin with a dot) are passed over, as are links to folders.

    Returns:
        The files, and how many other files the folders hold by suffix (lower case, such as ".mov").

    Raises:
        UserError: a path does not exist, or there is no image file at all.
    """
    found, others = {}, Counter()
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no {path}: give image files, or folders that hold images")
        for file in _files_below(path) if path.is_dir() else [path]:
            if path.is_dir() and file.suffix.lower() not in (*SUFFIXES, *HEIF_SUFFIXES):
                others[file.suffix.lower() or "no suffix"] += 1
            else:
                found.setdefault(file.resolve(), file)
    if not found:
        places = ", ".join(map(str, paths))
        raise UserError(f"{places} holds no images ({', '.join((*SUFFIXES, *HEIF_SUFFIXES))})")
    return list(found.values()), others


def _files_below(folder: Path) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return files
