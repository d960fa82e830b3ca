"""RoI features: from the crop of a box to named vectors or maps, such as `res4` and `res5`."""

from functools import partial

import torch
from torch import Tensor, nn

from models.roi import RoIs, Tail

POOLS = {"max": partial(torch.amax, dim=(2, 3)), "average": partial(torch.mean, dim=(2, 3))}
"""Global pooling, R x C from R x C x h x w, by name (deterministic on CUDA, unlike torch's adaptive pools)."""


class RoIFeatures(nn.Module):
    """From `RoIs` to features by name, R x C or R x C x h x w; `channels` maps their names to C."""

    channels: dict[str, int]


class TailFeatures(RoIFeatures):
    """One vector of the whole RoI, the tail's pooled output (`res5`).

    Args:
        tail: a copy of the backbone's tail.
        tail_channels: channels of its output.
        pool: a key of `POOLS`: "max" (published) or "average" (the OIM baseline's own paper).
    """

    def __init__(self, tail: Tail, tail_channels: int, pool: str = "max"):
        super().__init__()
        self.tail, self.pool = tail, POOLS[pool]
        self.channels = {"res5": tail_channels}

    def forward(self, rois: RoIs) -> dict[str, Tensor]:
        return {"res5": self.pool(self.tail.on_rois(rois))}


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
        return {"res4": self.pool(rois.crops), **super().forward(rois)}


class MapFeatures(GlobalFeatures):
    """Both without pooling, R x C x s x s and R x C x s/2 x s/2, for pixel-wise heads."""

    def forward(self, rois: RoIs) -> dict[str, Tensor]:
        return {"res4": rois.crops, "res5": self.tail.on_rois(rois)}
