"""Fill an index with the people of pictures and videos, so that it can be stopped at any moment and goes on later."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

import numpy as np
from torch import Tensor
from tqdm import tqdm

from engine.index.rows import SearchedImage, Source
from engine.index.sources import DEFAULT_FPS, describe, is_as_before, is_video, place_of
from engine.index.store import PeopleIndex
from engine.index.video import Frame, expected_frames, read_frames
from engine.searcher import ImageResult, Searcher
from utils.errors import UserError
from utils.images import jpeg_bytes
from utils.text import printable

COMMIT_SECONDS = 10.0
"""An interruption costs the work of these seconds at most."""
CHUNK = 8
"""Frames of a video that are decoded before they are searched, at least."""
COMMIT_PEOPLE = 2_000
"""People that are found before they are written, at most about."""
CROP_HEIGHT = 160
CROP_MARGIN = 0.1
"""Of the box's sides, shown around a person."""
CROP_QUALITY = 85


@dataclass
class Report:
    """What a run did.

    Attributes:
        files: counts of files that could be read: "new", "changed", "continued", "unchanged".
        images: pictures and frames searched.
        people: found in them.
        failed: files that could not be read, with the reason.
    """

    files: Counter = field(default_factory=Counter)
    images: int = 0
    people: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def index_files(
    index: PeopleIndex, searcher: Searcher, files: Sequence[Path], camera: str | None = None, fps: float | None = None
) -> Report:
    """Add the people of pictures and videos to an index.

    A file that is in the index and has not changed is passed over; of one that has, the old people are removed. What
    an earlier run began is continued: a video with the frame after the last one that is stored.

    Args:
        files: the pictures and videos.
        camera: name of their camera; None: for files in the index the name they have, for others none.
        fps: frames a second of videos; None: for videos in the index as before, for others DEFAULT_FPS.

    Raises:
        UserError: the index cannot be written. A file that cannot be read is in the report instead.
    """
    run = _Run(index, searcher)
    paths = [place_of(file) for file in files]
    known = {source.path: source for source in index.sources()}
    # Not those of other files: another process may be adding them.
    index.drop_unfinished([known[str(path)] for path in paths if str(path) in known])
    pictures, videos = [], []
    for path in paths:
        if (source := run.plan(path, known.get(str(path)), camera, fps)) is not None:
            (videos if is_video(path) else pictures).append(source)
    index.put_sources(run.touched)
    expected = len(pictures) + sum(expected_frames(Path(video.path), video.fps) for video in videos)
    with tqdm(total=expected, desc="index", unit="image", disable=None) as run.bar:
        run.pictures(pictures)
        for video in videos:
            run.video(video)
    failed = run.report.failed
    run.report.files = Counter(kind for path, kind in run.kinds.items() if path not in failed)
    return run.report


