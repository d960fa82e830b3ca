"""Files that are written completely or not at all."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside `path`, flush it to disk and rename it: after a crash the old file or the new one is there.

    Args:
        path: file to write; its folder is made if missing.
        write: called with a binary file in memory: torch.save on a real file reports a full disk as a failed assertion.

    Raises:
        OSError: the disk is full or not writable; the message names the file. The old file is untouched.
    """
    content = io.BytesIO()
    write(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder where it was killed; no process may be writing there."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write a value of plain Python types as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))
