"""Draw a person-search dataset in the on-disk format of CUHK-SYSU, PRW or MovieNet-CS.

    python -m tools.make_synthetic --out data/synthetic --format cuhk_sysu --seed 1

Every option of `SyntheticConfig` is an option here. The same options give the same bytes, whatever --workers is.
"""

import argparse
import dataclasses
import sys
import time

from datasets.synthetic.build import build_synthetic
from datasets.synthetic.config import SyntheticConfig
from datasets.writers import FORMATS
from tools.common import add_traceback_argument, run_program


def parse_args(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.make_synthetic", description=__doc__.splitlines()[0])
    add_traceback_argument(parser)
    parser.add_argument("--out", required=True, help="folder of the dataset; its image folder must be empty")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    for field in dataclasses.fields(SyntheticConfig):
        kind = type(field.default)
        option = {"type": float, "nargs": 2} if kind is tuple else {"type": kind}
        if field.name == "format":
            option["choices"] = FORMATS
        shown = " ".join(map(str, field.default)) if kind is tuple else field.default
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", default=field.default, help=f"default {shown}", **option
        )
    return parser.parse_args(argv)


def main(args):
    """Draw as the arguments say, and tell what came of it."""
    start = time.perf_counter()
    options = {field.name: getattr(args, field.name) for field in dataclasses.fields(SyntheticConfig)}
    config = SyntheticConfig(**{**options, "person_height": tuple(args.person_height)})
    _report(build_synthetic(config, args.out, args.workers), args.out, time.perf_counter() - start)


def _report(summary, out, seconds):
    lines = [f"{out}: {summary['config']['format']}, {summary['queries']} queries"]
    for split, figures in summary["context"].items():
        lines.append(
            f"  {split}: {figures['images']} images, {figures['boxes']} boxes, {figures['identities']} identities; "
            f"seen with their group {figures['together']:.0%} (by chance {figures['together_by_chance']:.0%}), "
            f"at their own cameras {figures['at_home']:.0%} (by chance {figures['at_home_by_chance']:.0%})"
        )
    images = sum(figures["images"] for figures in summary["context"].values())
    lines.append(f"  {seconds:.1f} s, {1000 * seconds / images:.0f} ms an image")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
