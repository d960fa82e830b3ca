"""What an index holds: where people come from, the people, and what a search finds."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.text import shortened

if TYPE_CHECKING:  # for PyTorch takes seconds, in which a program that needs no network would wait
    from engine.searcher import People


@dataclass(frozen=True)
class Network:
    """The network whose embeddings an index holds; those of another one cannot be compared with them.

    Attributes:
        name: of its file, for messages.
        weights: a digest of its weights.
        width: of its embeddings.
        options: the options of the network by their dotted names.
    """

    name: str
    weights: str
    width: int
    options: dict[str, object] = field(default_factory=dict)

    def check_weights(self, other: "Network", index: str) -> None:
        """Raise UserError where `other`, that is to search, is not this network, that of an index."""
        if (self.weights, self.width) != (other.weights, other.width):
            raise UserError(
                f"{index} holds people as {self.name} embeds them (weights {self.weights}), which cannot be compared "
                f"with those of {other.name} (weights {other.weights}): give that network, or another index"
            )

    def check_same(self, other: "Network", index: str) -> None:
        """Raise UserError where `other`, that is to add people, is another network or has other options."""
        self.check_weights(other, index)
        # One alone has what a later version added, or removed.
        both = sorted(self.options.keys() & other.options.keys())
        pairs = [(name, self.options[name], other.options[name]) for name in both]
        differing = [f"{name} {new} instead of {old}" for name, old, new in pairs if old != new]
        if differing:
            raise UserError(
                f"{index} was made with other options: {shortened(differing)}; give the same, or another index"
            )


@dataclass(frozen=True)
class Source:
    """A picture or a video whose people are in the index.

    Attributes:
        path: absolute.
        size, changed, digest: of the file: bytes, time of change in seconds since 1970, checksum of its content.
        start: when it was taken or begins, in seconds since 1970.
        camera: its name; "" for none.
        fps: frames a second that are searched in a video; 0 for a picture.
        done: frames with a lower number are searched and stored; a picture is frame 0.
        complete: whether all are.
    """

    path: str
    size: int
    changed: float
    digest: str
    start: float
    camera: str = ""
    fps: float = 0.0
    done: int = 0
    complete: bool = False

    @property
    def id(self) -> int:
        """The number of the source in the index, which follows from its path."""
        return number_of(self.path)

    def row(self) -> dict:
        """All but the path, as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "path"}


@dataclass(frozen=True)
class SearchedImage:
    """A picture, or a frame of a video, with the people found in it.

    Attributes:
        source: where it comes from.
        people: as a gallery image's, embeddings weighted.
        crops: of each person a small JPEG.
        frame: its number in the video, from 0.
        position: its time in the video, in seconds.
    """

    source: Source
    people: "People"
    crops: Sequence[bytes]
    frame: int = 0
    position: float = 0.0


@dataclass(frozen=True)
class Hit:
    """A person of the index that a search found.

    Attributes:
        id: number of the person in the index.
        similarity: to the query: the inner product of their embeddings.
        source: the picture or video.
        image: number of the picture or frame in the index.
        frame: number of the frame in the video, 0 for a picture.
        position: seconds from the beginning of the video, None for a picture.
        time: seconds since 1970.
        camera: its name; "" for none.
        box: x1, y1, x2, y2 in pixels.
        score: of the detection.
    """

    id: int
    similarity: float
    source: Source
    image: int
    frame: int
    position: float | None
    time: float
    camera: str
    box: tuple[float, float, float, float]
    score: float

    @property
    def path(self) -> str:
        """Of the picture or video."""
        return self.source.path


@dataclass(frozen=True)
class Where:
    """Which people are searched: of a camera, of a time; None for all.

    Attributes:
        camera: its name.
        time: earliest and latest, in seconds since 1970; None for no limit.
        position: likewise, in seconds from the beginning of a video; pictures are left out where there is a limit.
    """

    camera: str | None = None
    time: tuple[float | None, float | None] = (None, None)
    position: tuple[float | None, float | None] = (None, None)

    def expression(self) -> str:
        """The condition in Milvus's words; "" for none."""
        parts = []
        if self.camera is not None:
            parts.append(f'camera == "{self.camera}"')
        for name, (first, last) in (("time", self.time), ("position", self.position)):
            parts += [f"{name} >= {first!r}"] if first is not None else []
            parts += [f"{name} <= {last!r}"] if last is not None else []
        if self.position != (None, None):
            parts.append("position >= 0.0")
        return " and ".join(parts)


EVERYBODY = Where()


CAMERA_BYTES = 256


def check_camera(name: str) -> str:
    """The name of a camera; ValueError, with the reason, where an index cannot keep it or search for it."""
    # Milvus's conditions are text, in which quotes would end the name.
    if set(name) & set("\"'\\") or not name.isprintable() or len(name.encode()) > CAMERA_BYTES:
        raise ValueError(f"a camera's name has {CAMERA_BYTES} bytes at most, no quote, backslash or control character")
    return name


def number_of(*parts: object) -> int:
    """A number of 63 bits that follows from `parts`: two of a million are the same with a probability of 5e-8."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1
