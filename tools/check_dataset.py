"""Find all that is wrong with a dataset.

    python -m tools.check_dataset --name CUHK-SYSU --root data/cuhk_sysu

Reads every annotation file, protocol and image once, compares the counts with the published ones and lists what is
wrong. Ends with 1 where training or evaluation would be affected, else with 0.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/check_dataset.py`

from datasets import SPLITS, DatasetError, Fault, PersonSearchDataset, build_dataset, dataset_root
from datasets.annotation_file import NO_AREA, AnnotationFile
from datasets.build import DATASETS
from datasets.cuhk_files import read_protocol
from datasets.faults import ERROR, WARNING
from defaults import get_default_cfg
from tools.common import add_traceback_argument, new_parser, run_program
from utils.errors import UserError
from utils.files import write_json
from utils.images import MAX_PIXELS, ImageError, read_image
from utils.logging import format_table

COUNTS = ("images", "boxes", "identities", "queries")
PUBLISHED = {
    "CUHK-SYSU": {
        "train": {"images": 11206, "boxes": 55272, "identities": 5532},
        "gallery": {"images": 6978, "boxes": 40871},
        "query": {"queries": 2900},
    },
    "PRW": {
        # 483 identities in the files, though papers say 482.
        "train": {"images": 5704, "boxes": 18048, "identities": 483},
        "gallery": {"images": 6112, "boxes": 25062},
        "query": {"queries": 2057, "identities": 450},
    },
    # Its other counts are published in thousands only: 160 K images, 274 K boxes.
    "MovieNet-CS": {"train": {"identities": 3087}},
}
"""Counts of the published datasets by split, to recognise an incomplete copy. Boxes without area are among them."""


@dataclass
class DatasetCheck:
    """What a check found: by split, counts of images, boxes, identities and queries (a split that could not be read is
    missing), and the faults, each once, errors first."""

    name: str
    root: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    @property
    def num_errors(self) -> int:
        """Faults that would make training or scores fail or be wrong."""
        return sum(fault.severity == ERROR for fault in self.faults)


def main(args: argparse.Namespace) -> None:
    """Check as the arguments say; raises UserError where something is wrong."""
    for name, least in {"workers": 1, "show": 0, "max_pixels": 1}.items():
        if getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')} must be {least} or more, not {getattr(args, name)}")
    root = args.root or dataset_root(args.name, get_default_cfg().SYS_HOME_DIR)
    if not root.is_dir() and not args.root:
        raise UserError(
            f"{root} is no folder; it is where training looks, below SYS_HOME_DIR (option and environment variable): "
            "set that, or give --root FOLDER"
        )
    check = check_dataset(
        args.name,
        root,
        workers=args.workers,
        max_pixels=args.max_pixels,
        gallery_sizes=args.gallery_size,
        with_images=not args.no_images,
        **({"train_appearances": args.train_appearances} if args.name == "MovieNet-CS" else {}),
    )
    sys.stdout.write("\n".join(_summary(check, args.show)) + "\n")
    if args.json:
        write_json(args.json, asdict(check) | {"affected": check.num_errors > 0})
    if check.num_errors:
        raise UserError(
            f"{_counted(check.num_errors, 'fault')} of {check.root} would affect training or evaluation: see above"
        )


def check_dataset(
    name: str,
    root: str | Path,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    gallery_sizes: Sequence[int] | None = None,
    with_images: bool = True,
    **options: Any,
) -> DatasetCheck:
    """Check the annotation files of all splits, every gallery, the counts, and every image; progress is shown.

    Args:
        name, root, options: see build_dataset.
        workers: processes that decode images.
        max_pixels: larger images are faults.
        gallery_sizes: protocols to check; None takes all that are there or must be.
        with_images: decode the images too.

    Raises:
        UserError: an unknown gallery size.
    """
    protocols = DATASETS[name].protocol_files(Path(root))
    for size in gallery_sizes or ():
        if size not in protocols:
            sizes = ", ".join(map(str, protocols)) if None not in protocols else "one gallery, of all images"
            raise UserError(f"--gallery-size {size}: {name} in {root} has {sizes}; leave the option out to check all")
    check, faults, splits = DatasetCheck(name, str(root)), [], {}
    for split in SPLITS:
        try:
            splits[split] = build_dataset(name, root, split, max_pixels=max_pixels, faults=faults, **options)
        except DatasetError as error:
            faults += error.faults
    check.counts = {split: _counts(dataset, faults) for split, dataset in splits.items()}
    faults += [*_count_faults(name, check.counts), *_shared_images(splits)]
    for size in gallery_sizes or protocols:
        faults += _gallery_faults(splits, Path(root), size, protocols[size])
    if with_images:
        faults += _image_faults(splits.values(), max_pixels, workers)
    check.faults = sorted(dict.fromkeys(faults), key=lambda fault: fault.severity != ERROR)
    return check


def _counts(dataset: PersonSearchDataset, faults: list[Fault]) -> dict[str, int]:
    """Counts of a split; boxes without area, which were left out, are counted with its boxes."""
    if dataset.split == "query":
        return {"queries": len(dataset), "identities": dataset.num_identities}
    left_out = Counter(fault.image for fault in dict.fromkeys(faults) if fault.problem.endswith(NO_AREA))
    boxes = sum(len(annotation["boxes"]) + left_out[annotation["img_name"]] for annotation in dataset.annotations)
    return {"images": len(dataset), "boxes": boxes, "identities": dataset.num_identities}


def _published(name: str, counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Counts of the published dataset, for a dataset half to twice as large: others are no copies of it."""
    published = PUBLISHED[name]
    what, number = next(iter(published["train"].items()))
    return published if number / 2 < counts.get("train", {}).get(what, 0) < number * 2 else {}


