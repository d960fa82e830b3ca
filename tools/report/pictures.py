"""The pictures of a report: whole scenes and the people in them, each written once."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tools.photos.sheets import crop_region
from utils.images import jpeg_bytes

CROP = (88, 176)
"""Width and height in pixels of the picture of a person; smaller ones are not enlarged."""
SCENE_SIDE = 480
"""Longer side in pixels of the picture of a scene, at most."""
QUALITY = 82


class Pictures:
    """Makes the pictures of a page and remembers where they are.

    Args:
        read: gives the pixels of an image file, uint8 H x W x 3.
        folder: where they are written; None embeds them in the page, as data URIs.
    """

    def __init__(self, read: Callable[[str], np.ndarray], folder: Path | None):
        self.read, self.folder = read, folder
        self._sources: dict[tuple, str] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._last: tuple[str, np.ndarray] | None = None

    def scene(self, path: str) -> str:
        """The address of the picture of a whole image."""
        return self._source((path,), lambda: self._pixels(path), (SCENE_SIDE, SCENE_SIDE))

    def person(self, path: str, box: Sequence[float]) -> str:
        """The address of the picture of the person in a box (x1, y1, x2, y2 in pixels of the image)."""
        key = (path, *np.round(box).astype(int).tolist())
        return self._source(key, lambda: crop_region(self._pixels(path), box, CROP), CROP)

    def size(self, path: str) -> tuple[int, int]:
        """Width and height of an image in pixels."""
        if path not in self._sizes:
            self._pixels(path)
        return self._sizes[path]

    def _pixels(self, path: str) -> np.ndarray:
        if self._last is None or self._last[0] != path:  # people of an image are asked for one after the other
            self._last = path, self.read(path)
            self._sizes[path] = self._last[1].shape[1::-1]
        return self._last[1]

    def _source(self, key: tuple, pixels: Callable[[], np.ndarray], limit: tuple[int, int]) -> str:
        if key not in self._sources:
            self._sources[key] = self._keep(jpeg_bytes(pixels(), QUALITY, limit))
        return self._sources[key]

    def _keep(self, jpeg: bytes) -> str:
        if self.folder is None:
            return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
        name = f"{len(self._sources) + 1}.jpg"
        self.folder.mkdir(exist_ok=True)
        (self.folder / name).write_bytes(jpeg)
        return f"{self.folder.name}/{name}"
