"""MOTChallenge sequences: read one, and turn several into a person-search dataset.

Source of the format: https://motchallenge.net/instructions and the papers of MOT15 (arXiv 1504.01942) and MOT16
(arXiv 1603.00831). A sequence is a folder with `seqinfo.ini`, the frames in `img1` and `gt/gt.txt`, a line per box:
frame, id, left, top, width, height, flag, and then
  class, visibility   MOT16 and later (8 or 9 columns). Read are rows of class 1 (pedestrian) whose flag is not 0: not
                      people who ride or sit, statues, reflections and vehicles.
  x, y, z             world coordinates in MOT15 (10 columns), or nothing (6 or 7). Every row is a pedestrian. The flag,
                      with which a tracker's score leaves rows out, is not heeded: the people it marks are as visible as
                      the others, and a detector that gets them as background learns to miss people.
Frames are numbered from 1, and so are pixels: left and top of the first pixel are 1. Here boxes are x1, y1, x2, y2 with
the image's corner at 0, so 1 is subtracted.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.labels import UNLABELLED

PEDESTRIAN = 1
WITH_CLASS = (8, 9)
WITHOUT_CLASS = (6, 7, 10)
INFO_DEFAULTS = {"imDir": "img1", "imExt": ".jpg"}
INFO_NUMBERS = ("seqLength", "imWidth", "imHeight")


@dataclass(frozen=True)
class MotBox:
    """One annotated pedestrian. `track` is 1 and up within the sequence, or -1; `visibility` 0 ... 1."""

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
    boxes: dict

    def image(self, frame) -> Path:
        """The picture of a frame."""
        return self.folder / self.image_pattern.format(frame)

    @property
    def num_tracks(self) -> int:
        """The largest track number."""
        return max((box.track for boxes in self.boxes.values() for box in boxes), default=0)


def read_sequence(folder) -> MotSequence:
    """Read a MOTChallenge sequence. Raises ValueError naming file and line for anything that is not as it should be."""
    folder = Path(folder)
    info = _read_info(folder / "seqinfo.ini")
    pattern = f"{info['imDir']}/{{:06d}}{info['imExt']}"
    boxes = _read_boxes(folder / "gt" / "gt.txt", info["seqLength"])
    return MotSequence(folder, info["seqLength"], info["imWidth"], info["imHeight"], pattern, boxes)


def _lines(path):
    """Number and text of the lines that hold something."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); a sequence has seqinfo.ini, img1 and gt/gt.txt") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _read_info(path):
    """The keys of seqinfo.ini. Not through configparser, which forgets the line a value stood on."""
    info = dict(INFO_DEFAULTS)
    for number, line in _lines(path):
        if line.startswith(("[", ";", "#")):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise ValueError(f"{path}, line {number}: {line!r} is not KEY=VALUE")
        if key in INFO_NUMBERS and not (value.isdecimal() and int(value) > 0):
            raise ValueError(f"{path}, line {number}: {key} is {value!r}, not a positive whole number")
        info[key] = int(value) if key in INFO_NUMBERS else value
    missing = [key for key in INFO_NUMBERS if key not in info]
    if missing:
        raise ValueError(f"{path}: no {', '.join(missing)}")
    return info


def _read_boxes(path, length):
    boxes, seen, columns = {}, set(), None
    for number, line in _lines(path):
        try:
            values = [float(value) for value in line.split(",")]
            columns = columns or len(values)
            frame, box = _parse_row(values, columns, length)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error} (in {line!r})") from error
        if box is None:
            continue
        if box.track != UNLABELLED and (frame, box.track) in seen:
            raise ValueError(f"{path}, line {number}: frame {frame} has id {box.track} twice")
        seen.add((frame, box.track))
        boxes.setdefault(frame, []).append(box)
    return boxes


def _parse_row(values, columns, length):
    """Frame number and MotBox of a row of gt.txt; None in place of the box where the row is no person to find."""
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
    if columns in WITH_CLASS:
        flag, label, *visible = rest
        if flag == 0 or label != PEDESTRIAN:
            return int(frame), None
        visibility = visible[0] if visible else 1.0
    else:
        visibility = 1.0
    if width <= 0 or height <= 0:
        raise ValueError(f"a box of {width:g} x {height:g} pixels")
    x1, y1 = left - 1, top - 1
    return int(frame), MotBox(int(track), x1, y1, x1 + width, y1 + height, visibility)
