"""Draw a person-search dataset in the on-disk format of CUHK-SYSU, PRW or MovieNet-CS.

    python -m tools.make_synthetic --out data/synthetic --format cuhk_sysu --seed 1

The same options give the same bytes, whatever --workers is.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/make_synthetic.py`

from datasets.synthetic.build import build_synthetic
from datasets.synthetic.config import SyntheticConfig
from datasets.writers import FORMATS
from tools.common import add_traceback_argument, new_parser, run_program


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = new_parser("make_synthetic", __doc__)
    add_traceback_argument(parser)
    parser.add_argument("--out", required=True, help="folder of the dataset, new or empty")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    for field in dataclasses.fields(SyntheticConfig):
        several = isinstance(field.default, tuple)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=float if several else type(field.default),
            nargs=len(field.default) if several else None,
            choices=FORMATS if field.name == "format" else None,
            default=field.default,
            help=f"{field.metadata['help']} Default {' '.join(map(str, field.default)) if several else field.default}.",
        )
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Draw as the arguments say, and print a summary."""
    start = time.perf_counter()
    options = {field.name: getattr(args, field.name) for field in dataclasses.fields(SyntheticConfig)}
    summary = build_synthetic(SyntheticConfig(**options), args.out, args.workers)
    seconds = time.perf_counter() - start
    lines = [f"{args.out}: {summary['config']['format']}, {summary['queries']} queries"]
    for split, figures in summary["context"].items():
        lines.append(
            f"  {split}: {figures['images']} images, {figures['boxes']} boxes, {figures['identities']} identities; "
            f"seen with their group {figures['together']:.0%} (random: {figures['together_by_chance']:.0%}), "
            f"at their own cameras {figures['at_home']:.0%} (random: {figures['at_home_by_chance']:.0%})"
        )
    images = sum(figures["images"] for figures in summary["context"].values())
    lines.append(f"  {seconds:.1f} s, {1000 * seconds / images:.0f} ms an image")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
