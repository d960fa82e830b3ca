"""Read MOTChallenge sequences.

Source of the format: https://motchallenge.net/instructions and the papers of MOT15 (arXiv 1504.01942) and MOT16
(arXiv 1603.00831). A sequence is a folder with `seqinfo.ini`, the frames in `img1` and `gt/gt.txt`, a line per box:
frame, id, left, top, width, height, flag, and then
  class, visibility   MOT16 and later (8 or 9 columns). Rows of class 1 (pedestrian) whose flag is not 0 are read.
  x, y, z             world coordinates in MOT15 (10 columns), or nothing (6 or 7). Every row is read: people whose flag
                      leaves them out of a tracker's score are as visible as the others, and a detector trained with
                      them as background would learn to miss people.
Frames are numbered from 1, and so are pixels: left and top of the first pixel are 1. Here boxes are x1, y1, x2, y2 with
the image's corner at 0, so 1 is subtracted.
"""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import UserError
from utils.labels import UNLABELLED

PEDESTRIAN = 1
WITH_CLASS, WITHOUT_CLASS = (8, 9), (6, 7, 10)
"""Numbers of columns."""
INFO_NUMBERS = ("seqLength", "imWidth", "imHeight")


class MotBox(NamedTuple):
    """An annotated pedestrian: `track` is 1 and up within the sequence, or -1; `visibility` 0 ... 1."""

    track: int
    x1: float
    y1: float
    x2: float
    y2: float
    visibility: float


@dataclass(frozen=True)
class MotSequence:
    """A sequence of `length` frames of `width` x `height` pixels; `boxes` maps a frame number to its boxes."""

    folder: Path
    length: int
    width: int
    height: int
    image_pattern: str
    boxes: dict[int, list[MotBox]]

    def image(self, frame: int) -> Path:
        """The image file of a frame."""
        return self.folder / self.image_pattern.format(frame)


def read_sequence(folder: str | Path) -> MotSequence:
    """Read a MOTChallenge sequence. Raises UserError naming the file, and the line of gt.txt, that is at fault."""
    folder = Path(folder)
    info = _read_info(folder / "seqinfo.ini")
    length, width, height = (int(info[key]) for key in INFO_NUMBERS)
    pattern = f"{info.get('imDir', 'img1')}/{{:06d}}{info.get('imExt', '.jpg')}"
    return MotSequence(folder, length, width, height, pattern, _read_boxes(folder / "gt" / "gt.txt", length))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); a sequence has seqinfo.ini, img1 and gt/gt.txt") from error


def _read_info(path: Path) -> Mapping[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_read_text(path), path.name)
        info = parser["Sequence"]
    except (configparser.Error, KeyError) as error:
        raise UserError(f"{path}: is not a section [Sequence] of KEY=VALUE lines ({error})") from error
    for key in INFO_NUMBERS:
        value = info.get(key, "")
        if not (value.isdecimal() and int(value) > 0):
            raise UserError(f"{path}: {key} is {value!r}, not a positive whole number")
    return info


def _read_boxes(path: Path, length: int) -> dict[int, list[MotBox]]:
    boxes, seen, columns = {}, set(), 0
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = [float(value) for value in line.split(",")]
            columns = columns or len(values)
            frame, box = _parse_row(values, columns, length)
            if box is None:
                continue
            if box.track != UNLABELLED and (frame, box.track) in seen:
                raise ValueError(f"frame {frame} has id {box.track} twice")
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error} (in {line!r})") from error
        seen.add((frame, box.track))
        boxes.setdefault(frame, []).append(box)
    return boxes


def _parse_row(values: list[float], columns: int, length: int) -> tuple[int, MotBox | None]:
    """Frame number and box of a row of gt.txt; None where the row is no person to find. Raises ValueError."""
    if columns not in WITH_CLASS + WITHOUT_CLASS:
        raise ValueError(f"{columns} columns; gt.txt has 9 (MOT16 and later) or 10 (MOT15)")
    if len(values) != columns:
        raise ValueError(f"{len(values)} columns; the lines before have {columns}")
    if not np.isfinite(values).all():
        raise ValueError("not a finite number")
    frame, track, left, top, width, height, *rest = values
    if not (frame.is_integer() and 1 <= frame <= length):
        raise ValueError(f"frame {frame:g} is not one of 1 to {length}")
    if not (track.is_integer() and (track >= 1 or track == UNLABELLED)):
        raise ValueError(f"id {track:g} is neither 1 or above nor {UNLABELLED} for a person without identity")
    if columns in WITH_CLASS and (rest[0] == 0 or rest[1] != PEDESTRIAN):
        return int(frame), None
    if width <= 0 or height <= 0:
        raise ValueError(f"a box of {width:g} x {height:g} pixels")
    visibility = rest[2] if columns == max(WITH_CLASS) else 1.0
    return int(frame), MotBox(int(track), left - 1, top - 1, left - 1 + width, top - 1 + height, visibility)
