"""Checkpoints: written atomically, read as data only, and loaded strictly."""

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from models.base import PersonSearchModel
from models.build import FAMILIES
from models.releases import Release
from utils.errors import UserError
from utils.files import write_atomically
from utils.tensor_files import read_tensor_file
from utils.text import shortened

log = logging.getLogger(__name__)


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a dict of tensors, numbers, text, lists and dicts; see `utils.files.write_atomically`."""
    write_atomically(path, lambda file: torch.save(state, file))


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint to the CPU as data: a file that holds code is refused.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        UserError: the file is damaged, or holds anything but a dict of data with text as keys.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    checkpoint = read_tensor_file(path, "checkpoint")
    is_dict = isinstance(checkpoint, dict) and all(isinstance(key, str) for key in checkpoint)
    if is_dict and isinstance(checkpoint.get("config", ""), str):
        return checkpoint
    raise UserError(f"{path} is not a checkpoint: no dict with text as keys and as `config`; take another file")


def load_weights(model: PersonSearchModel, source: str | Path | dict, name: str | None = None) -> list[str]:
    """Load a network's weights, strictly: every key is placed, every weight is found, every shape fits.

    Takes this project's weights and those of the releases of its families, recognised by their keys, in any precision.
    The tables of the OIM loss, which searching does not need, are left out with a note in the log where one is missing
    or has another size, as with weights from another training set.

    Args:
        model: the network, on any device.
        source: path of a checkpoint, its dict, or a bare state dict.
        name: name of `source` in errors; for a dict, the path it was read from.

    Returns:
        The keys that were left out.

    Raises:
        OSError, UserError: see `read_checkpoint`; UserError too for weights that are not known or do not fit; where
            another config would fit, the message names it.
    """
    if isinstance(source, dict):
        name, checkpoint = name or "the given state dict", source
    else:
        name, checkpoint = name or str(source), read_checkpoint(Path(source))
    state, left_out = fit_weights(model, checkpoint, name)
    model.load_state_dict(model.state_dict() | state)
    return left_out


def fit_weights(model: PersonSearchModel, checkpoint: dict, name: str) -> tuple[dict[str, Tensor], list[str]]:
    """The weights for a network, which may be on the meta device, and the keys left out; see `load_weights`."""
    weights, own = identify(checkpoint, name), model.state_dict()
    state, left_out = dict(weights.state), list(weights.unused)
    if weights.unknown:
        raise UserError(f"{name} has keys that {weights.title} does not have: {shortened(weights.unknown)}")
    if weights.unused:
        log.info("%s: left out, as searching does not use it: %s", name, shortened(weights.unused))
    if weights.release:  # releases may lack counters: batches that batch norm has seen, the queue's next row
        counters = [key for key, value in own.items() if not (value.ndim or value.is_floating_point())]
        state = {key: torch.zeros((), dtype=torch.int64) for key in counters} | state
    if any(key not in state or state[key].shape != own[key].shape for key in model.identity_memory):
        log.info("%s: identity tables are missing or of another size, and not loaded; searching needs none", name)
        left_out += model.identity_memory
        state = {key: value for key, value in state.items() if key not in model.identity_memory}
    if faults := _faults(state, {key: value for key, value in own.items() if key not in left_out}):
        advice = _advice(weights, checkpoint, name)
        raise UserError(f"the weights of {name} do not fit the network of the options; {faults}; {advice}")
    return state, left_out


def _faults(state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """Missing, unexpected and misshapen keys, as a message; empty where all weights fit."""
    misshapen = [key for key in own if key in state and state[key].shape != own[key].shape]
    faults = {
        "not in the network": [key for key in state if key not in own],
        "missing": [key for key in own if key not in state],
        "of another shape": [f"{key} {tuple(state[key].shape)}, not {tuple(own[key].shape)}" for key in misshapen],
    }
    return "; ".join(f"{len(keys)} {fault}: {shortened(keys)}" for fault, keys in faults.items() if keys)


def _advice(weights: "Weights", checkpoint: dict, name: str) -> str:
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


@dataclass
class Weights:
    """A network's weights as a file holds them.

    Attributes:
        state: the weights under this project's names, each once.
        release: where they come from; None: this project.
        unused: keys of the file that searching does not use; they are not in `state`.
        unknown: keys of the file that have no name here.
    """

    state: dict[str, Tensor]
    release: Release | None = None
    unused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Name of the code that saved them, for people."""
        return self.release.title if self.release else "this project"


def identify(checkpoint: dict, name: str) -> Weights:
    """Find the weights in a checkpoint's dict and rename them to this project's names.

    Args:
        checkpoint: this project's, a release's, or a bare state dict of either. The state dict may stand under `model`
            or `state_dict` (mmcv), and all its keys may begin with `module.`, as a network wrapped for several devices
            saves them.
        name: its name in errors.

    Raises:
        UserError: it holds no weights, weights of an unknown kind, or two different tensors for one weight.
    """
    state = _state_dict(checkpoint, name)
    releases = [release for family in FAMILIES.values() for release in family.releases]
    for release in releases:
        if release.matches(state):
            return _translate(release, state, name)
    own_prefixes = tuple(prefix for family in FAMILIES.values() for prefix in family.key_prefixes)
    if any(key.startswith(own_prefixes) for key in state):
        return Weights(state)
    known = ", ".join(release.title for release in releases)
    raise UserError(f"the weights of {name} are neither this project's nor those of {known}: {shortened(state)}")


def _state_dict(checkpoint: dict, name: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint, without the prefix `module.`; UserError where there is none."""
    state = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))
    if not isinstance(state, dict) or not state or not all(_is_weight(*item) for item in state.items()):
        raise UserError(f"{name} holds no weights: no `model` or `state_dict` of names and tensors; take another file")
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _is_weight(key: object, value: object) -> bool:
    """Whether an entry is a name with a dense tensor of real numbers; files may hold sparse, meta or complex ones."""
    if not isinstance(key, str) or not isinstance(value, Tensor):
        return False
    return value.layout is torch.strided and not (value.is_meta or value.is_quantized or value.is_complex())


def _translate(release: Release, state: dict[str, Tensor], name: str) -> Weights:
    weights, theirs = Weights({}, release), {}  # theirs: name here -> key in the file
    for key, value in state.items():
        own = release.own_name(key)
        if re.fullmatch(release.unused, key):
            weights.unused.append(key)
        elif own is None:
            weights.unknown.append(key)
        elif own in theirs and not torch.equal(weights.state[own], value):
            raise UserError(f"{name} holds two different tensors for one weight: {theirs[own]} and {key}")
        else:
            theirs[own], weights.state[own] = key, value
    return weights
