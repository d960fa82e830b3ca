"""Weights that others have published: how to recognise a release by its keys, and its keys in this project's names."""

import re
from dataclasses import dataclass, field

from torch import Tensor

Names = tuple[tuple[str, str], ...]
"""Pairs of a pattern for a release's keys, matched whole, and the name here, in which \\1 ... stand for its groups."""

CONFIG_FOLDER = "configs/releases"
DATASETS = {5532: "cuhk_sysu", 482: "prw", 483: "prw"}
"""Identities of a release's training set -> the dataset; AlignPS, SeqNeXt and SEAS count one more in PRW."""


@dataclass(frozen=True)
class Release:
    """How one published code base names the weights of its network.

    Attributes:
        title: its name, for people.
        config: prefix of its files' names in configs/releases.
        marks: key prefixes that all occur in its files and distinguish it from other releases.
        names: its keys and those of this project.
        dims: key pattern -> number of dimensions, where key names alone are ambiguous.
        unused: pattern of the keys that it saves and the network here has no use for.
    """

    title: str
    config: str
    marks: tuple[str, ...]
    names: Names
    dims: dict[str, int] = field(default_factory=dict)
    unused: str = r"(?!)"

    def matches(self, state: dict[str, Tensor]) -> bool:
        """Whether a state dict is this release's."""
        marked = all(any(key.startswith(mark) for key in state) for mark in self.marks)
        return marked and all(
            value.dim() == dims
            for pattern, dims in self.dims.items()
            for key, value in state.items()
            if re.fullmatch(pattern, key)
        )

    def config_files(self, state: dict[str, Tensor]) -> list[str]:
        """The configs for weights in this project's names: of their dataset, or of both if that is unknown."""
        rows = [len(value) for key, value in state.items() if key.endswith(".lut") and value.dim()]
        dataset = DATASETS.get(rows[0]) if rows else None
        names = [dataset] if dataset else dict.fromkeys(DATASETS.values())
        return [f"{CONFIG_FOLDER}/{self.config}_{name}.yaml" for name in names]

    def own_name(self, key: str) -> str | None:
        """This project's name of a key of the release; None if there is none."""
        for pattern, name in self.names:
            match = re.fullmatch(pattern, key)
            if match:
                return match.expand(name)
        return None
