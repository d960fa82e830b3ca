"""What can be wrong with a dataset, in words; and what a loader does about it: raise, warn or go on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from utils.text import printable

log = logging.getLogger("datasets")

ERROR, WARNING, NOTE = "error", "warning", "note"
"""Severities. An error changes what is trained on or how it is scored, or hides whether something does; a warning may
be meant; a note is harmless."""


class DatasetError(ValueError):
    """A dataset's files contradict their format; the message names the file or image and says what to do."""


class UnusableFileError(DatasetError):
    """An annotation file that has been reported cannot be read: what depends on it is left out."""


class Kind(NamedTuple):
    """A kind of fault."""

    name: str
    """In the plural, as a heading."""
    severity: str
    advice: str
    refused: bool = False
    """Whether a loader raises it. What it does not refuse, a loader counts in one warning for each file."""


AGAIN = "copy or download it again"
CORRECT = "correct the record, or unpack the dataset again"
LINKED = (
    "links out of the dataset's folder are not followed: put the files inside it, or move the whole dataset and link "
    "or name its own folder (INPUT.DATA_ROOT)"
)

MISSING_FOLDER = Kind("folders missing", ERROR, "unpack the dataset there, or set INPUT.DATA_ROOT", True)
MISSING_FILE = Kind("annotation files missing", ERROR, "check the dataset's folder, or unpack it again", True)
UNREADABLE_FILE = Kind("annotation files that cannot be read", ERROR, AGAIN, True)
CRASHING_FILE = Kind("annotation files that crash the reader", ERROR, AGAIN, True)
KILLED = Kind(
    "files not checked, since the process that read them was killed",
    ERROR,
    "as happens when memory runs out: check with fewer --workers, or leave protocols out with --gallery-size",
)
NOT_READ = Kind("parts not checked, since reading them failed", ERROR, "mend the other faults, then check again")
LINKED_FILE = Kind("annotation files behind links", ERROR, LINKED, True)
BAD_RECORD = Kind("records that are not what the format says", ERROR, CORRECT, True)
BAD_ID = Kind("person ids that are none", ERROR, CORRECT, True)
BAD_NAME = Kind("image names that lead out of the dataset", ERROR, "correct the name: it must stay in the folder", True)
UNKNOWN_IMAGE = Kind("names of images without annotations", ERROR, CORRECT, True)
UNKNOWN_SCENE = Kind("appearances in images without annotations", ERROR, CORRECT)
OTHER_SPLIT = Kind("appearances in images of another split", ERROR, CORRECT)
UNMATCHED = Kind("records that equal no box of their image", ERROR, CORRECT)
PROTOCOLS_DIFFER = Kind("protocols that contradict each other", ERROR, "unpack the protocols again", True)
EMPTY_SPLIT = Kind("splits without images or queries", ERROR, "check the split's annotation files", True)
NO_IDENTITIES = Kind("training sets without identities", ERROR, "training needs people with ids of 1 and up")
BOX_NOT_FINITE = Kind("boxes that are not four finite numbers", ERROR, CORRECT, True)
BOX_REVERSED = Kind("boxes of negative width or height", ERROR, CORRECT, True)
QUERY_BOX_EMPTY = Kind("queries whose box has no area", ERROR, CORRECT, True)
BOX_OUTSIDE = Kind("boxes wholly outside their image", ERROR, "correct the box; training leaves it out")
BOX_EMPTY = Kind("boxes without area", WARNING, "they are left out; the published CUHK-SYSU holds some")
LISTED_TWICE = Kind("images listed twice", WARNING, "remove one of the records")
IN_BOTH = Kind("images in both training and gallery", WARNING, "scores would be too good: leave them out of one")
NEVER_SHOWN = Kind("queries whose gallery never shows the person", WARNING, "they are left out of the scores")
COUNTS_DIFFER = Kind(
    "counts other than the published ones", WARNING, "right for data of your own; else unpack the dataset again"
)
BOX_CLIPPED = Kind("boxes partly outside their image", NOTE, "they are cut to the image")
SEEN_ONCE = Kind("identities in one training image alone", NOTE, "they train detection, but show nobody again")
NO_BOXES = Kind("images without boxes", NOTE, "they count as background")
SHORT_GALLERY = Kind("protocols with galleries of another size", NOTE, "right where the gallery split is small")

