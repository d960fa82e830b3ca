"""Read MOTChallenge sequences.

Source of the format: https://motchallenge.net/instructions and the papers of MOT15 (arXiv 1504.01942) and MOT16
(arXiv 1603.00831). A sequence is a folder with `seqinfo.ini`, the frames in `img1` and `gt/gt.txt`, a line per box:
frame, id, left, top, width, height, flag, and then
  class, visibility   MOT16 and later (9 columns). Rows of class 1 (pedestrian) whose flag is not 0 are read.
  x, y, z             world coordinates in MOT15 (10 columns). Every row is read: people whose flag leaves them out of a
                      tracker's score are as visible as the others, and a detector would learn to miss them.
Frames are numbered from 1, and so are pixels: left and top of the first pixel are 1. Here boxes are x1, y1, x2, y2 with
the image's corner at 0, so 1 is subtracted.
"""

import configparser
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.labels import UNLABELLED

PEDESTRIAN = 1
WITH_CLASS, WITHOUT_CLASS = 9, 10  # columns


@dataclass(frozen=True)
class MotSequence:
    """A sequence of `length` frames of `width` x `height` pixels, and the n pedestrians annotated in them.

    Attributes:
        frames: int, n: the number of the frame of each, 1 and up.
        tracks: int, n: their ids, 1 and up within the sequence, or -1.
        boxes: n x 4: x1, y1, x2, y2 in pixels, which may lie outside the image.
        visibility: n: 0 ... 1.
    """

    folder: Path
    image_pattern: str
    length: int
    width: int
    height: int
    frames: np.ndarray
    tracks: np.ndarray
    boxes: np.ndarray
    visibility: np.ndarray

    def image(self, frame: int) -> Path:
        """The image file of a frame."""
        return self.folder / self.image_pattern.format(frame)


def read_sequence(folder: str | Path) -> MotSequence:
    """Read a MOTChallenge sequence. Raises UserError naming the file, and the line of gt.txt, that is at fault."""
    path = Path(folder, "seqinfo.ini")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_read_text(path), path.name)
        info = parser["Sequence"]
    except (configparser.Error, KeyError) as error:
        raise UserError(f"{path}: is not a section [Sequence] of KEY=VALUE lines ({error})") from error
    sizes = []
    for key in ("seqLength", "imWidth", "imHeight"):
        value = info.get(key, "")
        if not (value.isdecimal() and int(value) > 0):
            raise UserError(f"{path}: {key} is {value!r}, not a positive whole number")
        sizes.append(int(value))
    pattern = f"{info.get('imDir', 'img1')}/{{:06d}}{info.get('imExt', '.jpg')}"
    return MotSequence(Path(folder), pattern, *sizes, *_read_people(Path(folder, "gt/gt.txt"), sizes[0]))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); a sequence has seqinfo.ini, img1 and gt/gt.txt") from error


def _read_people(path: Path, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frames, tracks, boxes and visibility of MotSequence, in the order of gt.txt."""
    lines = _read_text(path).splitlines()
    numbers = np.array([number for number, line in enumerate(lines, start=1) if line.strip()], dtype=int)
    rows = []
    for number in numbers:
        try:
            rows.append([float(value) for value in lines[number - 1].split(",")])
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if len(rows[-1]) != len(rows[0]) or len(rows[0]) not in (WITH_CLASS, WITHOUT_CLASS):
            columns = f"{len(rows[-1])} columns, and line {numbers[0]} has {len(rows[0])}"
            raise UserError(f"{path}, line {number}: {columns}; gt.txt has 9 (MOT16 and later) or 10 (MOT15)")
    table = np.array(rows).reshape(len(rows), -1 if rows else 10)
    if table.shape[1] == WITH_CLASS:
        person = (table[:, 6] != 0) & (table[:, 7] == PEDESTRIAN)
        table, numbers = table[person], numbers[person]
    visibility = table[:, 8] if table.shape[1] == WITH_CLASS else np.ones(len(table))
    frames, tracks, boxes = table[:, 0], table[:, 1], table[:, 2:6]
    again = np.ones(len(table), dtype=bool)
    again[np.unique(table[:, :2], axis=0, return_index=True)[1]] = False
    faults = {
        "not a finite number": ~np.isfinite(table).all(axis=1),
        f"the frame is not one of 1 to {length}": ~((frames % 1 == 0) & (frames >= 1) & (frames <= length)),
        f"the id is neither 1 or above nor {UNLABELLED} for a person without identity": ~(
            (tracks % 1 == 0) & ((tracks >= 1) | (tracks == UNLABELLED))
        ),
        "the box has no area": ~(boxes[:, 2:] > 0).all(axis=1),
        "the frame has this id twice": again & (tracks != UNLABELLED),
    }
    for problem, wrong in faults.items():
        if wrong.any():
            number = numbers[wrong][0]
            raise UserError(f"{path}, line {number}: {problem} (in {lines[number - 1]!r})")
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) - 1
    return frames.astype(int), tracks.astype(int), corners, visibility
