"""The weights in a file, whoever saved it, under this project's names."""

import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.build import FAMILIES
from models.releases import Release

OWN_TITLE = "this project"
OWN_PREFIXES = tuple(prefix for family in FAMILIES.values() for prefix in family.key_prefixes)
RELEASES = tuple(release for family in FAMILIES.values() for release in family.releases)
WRAPPER = "module."
"""Beginning of every key in files that were saved from a network wrapped for several devices."""

LISTED_KEYS = 30
"""Keys that a message lists one by one."""


@dataclass
class Weights:
    """A network's weights as a file holds them, read.

    Attributes:
        state: the weights under this project's names, each once.
        release: where they come from; None: this project.
        unused: the file's keys that its own network never uses; they are not in `state`.
        unplaced: the file's keys that have no name here.
    """

    state: dict[str, Tensor]
    release: Release | None = None
    unused: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return self.release.title if self.release else OWN_TITLE


def identify(checkpoint: dict, name: str) -> Weights:
    """Read the weights of a checkpoint's dict, with or without `model` around and `module.` before them.

    Args:
        checkpoint: this project's, a release's, or a bare state dict of either.
        name: what errors call it.

    Raises:
        ValueError: it holds no weights, weights of an unknown kind, or two different tensors for one weight.
    """
    state = checkpoint.get("model", checkpoint)
    if not isinstance(state, dict) or not state or not all(_is_weight(*item) for item in state.items()):
        raise ValueError(f"{name} holds no weights: neither it nor its `model` maps names to tensors; take another")
    if all(key.startswith(WRAPPER) for key in state):
        state = {key.removeprefix(WRAPPER): value for key, value in state.items()}
    if any(key.startswith(OWN_PREFIXES) for key in state):
        return Weights(dict(state))
    release = next((release for release in RELEASES if release.matches(state)), None)
    if release is None:
        known = ", ".join(release.title for release in RELEASES)
        raise ValueError(
            f"the weights of {name} are neither this project's nor those of {known}; "
            f"{len(state)} unknown: {list_keys(state)}"
        )
    return _translate(release, state, name)


def _is_weight(key: object, value: object) -> bool:
    """Whether it is a name and a tensor of real numbers that are there, one by one."""
    return (
        isinstance(key, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_meta or value.is_quantized or value.is_complex())
    )


def _translate(release: Release, state: dict[str, Tensor], name: str) -> Weights:
    weights, theirs, differing = Weights({}, release), {}, []
    for key, value in state.items():
        own = release.own_name(key)
        if re.fullmatch(release.unused, key):
            weights.unused.append(key)
        elif own is None:
            weights.unplaced.append(key)
        elif own in theirs and not torch.equal(weights.state[own], value):
            differing.append(f"{theirs[own]} and {key}")
        else:
            theirs[own], weights.state[own] = key, value
    if differing:
        raise ValueError(f"{name} holds two different tensors for one weight: {', '.join(differing)}")
    return weights


def list_keys(keys: list[str] | dict) -> str:
    """Keys for a message, each of them, or where they are too many how many there are in each module."""
    keys = list(keys)
    if len(keys) <= LISTED_KEYS:
        return ", ".join(keys)
    modules: dict[str, int] = {}
    for key in keys:
        module = ".".join(key.split(".")[:-1][:3])
        modules[module] = modules.get(module, 0) + 1
    return ", ".join(f"{module}.* ({count})" for module, count in modules.items())
