"""What the command-line programs share: arguments, options, and errors as one sentence.

Programs import PyTorch, and what imports it, within their `main`: that takes seconds, in which `--help` would wait.
"""

import argparse
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from utils.allocator import keep_freed_memory
from utils.errors import DivergedError, UserError
from utils.openmp import yield_to_other_programs
from utils.signals import StoppedError

if TYPE_CHECKING:
    from yacs.config import CfgNode

FAILED, DIVERGED, STOPPED, INTERRUPTED = 1, 70, 75, 130
"""Exit codes: an error, diverged training, training stopped by a signal after saving, Ctrl-C in other programs."""

OWN_PACKAGES = ("datasets", "defaults", "engine", "models", "tools", "utils")
INSTALL = "activate the project's environment (. .venv/bin/activate), or pip install -r requirements.txt"

PRINTED = (UserError, OSError, DivergedError)
"""Errors that are printed as one sentence."""

OUT_OF_MEMORY = (
    "memory does not suffice: in training lower INPUT.BATCH_SIZE_TRAIN and raise SOLVER.ACCUMULATE instead, use "
    "SOLVER.AMP bf16 or MODEL.BACKBONE.CHECKPOINT_TAILS True; in testing lower INPUT.BATCH_SIZE_TEST"
)
REMEDY = (
    ". Take a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_EPOCHS or another SOLVER.AMP; --resume continues from the "
    "last checkpoint, where there is one"
)
"""Added to the message of DivergedError."""


def new_parser(name: str, description: str, **more: object) -> argparse.ArgumentParser:
    """The parser of `python -m tools.NAME`, whose help begins with the module's docstring as it is written.

    Args:
        more: further arguments of ArgumentParser.
    """
    return argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )


def add_config_arguments(parser: argparse.ArgumentParser, **cfg: object) -> None:
    """Add the arguments of programs that build a network; `cfg` goes to `add_argument` of --cfg, as `required=True`."""
    parser.add_argument("--cfg", help="config file, see configs/", **cfg)
    add_traceback_argument(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="options over the config's, see defaults.py")


def add_traceback_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument that `run_program` reads."""
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error comes from")


def positive_int(text: str) -> int:
    """An argument that is 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def load_options(args: argparse.Namespace) -> "CfgNode":
    """The options of `add_config_arguments`; UserError for one that does not exist or is out of range."""
    from defaults import load_cfg

    return check_options(load_cfg(args.cfg, args.opts))


def check_options(cfg: "CfgNode") -> "CfgNode":
    """The same options; UserError for one that is out of range, or that the family of the network does not have."""
    from defaults import RANGES
    from engine.networks import check_family_options
    from engine.solver import precision
    from utils.options import check_ranges

    check_ranges(cfg, RANGES)
    precision(cfg.SOLVER.AMP, "SOLVER.AMP")
    precision(cfg.EVAL.AMP, "EVAL.AMP")
    check_family_options(cfg)
    return cfg


def run_program(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run a program; its exit code: 0, or one of those above after the reason was printed in one sentence.

    Errors of the user or the system, a lack of memory and stops are printed so; others are bugs, and raised.
    """
    yield_to_other_programs()  # before torch is imported
    keep_freed_memory()
    try:
        main(args)
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] in OWN_PACKAGES:
            raise
        sys.stderr.write(f"error: {error.name} is not installed for {sys.executable}: {INSTALL}\n")
        return FAILED
    except (*PRINTED, MemoryError, RuntimeError) as error:
        lacks_memory = _lacks_memory(error)
        if not lacks_memory and not isinstance(error, PRINTED):
            raise
        if args.traceback:
            traceback.print_exc()
        diverged = isinstance(error, DivergedError)
        sys.stderr.write(f"error: {OUT_OF_MEMORY if lacks_memory else _message(error)}{REMEDY if diverged else ''}\n")
        return DIVERGED if diverged else FAILED
    except StoppedError as stop:
        sys.stderr.write(f"stopped by {stop}: the same command with --resume continues\n")
        return STOPPED
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return INTERRUPTED
    return 0


def _lacks_memory(error: Exception) -> bool:
    """Whether CUDA, PyTorch's CPU allocator or Python could not allocate."""
    words = ("can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
    of_cuda = type(error).__name__ == "OutOfMemoryError"  # torch's
    return (
        of_cuda
        or isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))
    )


def _message(error: Exception) -> str:
    """An error's message, without the traceback that DataLoader puts before an error of its workers."""
    text = str(error)
    return text.strip().splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text
