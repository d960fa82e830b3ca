"""What is wrong with annotation files: the real loaders, told to go on, and a look at what they give."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from datasets import findings
from datasets.base import PersonSearchDataset
from datasets.build import build_dataset
from datasets.check.children import Died, Raised, in_children
from datasets.check.images import CheckedImage
from datasets.findings import Finding, Report, UnusableFileError

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A part of a dataset that is read at one go, in a process of its own: a split, or the galleries of one size."""

    name: str
    root: str
    options: dict
    split: str = ""
    """One of SPLITS; empty for galleries."""
    size: int | None = None
    without: frozenset[str] = frozenset()
    """Annotation files that are not to be touched, since they crash the reader."""

    def __str__(self) -> str:
        return f"{self.split} split" if self.split else f"galleries of {self.size} images" if self.size else "galleries"


@dataclass
class Contents:
    """What a part holds.

    `counts` and `images` are those of a split. One that could not be read has none, but `salvaged`: what single files
    tell of images.
    """

    found: list[Finding]
    counts: dict[str, int] = field(default_factory=dict)
    images: list[CheckedImage] = field(default_factory=list)
    salvaged: list[CheckedImage] = field(default_factory=list)


class _Collected(Report):
    """Keeps every finding, raises none."""

    def __init__(self, tell: Tell, without: frozenset[str]):
        super().__init__()
        self.found, self._tell, self._without = [], tell, without

    def __call__(self, finding: Finding) -> None:
        self.found.append(finding)

    def reading(self, path: Path) -> None:
        if str(path) in self._without:
            raise UnusableFileError(f"{path} crashes the reader")
        self._tell(str(path))


def read_parts(parts: list[Part], workers: int) -> Iterator[tuple[Part, Contents]]:
    """The contents of each part, in the order they are done; files that crash the reader are found and left out."""
    while parts:
        again = []
        for number, contents in in_children(read_part, parts, workers):
            part = parts[number]
            if isinstance(contents, Raised):
                yield part, Contents([_failed(part, contents)])
            elif not isinstance(contents, Died):
                contents.found += [_unread(findings.CRASHING_FILE, path) for path in sorted(part.without)]
                yield part, contents
            elif contents.killed:
                yield part, Contents([_unread(findings.KILLED, contents.doing or str(part))])
            elif contents.doing and contents.doing not in part.without:
                again.append(replace(part, without=part.without | {contents.doing}))
            else:
                yield part, Contents([_unread(findings.CRASHING_FILE, contents.doing or str(part))])
        parts = again


def _unread(kind: findings.Kind, path: str) -> Finding:
    return Finding(kind, f"annotation file {path}", "was being read when the process ended")


def _failed(part: Part, raised: Raised) -> Finding:
    after = f", the last file read being {raised.doing}" if raised.doing else ""
    return Finding(findings.NOT_READ, f"the {part} of {part.name}", f"cannot be read ({raised.message}){after}")


def read_part(part: Part, tell: Tell) -> Contents:
    """Read a part; `tell` is called with each annotation file before it is read."""
    report = _Collected(tell, part.without)
    if part.split:
        dataset = build_dataset(part.name, part.root, part.split, report=report, **part.options)
        if not dataset.complete:
            salvaged = [_checked(path, held["img_name"], held) for path, held in dataset.salvaged()]
            return Contents(list(dict.fromkeys(report.found)), salvaged=salvaged)  # faults of a file read twice
        report.found += list(_JUDGES[part.split](dataset)) if len(dataset) else []
        return Contents(report.found, _counts(dataset, report.found), _images(dataset))
    gallery_set, query_set = (
        build_dataset(part.name, part.root, split, report=report, **part.options) for split in ("gallery", "query")
    )
    report.found.clear()  # those of the splits themselves
    if not (gallery_set.complete and query_set.complete):
        query_set.read_alone(part.size)
    elif len(gallery_set) and len(query_set):
        with suppress(UnusableFileError):  # it has been reported
            report.found += list(_gallery_findings(gallery_set, query_set, part.size))
    return Contents(report.found)


def _counts(dataset: PersonSearchDataset, found: list[Finding]) -> dict[str, int]:
    """Counts of a split; boxes without area, which the loader left out, are counted with its boxes."""
    if dataset.split == "query":
        return {"queries": len(dataset), "identities": dataset.num_identities}
    dropped = Counter(finding.image for finding in found if finding.kind == findings.BOX_EMPTY)
    boxes = sum(len(annotation["boxes"]) + dropped[annotation["img_name"]] for annotation in dataset.annotations)
    return {"images": len(dataset), "boxes": boxes, "identities": dataset.num_identities}


def _images(dataset: PersonSearchDataset) -> list[CheckedImage]:
    return [_checked(*dataset.record_of(index), annotation) for index, annotation in enumerate(dataset.annotations)]


def _checked(file: Path, record: str, annotation: dict) -> CheckedImage:
    return CheckedImage(annotation["img_path"], annotation["img_name"], [(str(file), record, annotation["boxes"])])


def _train_findings(dataset: PersonSearchDataset) -> Iterator[Finding]:
    yield from _images_without_boxes(dataset)
    images = {}
    for index, annotation in enumerate(dataset.annotations):
        for pid in np.unique(annotation["pids"][annotation["pids"] > 0]).tolist():
            images.setdefault(pid, []).append(index)
    if not images:
        yield Finding(findings.NO_IDENTITIES, f"the training split of {dataset.name}", "names nobody")
    for pid, held in sorted(images.items()):
        if len(held) == 1:
            file, record = dataset.record_of(held[0])
            problem = f"training identity {pid} is seen in this image alone"
            yield _about(dataset, held[0], findings.SEEN_ONCE, problem)


def _images_without_boxes(dataset: PersonSearchDataset) -> Iterator[Finding]:
    for index, annotation in enumerate(dataset.annotations):
        if not len(annotation["boxes"]):
            yield _about(dataset, index, findings.NO_BOXES, "has no boxes")


def _about(dataset: PersonSearchDataset, index: int, kind: findings.Kind, problem: str) -> Finding:
    file, record = dataset.record_of(index)
    return Finding(kind, f"annotation file {file}", problem, record, dataset.annotations[index]["img_name"])


_JUDGES = {"train": _train_findings, "gallery": _images_without_boxes, "query": lambda _: ()}


def _gallery_findings(
    gallery_set: PersonSearchDataset, query_set: PersonSearchDataset, size: int | None
) -> Iterator[Finding]:
    others, total = 0, 0
    for index, gallery in enumerate(query_set.galleries(gallery_set, size)):
        total += 1
        others += size is not None and len(gallery.images) != size
        if not gallery.num_present:
            of_size = "" if size is None else f" of {size} images"
            yield _about(query_set, index, findings.NEVER_SHOWN, f"the gallery{of_size} never shows the person")
    if others:
        problem = f"{others} of {total} galleries do not hold {size} images"
        yield Finding(findings.SHORT_GALLERY, f"the protocol of {size} images", problem, "its galleries")
