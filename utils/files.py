"""Files that are whole or not there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def target_outside(path: str | Path, folder: str) -> str | None:
    """Where `path` leads if links take it out of `folder`, a real path (os.path.realpath); None while it stays inside.

    Cheap: one look at each part of the path. What does not exist stays inside.
    """
    real = os.path.realpath(path)
    return None if real.startswith(os.path.join(folder, "")) else real  # noqa: PTH118 (thousands of paths: pathlib is slow)


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file beside `path`, flush it to disk and rename it: after a crash the old file or the new one is there.

    Args:
        path: file to write; its folder is made if missing.
        write: called with the open binary file.

    Raises:
        OSError: the disk is full or not writable; the old file is untouched and no half file is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write a value of plain Python types as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))
