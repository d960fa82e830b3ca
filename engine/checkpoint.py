"""Checkpoints: written whole, read as data only, and loaded strictly."""

import logging
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.files import write_atomically

log = logging.getLogger(__name__)

TABLES = ("search_head.oim.lut", "search_head.oim.cq", "search_head.oim.header")
"""What the OIM loss remembers: needed to go on training, not to search."""


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a dict of tensors, numbers, text, lists and dicts; after a crash the old file or the new one is whole."""
    write_atomically(Path(path), lambda file: torch.save(state, file))


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint to the CPU as data: a file that holds code is refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds anything but data.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        # PyTorch's own message is left out: it advises to run the file's code.
        raise ValueError(
            f"{path} is damaged, or is not a checkpoint that holds nothing but data: not loaded"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} is not a checkpoint: it holds a {type(checkpoint).__name__} instead of a dict")
    return checkpoint


def load_weights(model: nn.Module, source: str | Path | dict) -> list[str]:
    """Load a network's weights, strictly: every key is placed, every weight is found, every shape fits.

    Identity tables of another size than the network's, which belong to another training set, are left out with a note
    in the log: they play no part in searching.

    Args:
        model: the network, on any device.
        source: path of a checkpoint, its dict, or a bare state dict.

    Returns:
        The keys that were left out.

    Raises:
        FileNotFoundError, ValueError: see `read_checkpoint`; ValueError too where keys or shapes do not fit.
    """
    name = "the given state dict" if isinstance(source, dict) else str(source)
    state = source if isinstance(source, dict) else read_checkpoint(Path(source))
    state = dict(state.get("model", state))
    own = model.state_dict()
    left_out = [key for key in TABLES if key in own and not _same_shape(state.get(key), own[key])]
    if left_out:
        log.info(
            "%s: identity tables of another size, not needed to search, are left out: %s", name, ", ".join(left_out)
        )
        state |= {key: own[key] for key in left_out}
    _check_fit(state, own, name)
    model.load_state_dict(state)
    return left_out


def _same_shape(value: Tensor | None, own: Tensor) -> bool:
    return value is not None and value.shape == own.shape


def _check_fit(state: dict[str, Tensor], own: dict[str, Tensor], name: str) -> None:
    faults = {
        "not in the network": [key for key in state if key not in own],
        "missing": [key for key in own if key not in state],
        "of another shape": [
            f"{key} {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
            for key in own
            if key in state and not _same_shape(state[key], own[key])
        ],
    }
    told = [f"{len(keys)} {fault}: {', '.join(keys)}" for fault, keys in faults.items() if keys]
    if told:
        raise ValueError(f"the weights of {name} do not fit the network that the options describe; {'; '.join(told)}")
