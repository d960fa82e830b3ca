"""Measure speed and memory of networks, and the time of scoring, on this machine.

    python -m tools.benchmark inference MODEL.BACKBONE.NAME convnext_tiny --batch-sizes 1 --json speed.json

Without inference, training or evaluation all three are measured. No dataset and no weights are needed.
"""

import argparse
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python tools/benchmark`

from tools.benchmark.case import PARTS, SIZES, VARIANTS, Case, Figures
from tools.common import add_config_arguments, new_parser, run_program
from utils.files import write_json

SPEEDS = ("images/s", "steps/s")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `parts` holds the first words, `opts` the options after them."""
    parser = new_parser(
        "benchmark",
        __doc__,
        usage="%(prog)s [inference] [training] [evaluation] [KEY VALUE ...] [options]",
    )
    names = {"nargs": "+", "metavar": "NAME"}
    variants = f"of {', '.join(VARIANTS)}, see tools/README.md"
    parser.add_argument("--variants", choices=VARIANTS, default=VARIANTS[:-1], **names, help=variants)
    precisions = "of off, fp16, bf16; default off and bf16"
    parser.add_argument("--precisions", default=("off", "bf16"), **names, help=precisions)
    batch_sizes = "images of a pass of inference, default 1 and 3"
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=(1, 3), metavar="N", help=batch_sizes)
    parser.add_argument("--image-size", type=int, nargs=2, default=(900, 1500), metavar=("H", "W"), help="pixels")
    parser.add_argument("--galleries", choices=SIZES, default=["prw"], **names, help=f"of {', '.join(SIZES)}")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which a process repeats its work, default 10")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="how often all is measured, default 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples included, to FILE")
    add_config_arguments(parser, default="configs/prw.yaml")
    args = parser.parse_intermixed_args(argv)
    if min([*args.image_size, *args.batch_sizes, args.rounds]) < 1:
        parser.error("--batch-sizes, --image-size and --rounds must be 1 or more")
    count = next((index for index, word in enumerate(args.opts) if word not in PARTS), len(args.opts))
    args.parts, args.opts = args.opts[:count] or list(PARTS), args.opts[count:]
    return args


def plan(args: argparse.Namespace) -> list[Case]:
    """The requested cases; UserError for options that are wrong."""
    from engine.devices import select_device
    from engine.solver import precision
    from models import build_model
    from tools.benchmark.network import options_of

    for name in args.precisions:
        precision(name, "--precisions")
    first = Case("", "", args.cfg, tuple(args.opts), tuple(args.image_size), seconds=args.seconds)
    cfg = options_of(first)
    select_device(cfg.DEVICE)
    build_model(cfg)  # wrong options are reported once, not by every case
    trained = [name for name in args.variants if name != "compiled"]
    combinations = {
        "inference": product(args.batch_sizes, args.precisions, args.variants),
        "training": product([cfg.INPUT.BATCH_SIZE_TRAIN], args.precisions, trained),
        "evaluation": product([1], ["off"], args.galleries),
    }
    return [
        replace(first, part=part, name=name, precision=dtype, batch_size=size)
        for part in PARTS
        if part in args.parts
        for size, dtype, name in combinations[part]
    ]


def describe(figures: Figures, first: float | None) -> str:
    """Medians, of several samples with the lowest and the highest, and the ratio of a speed to the first one."""
    cells = []
    for name, samples in figures.items():
        if isinstance(samples, str):
            return samples
        middle, *ends = (
            f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in (median(samples), min(samples), max(samples))
        )
        cells.append(f"{name} {middle}" + (f" [{', '.join(ends)}]" if len(samples) > 1 else ""))
        if name in SPEEDS:
            cells.append(f"times the first {median(samples) / first:.2f}")
    return ", ".join(cells)


def describe_machine() -> dict[str, str]:
    """Processor, devices and versions; `load`: processes that run or wait, mean of the last minute."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": f"{found[1] if found else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores, threads": f"{os.cpu_count()}, {torch.get_num_threads()}",
        "GPU": f"{gpu}, CUDA {torch.version.cuda}, TF32 in convolutions {torch.backends.cudnn.allow_tf32}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def main(args: argparse.Namespace) -> None:
    """Measure, and print each result as it comes."""
    from tools.benchmark.processes import measure_apart

    cases, machine, results = plan(args), describe_machine(), []
    sys.stdout.write(f"{' '.join([args.cfg, *args.opts])}, images of {' x '.join(map(str, args.image_size))}\n")
    sys.stdout.writelines(f"{name}: {value}\n" for name, value in machine.items())
    for _ in range(args.rounds):
        first: dict[tuple[str, int], float] = {}
        for case in cases:
            figures = measure_apart(case)
            for speed in [median(figures[name]) for name in SPEEDS if name in figures]:
                first.setdefault((case.part, case.batch_size), speed)
            sys.stdout.write(f"{case}: {describe(figures, first.get((case.part, case.batch_size)))}\n")
            sys.stdout.flush()
            results.append(asdict(case) | {"figures": figures})
            if args.json:
                write_json(args.json, {"machine": machine, "cases": results})


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
