"""What is wrong with image files, and with boxes in the light of their images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from datasets import findings
from datasets.check.children import Died, Raised, in_children
from datasets.findings import Finding, Kind, box_beyond
from utils.boxes import box_areas, clip_boxes
from utils.images import ImageError, ImageFacts, ImageReader
from utils.text import printable

FAULTS = {
    "missing": findings.IMAGE_MISSING,
    "empty": findings.IMAGE_EMPTY,
    "damaged": findings.IMAGE_DAMAGED,
    "other": findings.IMAGE_OTHER,
    "large": findings.IMAGE_LARGE,
    "float": findings.IMAGE_FLOAT,
    "linked": findings.IMAGE_LINKED,
}
"""Kinds of ImageError."""

MODES = {"1": findings.IMAGE_GREY, "L": findings.IMAGE_GREY, "LA": findings.IMAGE_GREY, "CMYK": findings.IMAGE_CMYK}
MODES |= {"P": findings.IMAGE_PALETTE, "PA": findings.IMAGE_PALETTE}
ALPHA_MODES = ("LA", "PA", "RGBA", "RGBa")


@dataclass
class CheckedImage:
    """An image file, and the annotated boxes that are to be inside."""

    path: str
    name: str
    boxes: list[tuple[str, str, np.ndarray]] = field(default_factory=list)
    """Annotation file, record, and boxes n x 4 (x1, y1, x2, y2, pixels), of each annotation of the image; one or more
    where it is checked."""


@dataclass(frozen=True)
class _Inspection:
    """The work of a child process: `reader` on a path."""

    reader: ImageReader

    def __call__(self, path: str, _: Callable[[str], None]) -> ImageFacts | tuple[str, str]:
        try:
            return self.reader.inspect(path)
        except ImageError as error:
            return error.kind, str(error)


def check_images(images: list[CheckedImage], reader: ImageReader, workers: int) -> Iterator[tuple[int, list[Finding]]]:
    """Decode every image; the number of each in `images` and what is wrong with it, in the order they are done.

    Args:
        images: each file once.
        reader: the dataset's.
        workers: processes that decode.
    """
    for number, found in in_children(_Inspection(reader), [image.path for image in images], workers):
        yield number, list(_judged(images[number], found))


def _judged(image: CheckedImage, found: ImageFacts | tuple[str, str] | Died | Raised) -> Iterator[Finding]:
    if isinstance(found, Died):
        kind = findings.KILLED if found.killed else findings.IMAGE_CRASHING
        yield _finding(image, kind, f"was being read when the process ended (code {found.exit_code})")
    elif isinstance(found, Raised):
        yield _finding(image, findings.IMAGE_DAMAGED, f"cannot be read ({found.message})")
    elif isinstance(found, ImageFacts):
        for kind, problem in _stored(found):
            yield _finding(image, kind, problem)
        yield from _box_findings(image, found)
    else:
        kind, message = found
        yield _finding(image, FAULTS[kind], _problem_of(message, printable(image.path)))


def _finding(image: CheckedImage, kind: Kind, problem: str) -> Finding:
    file, record, _ = image.boxes[0]
    others = f" and {len(image.boxes) - 1} more" if len(image.boxes) > 1 else ""
    return Finding(kind, image.path, problem, f"named by {file}, {record}{others}", image.name)


def _problem_of(message: str, path: str) -> str:
    """An ImageError's message without path and advice, which a finding adds itself."""
    return message.removeprefix(path).rpartition(": ")[0].strip() if message.startswith(path) else "is missing"


def _stored(facts: ImageFacts) -> Iterator[tuple[Kind, str]]:
    if facts.mode in MODES:
        yield MODES[facts.mode], f"is stored in mode {facts.mode}"
    if facts.wide:
        yield findings.IMAGE_WIDE, f"is stored in mode {facts.mode}, with more than 8 bits per channel"
    if facts.mode in ALPHA_MODES or facts.transparency:
        yield findings.IMAGE_ALPHA, "has transparency"
    if facts.turned:
        yield findings.IMAGE_TURNED, f"has an orientation tag; stored are {facts.width} x {facts.height} pixels"


def _box_findings(image: CheckedImage, facts: ImageFacts) -> Iterator[Finding]:
    for file, record, boxes in image.boxes:
        inside = clip_boxes(boxes, facts.width, facts.height)
        for number in np.flatnonzero((inside != boxes).any(axis=1)):
            kind = findings.BOX_OUTSIDE if box_areas(inside[number]) == 0 else findings.BOX_CLIPPED
            yield box_beyond(kind, file, record, boxes[number].tolist(), (facts.width, facts.height), image.name)
