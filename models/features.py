"""Features of a RoI: from its crop of the res4 map to named vectors or maps."""

from torch import Tensor, nn

from models.roi_align import RoIs
from models.tails import Tail


def max_pool(x: Tensor) -> Tensor:
    """The global maximum of maps R x C x h x w, R x C (deterministic on CUDA, unlike torch's adaptive pools)."""
    return x.amax((2, 3))


def average_pool(x: Tensor) -> Tensor:
    """The global mean of maps R x C x h x w, R x C."""
    return x.mean((2, 3))


POOLS = {"max": max_pool, "average": average_pool}
"""Names of MODEL.*_HEAD.POOL -> how a map becomes a vector."""


class RoIFeatures(nn.Module):
    """What a head knows of a RoI; the contract of the modules of this file and of `models.parts`.

    `channels` maps the name of each feature to its channels; `forward` maps `RoIs` to name -> feature.
    """

    channels: dict[str, int]

    def tails(self) -> list[Tail]:
        """The copies of the backbone's tail in it, to which the backbone's freezing applies."""
        raise NotImplementedError


class TailFeatures(RoIFeatures):
    """One vector of the whole RoI, the tail's pooled output (`res5`).

    Args:
        tail: a copy of the backbone's tail.
        tail_channels: channels of its output.
        pool: "max" (published) or "average" (the OIM baseline's own paper).
    """

    def __init__(self, tail: Tail, tail_channels: int, pool: str = "max"):
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"POOL {pool!r} is not one of {', '.join(POOLS)}")
        self.tail, self.pool = tail, POOLS[pool]
        self.channels = {"res5": tail_channels}

    def forward(self, rois: RoIs) -> dict[str, Tensor]:
        """From RoIs to name -> R x channels[name]."""
        return {"res5": self.pool(self.tail.of_rois(rois))}

    def tails(self) -> list[Tail]:
        return [self.tail]


class GlobalFeatures(TailFeatures):
    """Two vectors of the whole RoI: its pooled crop (`res4`) and the tail's pooled output (`res5`).

    Args:
        tail, tail_channels, pool: as `TailFeatures`.
        stem_channels: channels of the res4 map.
    """

    def __init__(self, tail: Tail, stem_channels: int, tail_channels: int, pool: str = "max"):
        super().__init__(tail, tail_channels, pool)
        self.channels = {"res4": stem_channels, "res5": tail_channels}

    def forward(self, rois: RoIs) -> dict[str, Tensor]:
        """From RoIs to name -> R x channels[name]."""
        return {"res4": self.pool(rois.crops), **super().forward(rois)}


class MapFeatures(RoIFeatures):
    """The crop (`res4`, R x C x s x s) and the tail's output (`res5`, R x C x s/2 x s/2), for pixel-wise heads."""

    def __init__(self, tail: Tail, stem_channels: int, tail_channels: int):
        super().__init__()
        self.tail = tail
        self.channels = {"res4": stem_channels, "res5": tail_channels}

    def forward(self, rois: RoIs) -> dict[str, Tensor]:
        return {"res4": rois.crops, "res5": self.tail.of_rois(rois)}

    def tails(self) -> list[Tail]:
        return [self.tail]
