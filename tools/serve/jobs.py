"""What the web page's requests do: pictures that users upload, the index's pictures, and searches."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore
from typing import TypeVar

import numpy as np

from engine.index.rows import Hit, Source, Where
from engine.index.scenes import is_as_indexed, read_scene
from engine.index.search import Appearance, Query, embed, person_of, search
from engine.index.sources import is_video
from engine.index.store import PeopleIndex
from engine.requests import SearchRequest
from engine.searcher import Searcher
from utils.errors import UserError
from utils.images import HEIF_SUFFIXES, jpeg_bytes, read_photo
from utils.match_thresholds import MatchThresholds

UPLOAD_PIXELS = 50_000_000
"""Largest picture that is taken from users: what phones make."""
UPLOADS_KEPT = 64
"""Uploads of all users that are kept; the oldest ones go first."""
WAITING = 32
"""Requests that wait for the network, at most; others are told to come back."""
DECODERS = 4
"""Pictures that are decoded at a time, at most: each takes up to 240 MB."""
QUALITY = 90
T = TypeVar("T")


class MissingError(LookupError):
    """What is asked for is not, or no longer, there; the message says what to do."""


class BusyError(RuntimeError):
    """Too many requests wait."""


@dataclass(frozen=True)
class Upload:
    """A picture that a user uploaded, and the people found in it: boxes n x 4 (x1, y1, x2, y2 in pixels), scores n."""

    id: str
    path: Path
    name: str
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))


class Service:
    """Answers the requests of several users with one network, which is used by one thread, and one index.

    Args:
        index: is searched, and stays open.
        searcher: with the network that made the index.
        thresholds: by which results get a verdict; None for none.
    """

    def __init__(self, index: PeopleIndex, searcher: Searcher, thresholds: MatchThresholds | None = None):
        self.index, self.thresholds = index, thresholds
        self._searcher = searcher
        self._thread = ThreadPoolExecutor(1, "network")
        self._waiting = 0
        self._decoders = BoundedSemaphore(DECODERS)
        self._folder = TemporaryDirectory(prefix="person-search-")
        self._uploads: OrderedDict[str, Upload] = OrderedDict()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._folder.cleanup()

    # -- the index ----------------------------------------------------------------------------------------------------

    def source(self, number: int) -> Source:
        """A picture or video of the index; MissingError if it is not in it."""
        if (source := self.index.source(number)) is None:
            raise MissingError("this file is not in the index, or no longer")
        return source

    def people(self, image: int) -> list[Hit]:
        """The people of a picture or frame of the index, from left to right; MissingError if it has none."""
        people, _ = self.index.people_of([image]).get(image, ([], None))
        if not people:
            raise MissingError("this picture is not in the index, or no longer")
        return sorted(people, key=lambda hit: hit.box)

    def scene(self, image: int) -> bytes:
        """A picture or frame of the index as JPEG; MissingError where its file is gone."""
        [first, *_] = self.people(image)
        with self._decoders:
            pixels = read_scene(first, self._searcher.max_pixels)
            if pixels is None:
                raise MissingError(f"{Path(first.path).name} is gone, or has changed since it was indexed")
            return jpeg_bytes(pixels, QUALITY)

    def video(self, number: int) -> Path:
        """The file of a video of the index; MissingError where it is gone, or is none."""
        source = self.source(number)
        if not is_video(Path(source.path)) or not is_as_indexed(source):
            raise MissingError(f"{Path(source.path).name} is no video, is gone, or has changed since it was indexed")
        return Path(source.path)

    def crop(self, person: int) -> bytes:
        """The small picture of a person, JPEG; MissingError if there is no such person."""
        if not (crops := self.index.crops([person])):
            raise MissingError("this person is not in the index, or no longer")
        return crops[person]

    # -- uploads ------------------------------------------------------------------------------------------------------

    async def receive(self, name: str, chunks: AsyncIterator[bytes]) -> Upload:
        """Store a picture and find the people in it.

        Args:
            name: of the user's file, for messages, and for its kind where it ends as one in HEIF format.

        Raises:
            UserError: it is no picture, or has more than UPLOAD_PIXELS.
            BusyError: see `with_network`.
        """
        number, suffix = secrets.token_urlsafe(16), Path(name).suffix.lower()
        path = Path(self._folder.name, number).with_suffix(suffix if suffix in HEIF_SUFFIXES else "")
        upload = Upload(number, path, Path(name).name or "the picture")
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    file.write(chunk)
            upload = await self.with_network(self._find, upload)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._uploads[number] = upload
        while len(self._uploads) > UPLOADS_KEPT:
            self._uploads.popitem(last=False)[1].path.unlink(missing_ok=True)
        return upload

    def upload(self, number: str) -> Upload:
        """An upload by its number; MissingError where it is not kept any more."""
        if number not in self._uploads:
            raise MissingError("this picture is not kept any more: choose it again")
        return self._uploads[number]

    def upload_picture(self, number: str) -> bytes:
        """An uploaded picture, turned upright, as JPEG."""
        with self._decoders:
            return jpeg_bytes(read_photo(self.upload(number).path, UPLOAD_PIXELS), QUALITY)

    def _find(self, upload: Upload) -> Upload:
        try:
            pixels = read_photo(upload.path, min(UPLOAD_PIXELS, self._searcher.max_pixels))
        except UserError as error:
            raise UserError(str(error).replace(str(upload.path), upload.name)) from None
        [(_, _, found)] = self._searcher.with_images([SearchRequest(pixels)])
        order = np.argsort(found.boxes[:, 0], kind="stable")
        return Upload(upload.id, upload.path, upload.name, found.boxes[order], found.scores[order])

    # -- searches -----------------------------------------------------------------------------------------------------

    async def query_of_upload(self, number: str, box: tuple[float, float, float, float]) -> Query:
        """The person in a box of an upload.

        Raises:
            MissingError, UserError: it is not kept any more; the box is not inside it.
            BusyError: see `with_network`.
        """
        upload = self.upload(number)
        try:
            return await self.with_network(embed, self._searcher, upload.path, box)
        except UserError as error:
            raise UserError(str(error).replace(str(upload.path), upload.name)) from None

    def query_of_index(self, image: int, person: int) -> Query:
        """A person of the index; MissingError if there is no such one."""
        query = person_of(self.index, image, person)
        if query is None:
            raise MissingError("this person is not in the index, or no longer")
        return query

    def search(self, query: Query, top: int, where: Where, cbgm: bool) -> list[Appearance]:
        """The best results, see `engine.index.search.search`."""
        [found] = search(self.index, [query], top, where, self.thresholds, cbgm)
        return found

    async def with_network(self, function: Callable[..., T], *args: object) -> T:
        """What a function that uses the network returns: one runs at a time, while other requests are answered.

        Raises:
            BusyError: WAITING others wait.
        """
        if self._waiting >= WAITING:
            raise BusyError("too many searches wait: try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        finally:
            self._waiting -= 1
