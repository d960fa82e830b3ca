"""What the command-line programs share: options, devices, datasets, and errors as one sentence."""

import argparse
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
from yacs.config import CfgNode

from datasets import PersonSearchDataset, build_dataset, dataset_root
from defaults import load_cfg
from engine.skips import DivergedError
from engine.solver import precision
from utils.allocator import keep_freed_memory
from utils.signals import StoppedError

USER_ERRORS = (ValueError, KeyError, OSError, DivergedError)
"""What a wrong option, file or dataset raises; each message names it and says what to do."""
FAILED, DIVERGED, STOPPED, INTERRUPTED = 1, 70, 75, 130
"""Exit codes: an error, training that diverged, a stop in good order by a signal, and Ctrl-C elsewhere."""


def add_config_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The arguments of every program that builds a network; without a default config one must be named."""
    note = f", default {default}" if default else ""
    parser.add_argument("--cfg", required=not default, default=default, help=f"config file, see configs/{note}")
    add_traceback_argument(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="options over the config's, see defaults.py")


def add_traceback_argument(parser: argparse.ArgumentParser) -> None:
    """The argument of every program that `run_program` reads."""
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error comes from")


def run_program(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Run a program; its exit code: 0, or one of those above, after the reason was told in one sentence."""
    keep_freed_memory()
    try:
        main(args)
    except USER_ERRORS as error:
        if args.traceback:
            traceback.print_exc()
        sys.stderr.write(f"error: {_message(error)}\n")
        return DIVERGED if isinstance(error, DivergedError) else FAILED
    except StoppedError as stop:
        sys.stderr.write(f"stopped by {stop}: the same command with --resume goes on\n")
        return STOPPED
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return INTERRUPTED
    return 0


def _message(error: Exception) -> str:
    """An error's own sentence, without the traceback that a loader's worker process puts before it."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text.strip().splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text


def load_options(args: argparse.Namespace) -> CfgNode:
    """The options of `add_config_arguments`."""
    return load_cfg(args.cfg, args.opts)


def check_least(option: str, value: float, least: int) -> None:
    """Raise ValueError, which names the option, where its value is below `least`."""
    if value < least:
        raise ValueError(f"{option} must be {least} or more, not {value}")


def check_evaluation_options(cfg: CfgNode) -> None:
    """Refuse what would fail only when the network, or the scoring, begins."""
    check_least("INPUT.BATCH_SIZE_TEST", cfg.INPUT.BATCH_SIZE_TEST, 1)
    check_least("INPUT.NUM_WORKERS", cfg.INPUT.NUM_WORKERS, 0)
    check_least("INPUT.MIN_SIZE", cfg.INPUT.MIN_SIZE, 1)
    check_least("INPUT.MAX_SIZE", cfg.INPUT.MAX_SIZE, 1)
    check_least("EVAL.BLOCK_MB", cfg.EVAL.BLOCK_MB, 0)
    check_least("SEED", cfg.SEED, 0)
    precision(cfg.EVAL.AMP, "EVAL.AMP")


def resolve_device(name: str) -> torch.device:
    """The device of the option DEVICE; "auto" takes CUDA where there is one.

    Raises:
        ValueError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"DEVICE {name!r} is not a device: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"DEVICE {name} is not on this machine, which has {torch.cuda.device_count()} CUDA devices")
    return device


@dataclass
class Splits:
    """The three splits of the dataset."""

    train: PersonSearchDataset
    gallery: PersonSearchDataset
    query: PersonSearchDataset


def open_split(cfg: CfgNode, split: str) -> PersonSearchDataset:
    """One split of the dataset that the options name."""
    name = cfg.INPUT.DATASET
    options = {"train_appearances": cfg.INPUT.TRAIN_APPEARANCES} if name == "MovieNet-CS" else {}
    root = dataset_root(name, cfg.SYS_HOME_DIR, cfg.INPUT.DATA_ROOT)
    return build_dataset(name, root, split, max_pixels=cfg.INPUT.MAX_PIXELS, **options)


def with_identities(cfg: CfgNode, num_identities: int) -> CfgNode:
    """The options with MODEL.OIM.NUM_IDS filled in from the training set where it is 0.

    Raises:
        ValueError: the table is smaller than the training set's identities.
    """
    asked = cfg.MODEL.OIM.NUM_IDS
    if asked and asked < num_identities:
        raise ValueError(
            f"MODEL.OIM.NUM_IDS is {asked}, but the training set has {num_identities} identities; 0 fits it"
        )
    filled = cfg.clone()
    filled.defrost()
    filled.MODEL.OIM.NUM_IDS = asked or num_identities
    filled.freeze()
    return filled