IMAGE_MISSING = Kind("image files missing", ERROR, "check that the dataset was unpacked completely")
IMAGE_EMPTY = Kind("empty image files", ERROR, AGAIN)
IMAGE_DAMAGED = Kind("images cut off or damaged", ERROR, "copy it again, or leave it out (INPUT.DAMAGED_IMAGES skip)")
IMAGE_OTHER = Kind("files that are no images", ERROR, AGAIN)
IMAGE_LARGE = Kind("images beyond the limit of pixels", ERROR, "scale it down, or raise INPUT.MAX_PIXELS")
IMAGE_FLOAT = Kind("images with floating point pixels", ERROR, "save it with 8 bits per channel")
IMAGE_LINKED = Kind("images behind links", ERROR, LINKED)
IMAGE_CRASHING = Kind("images that crash the reader", ERROR, AGAIN)
IMAGE_GREY = Kind("grey images", NOTE, "they are read as RGB")
IMAGE_PALETTE = Kind("palette images", NOTE, "they are read as RGB")
IMAGE_CMYK = Kind("CMYK images", NOTE, "they are read as RGB")
IMAGE_WIDE = Kind("16-bit images", NOTE, "they are read with 8 bits per channel")
IMAGE_ALPHA = Kind("images with transparency", NOTE, "it is dropped, the stored colour kept")
IMAGE_TURNED = Kind("images with an orientation tag", NOTE, "it is not applied: boxes refer to the pixels as stored")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: Kind
    file: str
    problem: str
    record: str = ""
    """Which record of the file; empty where all of it is meant."""
    image: str = ""
    """Name of the image concerned, where there is one."""

    @property
    def fact(self) -> str:
        """What is wrong where, without the advice."""
        return printable(
            f"{self.file}, {self.record}: {self.problem}" if self.record else f"{self.file} {self.problem}"
        )

    def __str__(self) -> str:
        return f"{self.fact}{';' if self.record else ':'} {self.kind.advice}"


def box_beyond(
    kind: Kind, file: str | Path, record: str, box: Sequence[int], size: tuple[int, int], img_name: str
) -> Finding:
    """That a box (x1, y1, x2, y2, pixels) is BOX_OUTSIDE or BOX_CLIPPED; `size` is its image's width and height."""
    lies = "lies outside" if kind is BOX_OUTSIDE else "reaches beyond"
    problem = f"{list(box)} (x1, y1, x2, y2) {lies} the {size[0]} x {size[1]} pixels of {img_name}"
    return Finding(kind, f"annotation file {file}", problem, record, img_name)


@dataclass
class Report:
    """Where a loader's findings go. This one refuses: the first error is raised, other faults are counted.

    Notes are dropped. `finish` logs one warning for each file and kind of what was counted.
    """

    counted: dict[tuple[str, str], list[Finding]] = field(default_factory=dict)

    def __call__(self, finding: Finding) -> None:
        """Take a finding.

        Raises:
            FileNotFoundError: a folder or file is missing.
            DatasetError: another fault that is not tolerated.
        """
        if finding.kind.refused:
            missing = finding.kind in (MISSING_FOLDER, MISSING_FILE)
            raise (FileNotFoundError if missing else DatasetError)(str(finding))
        if finding.kind.severity != NOTE:
            self.counted.setdefault((finding.file, finding.kind.name), []).append(finding)

    def reading(self, path: Path) -> None:
        """Called before an annotation file is read."""

    def finish(self, whose: str) -> None:
        """Log what was counted as warnings, said to be of `whose`, and forget it."""
        counted, self.counted = self.counted, {}
        for (file, name), found in counted.items():
            log.warning(
                "%s: %s: %d %s, the first: %s; %s (all of them: python -m tools.check_dataset)",
                whose,
                file,
                len(found),
                name,
                printable(f"{found[0].record}: {found[0].problem}"),
                found[0].kind.advice,
            )


class StrictReport(Report):
    """Raises whatever is found, harmless or not."""

    def __call__(self, finding: Finding) -> None:
        raise DatasetError(str(finding))
