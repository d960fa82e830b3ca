"""What a checkpoint holds, and checkpoints of releases as this project's."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from engine.checkpoint import Weights, fit_weights, identify, read_checkpoint, save_checkpoint
from engine.networks import options_of
from models import build_model
from utils.errors import UserError

TABLES = {"lut": "MODEL.OIM.NUM_IDS", "cq": "MODEL.OIM.QUEUE_SIZE"}
"""Buffers of the OIM loss -> the option that holds their number of rows."""
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "lut", "cq", "header")
"""Ends of the keys that are not parameters."""


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


def read_options(
    cfg_file: str | None, checkpoint: dict, weights: Weights, name: str, opts: Sequence[str] = ()
) -> CfgNode:
    """The options of the network, with tables as large as its, see `engine.networks.options_of`."""
    rows = [word for table, rows in _tables(weights.state).items() for word in (TABLES[table], str(len(rows)))]
    return options_of(checkpoint, name, cfg_file, [*rows, *opts])


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


def write_converted(source: Path, checkpoint: dict, cfg: CfgNode, out: Path, **how: bool) -> None:
    """Write a checkpoint, read from `source`, with the options of its network to `out`; for `how` see `convert`."""
    if out.exists() and out.samefile(source):
        raise UserError(f"{out} is the file that is read: name another one to write")
    weights = identify(checkpoint, str(source))
    converted = convert(checkpoint, cfg, str(source), **how)
    save_checkpoint(out, converted | {"source": origin(source, checkpoint, weights)})


def store_options(source: Path, out: Path, opts: Sequence[str]) -> None:
    """Write a copy of a checkpoint whose config holds other options than the source's, key by key."""
    checkpoint = read_checkpoint(source)
    cfg = read_options(None, checkpoint, identify(checkpoint, str(source)), str(source), opts)
    write_converted(source, checkpoint, cfg, out, strip=False, half=False)


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