def _count_faults(name: str, counts: dict[str, dict[str, int]]) -> Iterator[Fault]:
    published, advice = _published(name, counts), "unpack the dataset again, unless it is your own"
    for split, of_split in counts.items():
        for what, number in published.get(split, {}).items():
            if of_split[what] != number:
                problem = f"has {of_split[what]} {what} where the published one has {number}"
                yield Fault(f"the {split} split", problem, severity=WARNING, advice=advice)
    if counts.get("train", {}).get("identities") == 0:
        yield Fault("the train split", "has no identities", advice="training needs people with ids of 1 and up")


def _shared_images(splits: dict[str, PersonSearchDataset]) -> Iterator[Fault]:
    if "train" in splits and "gallery" in splits:
        for name in sorted(splits["train"].image_index.keys() & splits["gallery"].image_index.keys()):
            advice = "scores would be too good: leave it out of one"
            yield Fault(name, "is in the train and the gallery split", "", name, WARNING, advice)


def _gallery_faults(
    splits: dict[str, PersonSearchDataset], root: Path, size: int | None, protocol: Path | None
) -> list[Fault]:
    """Faults of the galleries of a size; of its protocol file alone, where splits could not be read."""
    faults: list[Fault] = []
    try:
        if "gallery" in splits and "query" in splits:
            queries = splits["query"]
            for index, gallery in enumerate(queries.galleries(splits["gallery"], size)):
                if not gallery.num_present:
                    problem = f"the gallery{f' of {size} images' if size else ''} never shows the person"
                    advice = "the query is left out of the scores"
                    faults.append(queries.fault(index, problem, severity=WARNING, advice=advice))
        elif protocol is not None:
            read_protocol(AnnotationFile(protocol, faults), root)
    except DatasetError as error:
        faults += error.faults
    return faults


