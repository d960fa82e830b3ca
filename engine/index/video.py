"""The frames of a video, at a rate, with their times."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.errors import UserError

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv",
)  # fmt: skip
ROUNDING = 1e-3
"""Seconds by which a frame may come too early: times in files are rounded."""
CUT_OFF = 0.9
"""Share of the length that a video says it has; where it ends before, it is taken to be damaged."""
SEEK_BACK = 2.0
"""Seconds before a frame from which it is looked for: times of key frames are not exact."""


os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # no lines of FFmpeg's own about damaged files


class Frame(NamedTuple):
    """A frame of a video: its number, from 0, its time in seconds, and its pixels, uint8 H x W x 3, RGB."""

    number: int
    position: float
    image: np.ndarray


def read_frames(path: Path, fps: float, first: int = 0) -> Iterator[Frame]:
    """Frames of a video, the first of each 1 / `fps` seconds, turned upright as the file says.

    Which frames these are follows from the frames' own times, so it is right where they do not come evenly, and does
    not depend on `first`.

    Args:
        fps: frames a second; all where the video has fewer.
        first: frames with a lower number are passed over.

    Raises:
        UserError: the file is no video that can be read, has no frames, or ends before it should, in which case all
            frames until there were given.
    """
    with _opened(path) as video:
        number, position, last = -1, 0.0, -1
        while video.grab():
            number += 1
            position = _position(video)
            period = math.floor((position + ROUNDING) * fps)
            if period > last:
                last = period
                if number >= first:
                    yield Frame(number, position, _pixels(video, path))
        if number < 0:
            raise UserError(f"{path} is a video without frames: record or copy it again, or leave it out")
        length = _length(video)
        if position < CUT_OFF * length - 1 / max(_rate(video), 1):
            raise UserError(
                f"{path} is damaged: it ends after {position:.1f} of {length:.1f} seconds; what comes before is used"
            )


def read_frame(path: Path, number: int, position: float) -> np.ndarray | None:
    """The pixels of a frame, uint8 H x W x 3 RGB, given its number and its time in seconds; None where it is not found.

    Raises:
        UserError: the file is no video that can be read.
    """
    with _opened(path) as video:
        if position > SEEK_BACK:
            video.set(cv2.CAP_PROP_POS_MSEC, 1000 * (position - SEEK_BACK))
        while video.grab():
            now = _position(video)
            if now > position + ROUNDING:
                break
            if now > position - ROUNDING:
                return _pixels(video, path)
    # Where seeking has gone astray, all frames until the one asked for are read.
    return _counted(path, number)


def expected_frames(path: Path, fps: float) -> int:
    """About how many frames `read_frames` gives, for a progress bar; 0 where the file does not say."""
    try:
        with _opened(path) as video:
            return math.ceil(min(fps, _rate(video) or fps) * _length(video))
    except UserError:  # it is told where the video is read
        return 0


def length_of(path: Path) -> float:
    """The length of a video in seconds, as its file says, 0 where it does not; UserError where it cannot be read."""
    with _opened(path) as video:
        return _length(video)


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise UserError(f"{path} cannot be read as a video: copy it again, or leave it out")
        yield video
    finally:
        video.release()
        cv2.utils.logging.setLogLevel(before)


def _counted(path: Path, number: int) -> np.ndarray | None:
    with _opened(path) as video:
        for _ in range(number + 1):
            if not video.grab():
                return None
        return _pixels(video, path)


def _position(video: cv2.VideoCapture) -> float:
    """The time of the frame that was grabbed last."""
    return max(video.get(cv2.CAP_PROP_POS_MSEC), 0.0) / 1000


def _rate(video: cv2.VideoCapture) -> float:
    rate = video.get(cv2.CAP_PROP_FPS)
    return rate if math.isfinite(rate) and rate > 0 else 0.0


def _length(video: cv2.VideoCapture) -> float:
    frames = max(video.get(cv2.CAP_PROP_FRAME_COUNT), 0.0)
    return frames / _rate(video) if _rate(video) else 0.0


def _pixels(video: cv2.VideoCapture, path: Path) -> np.ndarray:
    found, image = video.retrieve()
    if not found:
        raise UserError(f"{path} is damaged: a frame cannot be decoded; copy it again, or leave it out")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
