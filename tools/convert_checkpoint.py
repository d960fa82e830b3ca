"""Look into a checkpoint, or write it as this project's: python -m tools.convert_checkpoint IN [OUT] [--half] ..."""

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from engine.checkpoint import Weights, fit_weights, identify, read_checkpoint, save_checkpoint
from engine.networks import options_of
from models import build_model
from tools.common import add_traceback_argument, run_program
from utils.errors import UserError
from utils.files import write_text

TABLES = {"lut": "MODEL.OIM.NUM_IDS", "cq": "MODEL.OIM.QUEUE_SIZE"}
"""Buffers of the OIM loss -> the option that holds their number of rows."""
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "lut", "cq", "header")
"""Ends of the keys that are not parameters."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.convert_checkpoint", description=__doc__.partition(":")[0])
    parser.add_argument("source", type=Path, metavar="IN", help="checkpoint of this project or of a known release")
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="file to write (default: describe IN)")
    parser.add_argument("--strip", action="store_true", help="leave out optimiser state and identity tables")
    parser.add_argument("--half", action="store_true", help="write weights as float16, in half the size")
    parser.add_argument("--cfg", help="config of the network (default: the one in IN, or the release's)")
    parser.add_argument("--save-config", type=Path, metavar="FILE", help="write the network's config, to test with")
    add_traceback_argument(parser)
    return parser.parse_args(argv)


def describe(checkpoint: dict, weights: Weights) -> dict[str, str]:
    """Facts about a checkpoint, by name, found without a network."""
    state, release, tables = weights.state, weights.release, _tables(weights.state)
    dtypes = Counter(str(value.dtype).removeprefix("torch.") for value in state.values())
    parameters = sum(value.numel() for key, value in state.items() if not key.endswith(BUFFERS))
    config = " or ".join(release.config_files(state)) if release else "unknown"
    besides = checkpoint.keys() - {"model", "config", "source", "epoch"} if "model" in checkpoint else ()
    facts = {
        "format": weights.title,
        "tensors": str(len(state)),
        "parameters": f"{parameters / 1e6:.2f} M",
        "types": ", ".join(f"{count} {name}" for name, count in dtypes.most_common()),
        **{name: " x ".join(map(str, tables[name].shape)) if name in tables else "none" for name in TABLES},
        "epoch": str(checkpoint.get("epoch", "unknown")),
        "config": "in the file" if "config" in checkpoint else config,
        "source": str(checkpoint.get("source", "unknown")),
        "besides": ", ".join(sorted(besides)),
        "never used": ", ".join(weights.unused),
        "not known": ", ".join(weights.unknown),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _tables(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tables of the OIM loss in a state dict, by the last part of their keys."""
    named = {key.rpartition(".")[2]: value for key, value in state.items()}
    return {name: named[name] for name in TABLES if name in named and named[name].dim()}


def read_options(cfg_file: str | None, checkpoint: dict, weights: Weights, name: str) -> CfgNode:
    """The options of the network, with tables as large as its, see `engine.networks.options_of`."""
    opts = [word for table, rows in _tables(weights.state).items() for word in (TABLES[table], str(len(rows)))]
    return options_of(checkpoint, name, cfg_file, opts)


def convert(checkpoint: dict, cfg: CfgNode, name: str, *, strip: bool, half: bool) -> dict:
    """The checkpoint as this project's: `model`, `config` (YAML text), and what else it held if it is our own.

    Args:
        checkpoint: content of the file, called `name` in errors.
        cfg: the options of its network, which the weights have to fit.
        strip: keep weights and config only.
        half: convert floating-point weights to float16; UserError for values beyond its range.
    """
    with torch.device("meta"):
        model = build_model(cfg)
    state, _ = fit_weights(model, checkpoint, name)
    if strip:
        state = {key: value for key, value in state.items() if key not in model.identity_memory}
    if half:
        state = {key: _halved(f"{name}: {key}", value) for key, value in state.items()}
    is_own = "model" in checkpoint and identify(checkpoint, name).release is None
    return (checkpoint if is_own and not strip else {}) | {"model": state, "config": cfg.dump()}


def _halved(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    halved = value.half()
    if not torch.equal(halved.isfinite(), value.isfinite()):
        raise UserError(f"{name} holds values up to {value.abs().max():g}, beyond float16's 65504: leave out --half")
    return halved


def origin(path: Path, checkpoint: dict, weights: Weights) -> dict[str, str | int]:
    """Where the weights come from: name and checksum of the file that was not itself converted."""
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
        raise UserError(f"{args.out} is the file that is read: name another one to write")
    if not args.out and not args.save_config:
        if args.strip or args.half:
            raise UserError("--strip and --half say how to write: name a file OUT")
        sys.stdout.writelines(f"{fact:<11} {text}\n" for fact, text in describe(checkpoint, weights).items())
        return
    cfg = read_options(args.cfg, checkpoint, weights, name)
    if args.save_config:
        write_text(args.save_config, cfg.dump())
        sys.stdout.write(f"the config is in {args.save_config}\n")
    if args.out:
        converted = convert(checkpoint, cfg, name, strip=args.strip, half=args.half)
        save_checkpoint(args.out, converted | {"source": origin(args.source, checkpoint, weights)})
        sys.stdout.write(f"written to {args.out}, {args.out.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