def _image_faults(splits: Iterable[PersonSearchDataset], max_pixels: int, workers: int) -> Iterator[Fault]:
    """Decode the images in processes of their own: one that crashes or is killed does not end the program."""
    annotated: dict[str, list[tuple[PersonSearchDataset, int]]] = {}
    for dataset in splits:
        for index, annotation in enumerate(dataset.annotations):
            annotated.setdefault(annotation["img_path"], []).append((dataset, index))
    paths, num_read = list(annotated), 0
    with ProcessPoolExecutor(workers) as pool:
        sizes = pool.map(partial(_image_size, max_pixels=max_pixels), paths, chunksize=8)
        try:
            for size in tqdm(sizes, desc="images", total=len(paths), unit="image", leave=False):
                annotations, num_read = annotated[paths[num_read]], num_read + 1
                if isinstance(size, str):
                    (dataset, index), (problem, _, advice) = annotations[0], size.rpartition(": ")
                    yield dataset.fault(index, problem, advice=advice)
                else:
                    for dataset, index in annotations:
                        yield from dataset.boxes_outside(index, *size)
        except BrokenProcessPool:
            problem = f"were not checked, {paths[num_read]} and on: a process that decodes them was killed or crashed"
            advice = "check with fewer --workers if memory ran out; else one of the next images crashes the decoder"
            yield Fault(f"{len(paths) - num_read} images", problem, advice=advice)


def _image_size(path: str, max_pixels: int) -> tuple[int, int] | str:
    """Width and height of an image, which is decoded whole so that damage shows; or what is wrong with it."""
    try:
        height, width = read_image(path, max_pixels).shape[:2]
    except ImageError as error:
        return str(error)
    return width, height


def _summary(check: DatasetCheck, show: int) -> list[str]:
    """Lines with the counts of the splits, and the first `show` faults of each severity and advice."""
    rows, published = [], _published(check.name, check.counts)
    for split in SPLITS:
        counts = check.counts.get(split)
        if counts is None:
            rows.append({"split": split, COUNTS[0]: "not read"} | dict.fromkeys(COUNTS[1:], "-"))
            continue
        numbers = published.get(split, {}).items()
        other = {what: f" (published {number})" for what, number in numbers if counts[what] != number}
        rows.append({"split": split} | {what: f"{counts.get(what, '-')}{other.get(what, '')}" for what in COUNTS})
    lines = [f"{check.name} in {check.root}", "", format_table(rows), ""]
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in check.faults:
        groups.setdefault((fault.severity, fault.advice), []).append(fault)
    for (severity, advice), faults in groups.items():
        lines.append(f"{_counted(len(faults), severity)}: {advice}")
        lines += [f"    {fault.fact.replace(os.path.join(check.root, ''), '')}" for fault in faults[:show]]  # noqa: PTH118
        lines += [f"    ... and {len(faults) - show} more"] if len(faults) > show else []
    warnings = len(check.faults) - check.num_errors
    lines.append(f"{_counted(check.num_errors, ERROR)}, {_counted(warnings, WARNING)}")
    return lines


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    cfg = get_default_cfg()
    parser = new_parser("check_dataset", __doc__)
    add = parser.add_argument
    add("--name", required=True, choices=list(DATASETS), help="whose format it has")
    add("--root", type=Path, metavar="FOLDER", help="the dataset's folder (default: where training looks for it)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that decode images (default: %(default)s)")
    add("--max-pixels", type=int, default=cfg.INPUT.MAX_PIXELS, help="see INPUT.MAX_PIXELS (default: %(default)s)")
    appearances = "MovieNet-CS: which Train_appN.mat (default: %(default)s)"
    add("--train-appearances", type=int, default=cfg.INPUT.TRAIN_APPEARANCES, metavar="N", help=appearances)
    sizes = "protocols to check (default: all that are there, or must be)"
    add("--gallery-size", type=int, nargs="+", metavar="N", help=sizes)
    add("--no-images", action="store_true", help="check the annotation files alone")
    add("--show", type=int, default=5, metavar="N", help="faults shown of each kind (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all faults there")
    add_traceback_argument(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
