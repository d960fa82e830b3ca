"""Measure speed and memory on this machine: python -m tools.benchmark [inference] [training] [evaluation] ..."""

import argparse
import logging
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from engine.solver import PRECISIONS
from models import build_model
from tools.benchmark_cases import Case, Result
from tools.benchmark_inputs import WORLDS
from tools.benchmark_machine import describe_machine
from tools.benchmark_network import options_of
from tools.benchmark_runs import PARTS, run_rounds
from tools.benchmark_tables import tables_of
from tools.benchmark_variants import VARIANTS
from tools.common import add_config_arguments, resolve_device, run_program
from utils.files import write_json
from utils.logging import format_table, set_up_logging

log = logging.getLogger("benchmark")

DEFAULT_CFG = "configs/prw.yaml"
IMAGE_SIZE = (900, 1500)
VARIANTS_BY_DEFAULT = ("release", "straightforward", "channels-last", "fast")
BATCH_SIZES = {"cpu": (1, 3), "cuda": (1, 3, 16)}
USUAL_PRECISIONS = {"cpu": ("off", "bf16"), "cuda": ("off", "fp16", "bf16")}
REPEAT = {
    "cpu": {"inference": 3, "training": 1, "evaluation": 1},
    "cuda": {"inference": 20, "training": 20, "evaluation": 1},
}
"""Samples of each process."""
SLOW_PIXELS = 1_000_000
"""Pixels of a training batch from which a CPU takes its time."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark",
        description=__doc__.partition(":")[0],
        usage="%(prog)s [inference] [training] [evaluation] [KEY VALUE ...] [options]",
        epilog="Without inference, training or evaluation all three are measured. Variants: "
        + "; ".join(f"{name}: {variant.help}" for name, variant in VARIANTS.items()),
    )
    several = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--variants", choices=VARIANTS, default=VARIANTS_BY_DEFAULT, **several, help="of the network")
    parser.add_argument("--precisions", choices=PRECISIONS, **several, help=f"of {', '.join(PRECISIONS)}")
    parser.add_argument("--batch-sizes", type=_positive, nargs="+", metavar="N", help="images of a pass of inference")
    parser.add_argument(
        "--image-size", type=_positive, nargs=2, default=IMAGE_SIZE, metavar=("H", "W"), help="pixels; default 900 1500"
    )
    parser.add_argument("--galleries", choices=WORLDS, default=("prw",), **several, help="of evaluation")
    parser.add_argument(
        "--loops", action="store_true", help="score search by loops over images too, as published code does: minutes"
    )
    parser.add_argument("--repeat", type=_positive, metavar="N", help="samples that each process takes")
    parser.add_argument("--rounds", type=_positive, default=3, metavar="N", help="processes of each case, default 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples included, to FILE")
    add_config_arguments(parser, default=DEFAULT_CFG)
    args = parser.parse_intermixed_args(argv)
    count = next((i for i, word in enumerate(args.opts) if word not in PARTS), len(args.opts))
    args.parts, args.opts = args.opts[:count] or list(PARTS), args.opts[count:]
    return args


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def plan(args: argparse.Namespace) -> tuple[list[Case], torch.device]:
    """The cases that the arguments ask for, and the device of the option DEVICE.

    Raises:
        ValueError, KeyError, OSError: options that no network can be built from.
    """
    shared = {"cfg": str(args.cfg), "opts": tuple(args.opts), "image_size": tuple(args.image_size)}
    cfg = options_of(Case("inference", "", **shared))
    device = resolve_device(cfg.DEVICE)
    build_model(cfg)  # what is wrong with the options is told once, not by every case
    kind = "cuda" if device.type == "cuda" else "cpu"
    precisions = args.precisions or USUAL_PRECISIONS[kind]
    inference = product(args.batch_sizes or BATCH_SIZES[kind], precisions, args.variants)
    networks = {
        "inference": [(variant, name, size) for size, name, variant in inference],
        "training": [
            (variant, name, cfg.INPUT.BATCH_SIZE_TRAIN)
            for name, variant in product(precisions, args.variants)
            if not VARIANTS[variant].compiled
        ],
        "evaluation": [(gallery, "off", 0) for gallery in args.galleries],
    }
    cases = [
        Case(part, name, precision=dtype, batch_size=size, repeat=args.repeat or REPEAT[kind][part], **shared)
        for part in PARTS
        if part in args.parts
        for name, dtype, size in networks[part]
    ]
    if args.loops:
        cases += [replace(case, loops=True, repeat=1) for case in cases if case.part == "evaluation"]
    return cases, device


def _note_slow(cases: list[Case], device: torch.device) -> None:
    pixels = [case.batch_size * case.image_size[0] * case.image_size[1] for case in cases if case.part == "training"]
    if device.type == "cpu" and max(pixels, default=0) > SLOW_PIXELS:
        log.info("a training step of this size may take a minute on a CPU: --image-size 288 480 is smaller")


def report(args: argparse.Namespace, machine: dict, results: list[Result]) -> dict:
    """What `--json` writes: the machine, the settings, the tables as shown, and each case with its raw samples."""
    return {
        "machine": machine,
        "settings": {"cfg": str(args.cfg), "opts": args.opts, "image_size": list(args.image_size)},
        "tables": tables_of(results),
        "cases": [result.as_json() for result in results],
    }


def main(args: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    set_up_logging()
    cases, device = plan(args)
    machine = describe_machine(device)
    _note_slow(cases, device)

    def save(results: list[Result]) -> None:
        if args.json:
            write_json(args.json, report(args, machine, results))

    save([])  # a file that cannot be written is told of before the work
    results = run_rounds(cases, args.rounds, save)
    height, width = args.image_size
    sys.stdout.write(f"\n{args.cfg} {' '.join(args.opts)}, images of {height} x {width}\n")
    sys.stdout.writelines(f"{name}: {value}\n" for name, value in machine.items())
    for title, rows in tables_of(results).items():
        sys.stdout.write(f"\n{title}\n{format_table(rows)}\n")
    if args.json:
        log.info("written to %s", args.json)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
