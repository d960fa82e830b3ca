"""Find all that is wrong with a dataset: python -m tools.check_dataset --name CUHK-SYSU --root FOLDER

Reads every annotation file, protocol and image once, compares the counts with the published ones and lists what is
wrong. Ends with 1 where training or evaluation would be affected, else with 0.
"""

import argparse
import os
import sys
from pathlib import Path

from datasets.build import DATASETS, dataset_root
from datasets.check import PUBLISHED, DatasetCheck, check_dataset
from datasets.faults import Fault
from defaults import get_default_cfg
from tools.common import add_traceback_argument, run_program
from utils.errors import UserError
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


def main(args: argparse.Namespace) -> None:
    """Check as the arguments say; raises UserError where something is wrong."""
    for option, value, least in (("--workers", args.workers, 1), ("--show", args.show, 0)):
        if value < least:
            raise UserError(f"{option} must be {least} or more, not {value}")
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
    sys.stdout.write("\n".join(_summary(check, args.show)) + "\n")
    if args.json:
        write_json(args.json, check.as_json())
    if check.num_errors:
        raise UserError(f"{check.num_errors} faults of {check.root} affect training or evaluation: see above")


def _summary(check: DatasetCheck, show: int) -> list[str]:
    """Lines with the counts of the splits, and the first `show` faults of each severity and advice."""
    rows = []
    for split, counts in check.counts.items():
        published = PUBLISHED[check.name].get(split, {})
        rows.append({"split": split} | {what: _count(counts.get(what), published.get(what)) for what in COUNTS})
    lines = [f"{check.name} in {check.root}", ""]
    lines += [format_table(rows), ""] if rows else []
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in check.faults:
        groups.setdefault((fault.severity, fault.advice), []).append(fault)
    for (severity, advice), faults in groups.items():
        lines.append(f"{severity}, {len(faults)} times: {advice}")
        lines += [f"    {fault.fact.replace(os.path.join(check.root, ''), '')}" for fault in faults[:show]]  # noqa: PTH118
        lines += [f"    ... and {len(faults) - show} more"] if len(faults) > show else []
    lines.append(f"{check.num_errors} errors, {len(check.faults) - check.num_errors} warnings")
    return lines


def _count(counted: int | None, published: int | None) -> str:
    """A count, and the published one where it is another."""
    if counted is None:
        return "-"
    return str(counted) if published in (None, counted) else f"{counted} (published {published})"


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
