"""Finding files below folders."""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from utils.errors import UserError


def find_files(paths: Sequence[Path], suffixes: Collection[str], what: str) -> tuple[list[Path], Counter]:
    """The files among `paths`, and those with one of some suffixes below the folders among them, each once.

    They come in the order of `paths`, those of a folder sorted. Hidden files and folders (names that begin with a dot)
    are passed over, as are links to folders.

    Args:
        suffixes: in lower case, such as ".jpg".
        what: the files in words, for messages, such as "images".

    Returns:
        The files, and how many other files the folders hold by suffix (lower case, such as ".mov").

    Raises:
        UserError: a path does not exist, or there is no such file at all.
    """
    found, others = {}, Counter()
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no {path}: give {what}, or folders that hold {what}")
        for file in _files_below(path) if path.is_dir() else [path]:
            if path.is_dir() and file.suffix.lower() not in suffixes:
                others[file.suffix.lower() or "no suffix"] += 1
            else:
                found.setdefault(file.resolve(), file)
    if not found:
        places = ", ".join(map(str, paths))
        raise UserError(f"{places} holds no {what} ({', '.join(suffixes)})")
    return list(found.values()), others


def _files_below(folder: Path) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return files