class _Run:
    """One call of `index_files`: what is searched but not yet written, and the report."""

    bar: tqdm

    def __init__(self, index: PeopleIndex, searcher: Searcher):
        self.index, self.searcher, self.report = index, searcher, Report()
        self.kinds: dict[str, str] = {}
        self.touched: list[Source] = []  # of known content, with a new time of change, by which they are shown
        self.waiting: list[SearchedImage] = []
        self.written = monotonic()

    def plan(self, path: Path, known: Source | None, camera: str | None, fps: float | None) -> Source | None:
        """What is to be done with a file: its source, from `done` on; None where nothing is."""
        if known is not None:
            camera = known.camera if camera is None else camera
            fps = known.fps if fps is None or not is_video(path) else fps
        try:
            str(path).encode()
            same = known is not None and (camera, fps) == (known.camera, known.fps) and is_as_before(path, known)
            if same:
                self.kinds[str(path)] = "unchanged" if known.complete else "continued"
                if (changed := path.stat().st_mtime) != known.changed:
                    known = replace(known, changed=changed)
                    self.touched.append(known)
                return None if known.complete else known
            source = describe(path, camera or "", fps or DEFAULT_FPS)
        except UnicodeEncodeError:
            self.report.failed[str(path)] = f"{printable(str(path))} has a name that is not UTF-8: rename the file"
            return None
        except (OSError, UserError) as error:
            self.report.failed[str(path)] = str(error)
            return None
        self.kinds[str(path)] = "new" if known is None else "changed"
        return source

    def pictures(self, sources: Sequence[Source]) -> None:
        """Search pictures and write what is found, some at a time."""

        def note(index: int, error: UserError) -> None:
            self.report.failed[sources[index].path] = str(error)
            self.bar.update()

        try:
            for index, image, found in self.searcher.with_images([source.path for source in sources], note):
                self.add(sources[index], image, found)
                if self.is_due():
                    self.write_pictures()
        except KeyboardInterrupt:
            self.write_pictures()
            raise
        self.write_pictures()

    def write_pictures(self) -> None:
        """Write the people of pictures: each is either wholly in the index or marked as unfinished."""
        sources = [image.source for image in self.waiting]
        if sources:
            self.begin(sources)
            self.write([replace(source, done=1, complete=True) for source in sources])

    def video(self, source: Source) -> None:
        """Search a video and write what is found, some frames at a time."""
        try:
            for chunk in self.chunks(source):
                if not source.done:
                    self.begin([source])
                found = self.searcher.with_images(frame.image for frame in chunk)
                for index, image, result in sorted(found, key=lambda row: row[0]):
                    self.add(source, image, result, chunk[index])
                source = replace(source, done=chunk[-1].number + 1)
                if self.is_due():
                    self.write([source])
        except KeyboardInterrupt:
            self.write([source])
            raise
        if source.path not in self.report.failed:
            source = replace(source, complete=True)
        if source.done:
            self.write([source])

    def chunks(self, source: Source) -> Iterator[list[Frame]]:
        """The frames of a video from `done` on, some at a time; a damaged one is noted, and what comes before given."""
        chunk = []
        try:
            for frame in read_frames(Path(source.path), source.fps, source.done):
                chunk.append(frame)
                if len(chunk) >= max(self.searcher.batch_size, CHUNK):
                    yield chunk
                    chunk = []
        except UserError as error:
            self.report.failed[source.path] = str(error)
        if chunk:
            yield chunk

    def begin(self, sources: Sequence[Source]) -> None:
        """Note that sources are about to be searched, and delete what the index holds of an older state of them."""
        self.index.put_sources(sources)
        self.index.drop_people([source for source in sources if self.kinds[source.path] == "changed"])

    def add(self, source: Source, image: Tensor, found: ImageResult, frame: Frame | None = None) -> None:
        """Keep the people of an image until they are written."""
        crops = [jpeg_of(image, box) for box in found.boxes]
        place = (frame.number, frame.position) if frame else (0, 0.0)
        self.waiting.append(SearchedImage(source, found, crops, *place))
        self.report.images += 1
        self.report.people += len(found.boxes)
        self.bar.set_postfix_str(f"{self.report.people} people", refresh=False)
        self.bar.update()

    def is_due(self) -> bool:
        """Whether what waits should be written now."""
        people = sum(len(image.crops) for image in self.waiting)
        return people >= COMMIT_PEOPLE or monotonic() - self.written >= COMMIT_SECONDS

    def write(self, sources: Sequence[Source]) -> None:
        """Write the people that wait, and then their sources, which say that these people are there."""
        self.index.add(self.waiting)
        self.index.put_sources(sources)
        self.waiting, self.written = [], monotonic()


def jpeg_of(image: Tensor, box: np.ndarray) -> bytes:
    """A person as a small JPEG: a box (x1, y1, x2, y2) of an image (uint8 3 x H x W) with a margin."""
    height, width = image.shape[1:]
    x1, y1, x2, y2 = box.tolist()
    wide, high = CROP_MARGIN * (x2 - x1), CROP_MARGIN * (y2 - y1)
    left, top = max(int(x1 - wide), 0), max(int(y1 - high), 0)
    right, bottom = min(int(x2 + wide) + 1, width), min(int(y2 + high) + 1, height)
    pixels = image[:, top : max(bottom, top + 1), left : max(right, left + 1)].permute(1, 2, 0).numpy()
    return jpeg_bytes(pixels, CROP_QUALITY, (2 * CROP_HEIGHT, CROP_HEIGHT))
