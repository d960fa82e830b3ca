"""Find all that is wrong with a dataset: python -m tools.check_dataset --name CUHK-SYSU --root FOLDER

Reads every annotation file, protocol and image once, compares the counts with the published ones and lists what is
wrong. Ends with 1 where training or evaluation would be affected, or where something could not be checked, else with 0.
"""

import argparse
import os
import sys
from pathlib import Path

from datasets.build import DATASETS, dataset_root
from datasets.check import DatasetCheck, check_dataset
from datasets.check.published import PUBLISHED
from datasets.findings import DatasetError, Finding
from defaults import get_default_cfg
from tools.common import add_traceback_argument, run_program
from utils.files import write_json
from utils.logging import format_table

COUNTS = ("images", "boxes", "identities", "queries")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    cfg = get_default_cfg()
    parser = argparse.ArgumentParser(prog="python -m tools.check_dataset", description=__doc__.partition(":")[0])
    add = parser.add_argument
    add("--name", required=True, choices=list(DATASETS), help="whose format it has")
    add("--root", type=Path, metavar="FOLDER", help="the dataset's folder (default: where training looks for it)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that read (default: %(default)s)")
    add("--max-pixels", type=int, default=cfg.INPUT.MAX_PIXELS, help="see INPUT.MAX_PIXELS (default: %(default)s)")
    add(
        "--train-appearances",
        type=int,
        default=cfg.INPUT.TRAIN_APPEARANCES,
        metavar="N",
        help="MovieNet-CS: which Train_appN.mat (default: %(default)s)",
    )
    add(
        "--gallery-size",
        type=int,
        nargs="+",
        metavar="N",
        help="protocols to check (default: all that are there, or must be)",
    )
    add("--no-images", action="store_true", help="check the annotation files alone")
    add("--show", type=int, default=5, metavar="N", help="findings shown of each kind (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all findings there")
    add_traceback_argument(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Check as the arguments say; raises DatasetError where something is wrong, or could not be checked."""
    for option, value, least in (("--workers", args.workers, 1), ("--show", args.show, 0)):
        if value < least:
            raise ValueError(f"{option} must be {least} or more, not {value}")
    cfg = get_default_cfg()
    check = check_dataset(
        args.name,
        args.root or dataset_root(args.name, cfg.SYS_HOME_DIR),
        workers=args.workers,
        max_pixels=args.max_pixels,
        gallery_sizes=args.gallery_size,
        with_images=not args.no_images,
        **({"train_appearances": args.train_appearances} if args.name == "MovieNet-CS" else {}),
    )
    _print(check, args.show)
    if args.json:
        write_json(args.json, check.as_json())
    told = [f"{check.num_errors} faults of {check.root} affect training or evaluation"] if check.num_errors else []
    told += [f"{check.num_unchecked} files or parts of {check.root} not checked"] if check.num_unchecked else []
    if told:
        raise DatasetError(f"{', '.join(told)}: see above")


def _print(check: DatasetCheck, show: int) -> None:
    rows = []
    for split, counts in check.counts.items():
        published = PUBLISHED[check.name].get(split, {})
        rows.append({"split": split} | {what: _beside(counts.get(what), published.get(what)) for what in COUNTS})
    lines = [f"{check.name} in {check.root}: {check.images_read} images read", "", format_table(rows), ""]
    for kind, group in check.by_kind.items():
        lines.append(f"{kind.severity}: {len(group)} {kind.name}; {kind.advice}")
        lines += [f"    {_short(finding, check.root)}" for finding in group[:show]]
        if len(group) > show:
            lines.append(f"    ... and {len(group) - show} more")
    severities = [kind.severity for kind, group in check.by_kind.items() for _ in group]
    lines += ["", ", ".join(f"{severities.count(name)} {name}s" for name in ("error", "warning", "note"))]
    sys.stdout.write("\n".join(lines) + "\n")


def _short(finding: Finding, root: str) -> str:
    """A finding on one line, files named from the dataset's folder on."""
    return finding.fact.removeprefix("annotation file ").replace(os.path.join(root, ""), "")  # noqa: PTH118


def _beside(counted: int | None, published: int | None) -> str:
    """A count, and the published one where it is another."""
    if counted is None:
        return "-"
    return str(counted) if published in (None, counted) else f"{counted} (published {published})"


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
