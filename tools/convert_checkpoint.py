"""Look into a checkpoint, or write it as this project's: python -m tools.convert_checkpoint IN [OUT] [--half] ..."""

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from defaults import load_cfg, read_cfg
from engine.checkpoint import COUNTERS, TABLES, fit_weights, read_checkpoint, save_checkpoint
from engine.weights import Weights, identify
from models import build_model
from tools.common import add_traceback_argument, run_program
from utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
BUFFERS = ("running_mean", "running_var", *COUNTERS, *TABLES)
"""Ends of the keys that are not parameters."""
SIZED_TABLES = {
    "lut": ("search_head.oim.lut", "MODEL.OIM.NUM_IDS"),
    "cq": ("search_head.oim.cq", "MODEL.OIM.QUEUE_SIZE"),
}
"""Identity tables: name -> key, and the option that holds their number of rows."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.convert_checkpoint", description=__doc__.partition(":")[0])
    parser.add_argument("source", type=Path, metavar="IN", help="checkpoint of this project or of a known release")
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="file to write (default: tell what IN holds)")
    parser.add_argument("--strip", action="store_true", help="leave out optimiser state and identity tables")
    parser.add_argument("--half", action="store_true", help="write weights as float16, in half the size")
    parser.add_argument("--cfg", help="config of the network (default: the one in IN, or the release's)")
    parser.add_argument("--save-config", type=Path, metavar="FILE", help="write the network's config, to test with")
    add_traceback_argument(parser)
    return parser.parse_args(argv)


def describe(checkpoint: dict, weights: Weights) -> dict[str, str]:
    """What a checkpoint holds, in words, told without a network."""
    state = weights.state
    types = Counter(str(value.dtype).removeprefix("torch.") for value in state.values())
    parameters = sum(value.numel() for key, value in state.items() if not key.endswith(BUFFERS))
    told = ("model", "config", "source", "epoch")
    facts = {
        "format": weights.title,
        "tensors": str(len(state)),
        "parameters": f"{parameters / 1e6:.2f} M",
        "types": ", ".join(f"{count} {name}" for name, count in types.most_common()),
        **{name: _shape(state.get(key)) for name, (key, _) in SIZED_TABLES.items()},
        "epoch": str(checkpoint.get("epoch", "unknown")),
        "config": "in the file" if "config" in checkpoint else _config_of(weights),
        "source": str(checkpoint.get("source", "unknown")),
        "besides": ", ".join(key for key in checkpoint if key not in told) if "model" in checkpoint else "",
        "never used": ", ".join(weights.unused),
        "not known": ", ".join(weights.unplaced),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _shape(table: Tensor | None) -> str:
    return "none" if table is None else " x ".join(str(side) for side in table.shape)


def _config_of(weights: Weights) -> str:
    return " or ".join(weights.release.config_files(weights.state)) if weights.release else "unknown"


def read_options(cfg_file: str | None, checkpoint: dict, weights: Weights, name: str) -> CfgNode:
    """The options of the network, its tables as large as the file's.

    Raises:
        KeyError, ValueError: the options are wrong, see `load_cfg`; or neither the file nor its kind tells them, and no
            config is given.
    """
    tables = [(weights.state.get(key), option) for key, option in SIZED_TABLES.values()]
    sized = [(table, option) for table, option in tables if table is not None and table.dim()]
    opts = [word for table, option in sized for word in (option, str(len(table)))]
    if cfg_file:
        return load_cfg(cfg_file, opts)
    if "config" in checkpoint:
        return read_cfg(checkpoint["config"], f"the config in {name}", opts)
    if weights.release:
        return load_cfg(ROOT / weights.release.config_files(weights.state)[0], opts)
    raise ValueError(f"{name} does not hold the config of its network: name it with --cfg")


def convert(checkpoint: dict, cfg: CfgNode, name: str, *, strip: bool, half: bool) -> dict:
    """The checkpoint as this project's: `model`, `config` (YAML text), and what it had besides if it is our own.

    Args:
        checkpoint: what was read.
        cfg: the options of its network, which the weights have to fit.
        name: what errors call it.
        strip: keep weights and config alone.
        half: floating-point weights become float16.

    Raises:
        ValueError: the weights do not fit the options' network, or float16's range.
    """
    with torch.device("meta"):
        network = build_model(cfg).state_dict()
    state, _ = fit_weights(network, checkpoint, name)
    if strip:
        state = {key: value for key, value in state.items() if key not in TABLES}
    if half:
        state = {key: _halved(f"{name}: {key}", value) for key, value in state.items()}
    is_own = "model" in checkpoint and identify(checkpoint, name).release is None
    kept = {key: value for key, value in checkpoint.items() if key != "model"} if is_own and not strip else {}
    return kept | {"model": state, "config": cfg.dump()}


def _halved(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    halved = value.half()
    if not torch.equal(halved.isfinite(), value.isfinite()):
        raise ValueError(f"{name} holds values up to {value.abs().max():g}, beyond float16's 65504: leave out --half")
    return halved


def origin(path: Path, checkpoint: dict, weights: Weights) -> dict[str, str | int]:
    """Where the weights come from: the file that was not itself converted."""
    if "source" in checkpoint:
        return checkpoint["source"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    epoch = {"epoch": checkpoint["epoch"]} if isinstance(checkpoint.get("epoch"), int) else {}
    return {"file": path.name, "sha256": digest, "format": weights.title, **epoch}


def main(args: argparse.Namespace) -> None:
    """Describe or convert as the arguments say."""
    name = str(args.source)
    checkpoint = read_checkpoint(args.source)
    weights = identify(checkpoint, name)
    if args.out and args.out.exists() and args.out.samefile(args.source):
        raise ValueError(f"{args.out} is the file that is read: name another one to write")
    if not args.out and not args.save_config:
        if args.strip or args.half:
            raise ValueError("--strip and --half say how to write: name a file OUT")
        sys.stdout.writelines(f"{fact:<11} {text}\n" for fact, text in describe(checkpoint, weights).items())
        return
    cfg = read_options(args.cfg, checkpoint, weights, name)
    if args.save_config:
        write_text(args.save_config, cfg.dump())
        sys.stdout.write(f"the config is in {args.save_config}\n")
    if args.out:
        converted = convert(checkpoint, cfg, name, strip=args.strip, half=args.half)
        save_checkpoint(args.out, converted | {"source": origin(args.source, checkpoint, weights)})
        if weights.unused:
            sys.stdout.write(f"left out, as {weights.title} never uses them: {', '.join(weights.unused)}\n")
        sys.stdout.write(f"written to {args.out}, {args.out.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
