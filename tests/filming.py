"""Pictures, videos and a network's stand-in, for tests of the index."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from engine.index.rows import Network
from engine.requests import SearchRequest, tensor_of
from engine.searcher import ImageResult, People, Searcher
from utils.errors import UserError
from utils.images import MAX_PIXELS, read_photo

SIZE = 320, 240
WIDTH = 8
NETWORK = Network("best.pth", "0a1b", WIDTH, {"MODEL.FAMILY": "two_stage"})
LEVELS = 12
"""Grey values, 20 apart, by which pictures and frames differ."""


def grey(level: int) -> np.ndarray:
    """An image of the nth grey value."""
    return np.full((SIZE[1], SIZE[0], 3), 20 * level, np.uint8)


def save_picture(path: Path, level: int) -> Path:
    """An image file of the nth grey value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey(level)).save(path, quality=95)
    return path


def save_video(path: Path, levels: list[int], rate: float = 10.0) -> Path:
    """A video with a frame of each grey value, at `rate` frames a second; browsers play WebM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "VP80" if path.suffix == ".webm" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, SIZE)
    assert writer.isOpened()
    for level in levels:
        writer.write(grey(level))
    writer.release()
    return path


def ffmpeg(*arguments: object) -> None:
    """Call ffmpeg; the test is skipped where it is not installed."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *map(str, arguments)], check=True)


def people_at(level: int) -> People:
    """Whom the stand-in finds in an image of the nth grey value: up to three people, none at 0, 4 and 8."""
    rng, number = np.random.default_rng(level), level % 4
    boxes = np.array([(20 + 90 * place, 40, 70 + 90 * place, 160) for place in range(number)], np.float32)
    scores = np.linspace(0.9, 0.7, number, dtype=np.float32)
    vectors = rng.standard_normal((number, WIDTH)).astype(np.float32)
    vectors *= (scores / np.linalg.norm(vectors, axis=1))[:, None]
    return People(boxes.reshape(-1, 4), scores, vectors)


class StubSearcher(Searcher):
    """Finds the people that an image's grey value stands for; a box's embedding is that of the person in it."""

    def __init__(self, stop_at: int | None = None):
        self.read, self.max_pixels, self.batch_size = read_photo, MAX_PIXELS, 2
        self.stop_at, self.searched = stop_at, 0

    def with_images(self, requests, on_error=None):
        for index, request in enumerate(requests):
            request = request if isinstance(request, SearchRequest) else SearchRequest(request)
            if self.searched == self.stop_at:
                raise KeyboardInterrupt
            try:
                image = tensor_of(request.image, self.read, self.max_pixels)
            except UserError as error:
                on_error(index, error)
                continue
            self.searched += 1
            people = people_at(round(float(image.float().mean()) / 20))
            units = people.embeddings / np.maximum(people.scores[:, None], 1e-9)
            asked, contexts = [], []
            for box in [] if request.boxes is None else request.boxes:
                place = int(np.abs(people.boxes - np.array(box)).sum(1).argmin()) if len(people.boxes) else None
                asked.append(np.eye(WIDTH, dtype=np.float32)[0] if place is None else units[place])
                rest = [row for row in range(len(units)) if row != place]
                rows = [np.array([box], np.float32), people.boxes[rest]]
                scores = np.r_[np.float32(1), people.scores[rest]]
                contexts.append(People(np.concatenate(rows), scores, np.stack([asked[-1], *units[rest]])))
            embeddings = np.array(asked, np.float32).reshape(-1, WIDTH)
            yield index, image, ImageResult(*vars(people).values(), embeddings, contexts)

    def __call__(self, requests, on_error=None):
        return ((index, found) for index, _, found in self.with_images(requests, on_error))
