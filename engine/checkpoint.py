"""Checkpoints: written whole, read as data only, and loaded strictly."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.weights import Weights, identify, list_keys
from utils.files import write_atomically
from utils.tensor_files import read_tensor_file

log = logging.getLogger(__name__)

TABLES = ("search_head.oim.lut", "search_head.oim.cq", "search_head.oim.header")
"""What the OIM loss remembers: needed to go on training, not to search."""

COUNTERS = ("num_batches_tracked", "search_head.oim.header")
"""Ends of the keys of counters that old files lack: batch norm's batches, which nothing reads, and the queue's head."""


def save_checkpoint(path: Path, state: dict, make_way: Callable[[], None] | None = None) -> None:
    """Write a dict of tensors, numbers, text, lists and dicts; see `utils.files.write_atomically`."""
    write_atomically(Path(path), lambda file: torch.save(state, file), make_way)


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint to the CPU as data: a file that holds code is refused.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: the file is damaged, holds anything but data, or is no dict of named things.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    checkpoint = read_tensor_file(path, "checkpoint")
    if not isinstance(checkpoint, dict):
        fault = f"it holds a {type(checkpoint).__name__}, not a dict"
    elif not all(isinstance(key, str) for key in checkpoint):
        fault = "not all its keys are text"
    elif not isinstance(checkpoint.get("config", ""), str):
        fault = "its `config` is not text"
    else:
        return checkpoint
    raise ValueError(f"{path} is not a checkpoint: {fault}; take another file")


def load_weights(model: nn.Module, source: str | Path | dict, name: str | None = None) -> list[str]:
    """Load a network's weights, strictly: every key is placed, every weight is found, every shape fits.

    Takes this project's weights and those of published releases, which it tells by their keys. Weights
    in another precision are converted to the network's. Left out, with a note in the log, are identity tables that the
    file lacks or has in another size than the network (those of another training set): they play no part in searching.

    Args:
        model: the network, on any device.
        source: path of a checkpoint, its dict, or a bare state dict.
        name: what errors call it: for a dict, the path it was read from.

    Returns:
        The keys that were left out.

    Raises:
        OSError, ValueError: see `read_checkpoint`; ValueError too for weights that are not known or do not
            fit; where another config would fit, the message names it.
    """
    if isinstance(source, dict):
        name, checkpoint = name or "the given state dict", source
    else:
        name, checkpoint = name or str(source), read_checkpoint(Path(source))
    own = model.state_dict()
    state, left_out = fit_weights(own, checkpoint, name)
    model.load_state_dict(own | state)
    return left_out


def fit_weights(own: dict[str, Tensor], checkpoint: dict, name: str) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a checkpoint's dict for the network whose state dict is `own`, and the keys left out of them.

    Only names, shapes and types of `own` are read, so it may be a network on the meta device. Errors call the weights
    `name`; see `load_weights`.
    """
    weights = identify(checkpoint, name)
    if weights.unplaced:
        raise ValueError(
            f"{name} holds weights of {weights.title} with {len(weights.unplaced)} keys that are not known: "
            f"{', '.join(weights.unplaced)}"
        )
    state, left_out = dict(weights.state), list(weights.unused)
    if weights.unused:
        log.info(
            "%s: weights that %s itself never uses are left out: %s", name, weights.title, ", ".join(weights.unused)
        )
    if weights.release:
        _add_lacking_counters(state, own, name)
    left_out += _leave_out_tables(state, own, name)
    faults = _faults(state, own)
    if faults:
        raise ValueError(
            f"the weights of {name} do not fit the network that the options describe; {faults}; "
            f"{_advice(weights, checkpoint, name)}"
        )
    return state, left_out


def _leave_out_tables(state: dict[str, Tensor], own: dict[str, Tensor], name: str) -> list[str]:
    """Take the OIM loss's tables that do not fit out of `state`; the keys of those that then lack."""
    lacking = [key for key in TABLES if key in own and key not in state]
    others = [key for key in TABLES if key in own and key in state and state[key].shape != own[key].shape]
    if lacking:
        log.info("%s: has no %s; the network's own stay", name, ", ".join(lacking))
    if others:
        log.info("%s: identity tables of another size, not needed to search, are left out: %s", name, ", ".join(others))
        for key in others:
            del state[key]
    return [key for key in TABLES if key in (*lacking, *others)]


def _add_lacking_counters(state: dict[str, Tensor], own: dict[str, Tensor], name: str) -> None:
    """Start the counters that a release lacks from 0."""
    lacking = [key for key in own if key.endswith(COUNTERS) and key not in state]
    if lacking:
        log.info("%s: starts from 0 what it lacks: %s", name, list_keys(lacking))
        state |= {key: torch.zeros((), dtype=torch.int64) for key in lacking}


def _faults(state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """What does not fit, in words; empty if all does, tables that `state` lacks aside."""
    shapes = [
        f"{key} {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    faults = {
        "not in the network": [key for key in state if key not in own],
        "missing": [key for key in own if key not in state and key not in TABLES],
        "of another shape": shapes,
    }
    return "; ".join(f"{len(keys)} {fault}: {list_keys(keys)}" for fault, keys in faults.items() if keys)


def _advice(weights: Weights, checkpoint: dict, name: str) -> str:
    """Where to find the config of a network that the weights fit."""
    if weights.release:
        files = " or ".join(weights.release.config_files(weights.state))
        return f"they are of {weights.title}, whose network is in {files}"
    beside = Path(name).with_name("config.yaml")
    if beside.is_file():
        return f"the network they were trained in is in {beside}"
    if "config" in checkpoint:
        return f"the file holds its own config: python -m tools.convert_checkpoint {name} --save-config FILE.yaml"
    return "they need the config they were trained with"
