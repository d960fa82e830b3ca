"""The JSON of the web page's requests and answers. Numbers of 63 bits are text: JavaScript's numbers have 53."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from engine.index.rows import Hit, Source, check_camera
from engine.index.search import Appearance
from engine.index.sources import is_video

Number = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of the index, which may come as text."""
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the picture."""
Verdict = Literal["match", "possible", "unlikely"]


class Thresholds(BaseModel):
    """Least similarities of a match and of a possible match."""

    possible: float
    match: float


class Index(BaseModel):
    """What there is to search; `thresholds` are null where neither the network nor the index tells any."""

    people: int
    files: int
    cameras: list[str]
    thresholds: Thresholds | None
    upload_bytes: int


class File(BaseModel):
    """A picture or video of the index; `time` is local, in ISO 8601: when it was taken, or begins."""

    id: str
    name: str
    path: str
    kind: Literal["picture", "video"]
    camera: str
    time: str

    @classmethod
    def of(cls, source: Source) -> "File":
        """A source of the index."""
        path = Path(source.path)
        kind = "video" if is_video(path) else "picture"
        return cls(
            id=str(source.id), name=path.name, path=str(path), kind=kind, camera=source.camera, time=iso(source.start)
        )


class Files(BaseModel):
    """Some of the files, of `total`."""

    total: int
    files: list[File]


class Frame(BaseModel):
    """A picture, or a frame `position` seconds after the beginning of a video, that shows people."""

    image: str
    position: float | None


class FileDetails(File):
    """A file with its frames; a picture has one, or none where it shows nobody."""

    frames: list[Frame]


class Person(BaseModel):
    """Somebody in a picture; `person` is null in an upload. `score` is of the detection."""

    person: str | None = None
    box: Box
    score: float


class Scene(BaseModel):
    """A picture or frame of the index with its people, from left to right."""

    image: str
    file: File
    position: float | None
    time: str
    people: list[Person]


class Upload(BaseModel):
    """An uploaded picture with the people found in it, from left to right."""

    upload: str
    name: str
    people: list[Person]


class Asked(BaseModel):
    """Whom to search for, a box of an upload or a person of the index, and where; null for everywhere.

    `cbgm`: re-rank the best images by the people around (context bipartite graph matching).
    """

    upload: str | None = None
    box: Box | None = None
    image: Number | None = None
    person: Number | None = None
    camera: str | None = None
    earliest: datetime | None = None
    latest: datetime | None = None
    top: int = Field(default=40, ge=1, le=500)
    cbgm: bool = False

    @model_validator(mode="after")
    def _one_query(self) -> "Asked":
        given = [value is not None for value in (self.upload, self.box, self.image, self.person)]
        if given not in ([True, True, False, False], [False, False, True, True]):
            raise ValueError("give upload and box, or image and person")
        if self.camera is not None:
            check_camera(self.camera)
        return self


class Seen(Person):
    """A person of the index in one picture or frame."""

    image: str
    position: float | None
    time: str
    similarity: float

    @classmethod
    def of(cls, hit: Hit) -> "Seen":
        """A hit of a search."""
        return cls(
            person=str(hit.id), box=hit.box, score=hit.score, image=str(hit.image), position=hit.position,
            time=iso(hit.time), similarity=hit.similarity,
        )  # fmt: skip


class Result(BaseModel):
    """A person in a picture, or in frames of a video that follow each other; `verdict` is null without thresholds."""

    similarity: float
    verdict: Verdict | None
    file: File
    time: str
    best: Seen
    seen: list[Seen]

    @classmethod
    def of(cls, found: Appearance) -> "Result":
        """A result of a search."""
        best = found.best
        return cls(
            similarity=best.similarity, verdict=found.verdict or None, file=File.of(best.source), time=iso(best.time),
            best=Seen.of(best), seen=[Seen.of(hit) for hit in found.hits],
        )  # fmt: skip


class Results(BaseModel):
    """Best first."""

    results: list[Result]


class Password(BaseModel):
    """The password of the page."""

    password: str


def iso(seconds: float) -> str:
    """Local time of seconds since 1970."""
    return datetime.fromtimestamp(seconds).isoformat(timespec="seconds")
