"""The check of a whole dataset: annotation files, counts and images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from datasets import findings
from datasets.base import SPLITS
from datasets.build import class_of
from datasets.check.annotations import Contents, Part, read_parts
from datasets.check.images import CheckedImage, check_images
from datasets.check.published import PUBLISHED
from datasets.findings import ERROR, Finding
from utils.images import MAX_PIXELS, ImageReader


@dataclass
class DatasetCheck:
    """What a check found.

    Attributes:
        name, root: the dataset.
        counts: by split, of images, boxes, identities and queries; a split that could not be read is empty.
        images_read: image files that were looked at.
        found: all findings, each once.
    """

    name: str
    root: str
    counts: dict[str, dict[str, int]]
    images_read: int
    found: list[Finding]

    @property
    def by_kind(self) -> dict[findings.Kind, list[Finding]]:
        """The findings of each kind: errors first, then warnings, then notes."""
        groups: dict[findings.Kind, list[Finding]] = {}
        order = (findings.ERROR, findings.WARNING, findings.NOTE)
        for finding in sorted(self.found, key=lambda finding: order.index(finding.kind.severity)):
            groups.setdefault(finding.kind, []).append(finding)
        return groups

    @property
    def num_errors(self) -> int:
        """Findings that change what is trained on or how it is scored."""
        return sum(finding.kind.severity == ERROR for finding in self.found) - self.num_unchecked

    @property
    def num_unchecked(self) -> int:
        """Files and parts that could not be checked, whose faults are not known."""
        return sum(finding.kind in (findings.KILLED, findings.NOT_READ) for finding in self.found)

    def as_json(self) -> dict:
        """Everything, in plain types."""
        return {
            "dataset": self.name,
            "root": self.root,
            "affected": self.num_errors > 0,
            "not_checked": self.num_unchecked,
            "images_read": self.images_read,
            "counts": self.counts,
            "published": PUBLISHED[self.name],
            "kinds": {
                kind.name: {"severity": kind.severity, "count": len(group), "advice": kind.advice}
                for kind, group in self.by_kind.items()
            },
            "findings": [
                {
                    "severity": kind.severity,
                    "kind": kind.name,
                    "file": finding.file.removeprefix("annotation file "),
                    "record": finding.record,
                    "image": finding.image,
                    "message": str(finding),
                }
                for kind, group in self.by_kind.items()
                for finding in group
            ],
        }


def check_dataset(
    name: str,
    root: str | Path,
    *,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    gallery_sizes: list[int] | None = None,
    with_images: bool = True,
    **options,
) -> DatasetCheck:
    """Check the annotation files of all splits, every gallery, the counts, and every image; progress is shown.

    Faults do not end the check: what is not at fault is still looked at. All files are read in processes of their own,
    so that one which crashes its reader is found too.

    Args:
        name: a dataset, see build_dataset.
        root: its folder.
        workers: processes that read.
        max_pixels: larger images are at fault.
        gallery_sizes: protocols to check; None takes all that are there or must be.
        with_images: decode the images too.
        options: of the dataset, see build_dataset.

    Raises:
        ValueError: an unknown dataset, option or gallery size, or `max_pixels` below 1.
    """
    reader = ImageReader(max_pixels)
    if not Path(root).is_dir():
        missing = Finding(findings.MISSING_FOLDER, f"{name}: no folder", str(root))
        return DatasetCheck(name, str(root), {split: {} for split in SPLITS}, 0, [missing])
    sizes = _sizes(name, Path(root), gallery_sizes)
    splits = _read_splits(name, str(root), options, workers)
    found = [finding for split in SPLITS for finding in splits[split].found]
    found += _differences(name, splits)
    found += _in_both(splits)
    # One at a time: the protocols of thousands of images fill gigabytes.
    galleries = [Part(name, str(root), options, size=size) for size in sizes]
    for _, contents in tqdm(read_parts(galleries, 1), desc="galleries", total=len(galleries), unit="file", leave=False):
        found += contents.found
    images = _each_file_once(splits) if with_images else []
    judged: dict[int, list[Finding]] = {}
    for number, of_image in tqdm(
        check_images(images, reader, workers), desc="images", total=len(images), unit="image", leave=False
    ):
        judged[number] = of_image
    found += [finding for number in sorted(judged) for finding in judged[number]]
    counts = {split: splits[split].counts for split in SPLITS}
    return DatasetCheck(name, str(root), counts, len(images), list(dict.fromkeys(found)))


def _sizes(name: str, root: Path, asked: list[int] | None) -> list[int | None]:
    known = class_of(name).sizes_to_check(root)
    unknown = [size for size in asked or () if size not in known]
    if unknown:
        shown = "has one gallery, of all images" if known == [None] else f"has {', '.join(map(str, known))}"
        raise ValueError(f"--gallery-size {unknown[0]}: {name} in {root} {shown}; leave the option out to check all")
    return known if asked is None else asked


def _read_splits(name: str, root: str, options: dict, workers: int) -> dict[str, Contents]:
    parts = [Part(name, root, options, split=split) for split in SPLITS]
    read = tqdm(read_parts(parts, min(workers, len(parts))), desc="splits", total=len(parts), unit="split", leave=False)
    return {part.split: contents for part, contents in read}


def _differences(name: str, splits: dict[str, Contents]) -> Iterator[Finding]:
    for split, published in PUBLISHED[name].items():
        counts = splits[split].counts
        for what, number in published.items():
            if counts and counts[what] != number:
                yield Finding(
                    findings.COUNTS_DIFFER,
                    f"the {split} split of {name}",
                    f"{counts[what]} where the published one has {number}",
                    what,
                )


def _in_both(splits: dict[str, Contents]) -> Iterator[Finding]:
    trained_on = {image.path for image in splits["train"].images}
    for image in splits["gallery"].images:
        if image.path in trained_on:
            yield Finding(findings.IN_BOTH, image.path, "is in the training and the gallery split", image=image.name)


def _each_file_once(splits: dict[str, Contents]) -> list[CheckedImage]:
    images: dict[str, CheckedImage] = {}
    for split in SPLITS:
        for image in [*splits[split].images, *splits[split].salvaged]:
            images.setdefault(image.path, CheckedImage(image.path, image.name)).boxes.extend(image.boxes)
    return list(images.values())
