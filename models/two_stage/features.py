"""RoI features: from the crop of a box to named vectors or maps: `res4`, `res5`, and parts of the body."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.roi import RoIs, Tail

POOLS = {"max": partial(torch.amax, dim=(2, 3)), "average": partial(torch.mean, dim=(2, 3))}
"""Global pooling, R x C from R x C x h x w, by name (deterministic on CUDA, unlike torch's adaptive pools)."""

CROP_SIZE = 14
"""Side of the crops that the stripes are made for."""

KERNEL_HEIGHTS = {1: 7, 2: 3, 3: 2}
"""Number of stripes -> height of the max pool's kernel on the tail's 7 x 7 output, over its full width, as released."""


def max_grid(maps: Tensor, cells: int) -> Tensor:
    """The maxima of B x C x h x w over a grid, B x C x cells x cells.

    It is torch's adaptive pool, but deterministic on CUDA: cells may overlap, and small maps are repeated.
    """
    for axis in (2, 3):
        size, numbers = maps.shape[axis], torch.arange(cells, device=maps.device)
        starts, ends = numbers * size // cells, ((numbers + 1) * size + cells - 1) // cells
        longest = max(-(-(k + 1) * size // cells) - k * size // cells for k in range(cells))
        # Shorter cells show their last row again.
        rows = (starts[:, None] + torch.arange(longest, device=maps.device)).minimum(ends[:, None] - 1)
        maps = maps.index_select(axis, rows.flatten()).unflatten(axis, (cells, longest)).amax(axis + 1)
    return maps


class TailFeatures(nn.Module):
    """The tail's output on the whole RoI (`res5`) and, if it is asked for, the crop itself (`res4`), each pooled.

    Args:
        tail: a copy of the backbone's tail.
        channels: of `res5` and perhaps of `res4`, which then comes first.
        pool: a key of `POOLS`: "max" (published) or "average" (the OIM baseline's own paper); None leaves maps
            R x C x s x s and R x C x s/2 x s/2, for pixel-wise heads.
    """

    def __init__(self, tail: Tail, channels: dict[str, int], pool: str | None = "max"):
        super().__init__()
        self.tail, self.channels = tail, channels
        self.pool = POOLS[pool] if pool else nn.Identity()

    def forward(self, rois: RoIs) -> dict[str, Tensor]:
        """Features by name, R x C or R x C x h x w."""
        features = {"res4": self.pool(rois.crops)} if "res4" in self.channels else {}
        return features | {"res5": self.pool(self.tail.on_rois(rois))}


class PartFeatures(nn.Module):
    """Parts of a person (GLCNet's release of 2024): max pools of 1, 2 and 3 horizontal stripes of the body.

    The six features are `part1_1`, `part2_1`, `part2_2`, `part3_1` ..., from top to bottom. Crops must be 14 x 14.

    Args:
        tails: copies of the backbone's tail, one for each key of `KERNEL_HEIGHTS`.
        tail_channels: channels of their outputs.
    """

    def __init__(self, tails: list[Tail], tail_channels: int):
        super().__init__()
        self.stripe_tails = nn.ModuleDict({str(n): tail for n, tail in zip(KERNEL_HEIGHTS, tails, strict=True)})
        self.channels = {
            f"part{stripes}_{row}": tail_channels for stripes in KERNEL_HEIGHTS for row in range(1, stripes + 1)
        }

    def forward(self, rois: RoIs) -> dict[str, Tensor]:
        """Features by name, R x C."""
        vectors = {}
        for stripes, height in KERNEL_HEIGHTS.items():
            body = self.stripe_tails[str(stripes)].on_rois(rois)
            rows = F.max_pool2d(body, (height, body.shape[3])).flatten(2).unbind(2)
            vectors |= {f"part{stripes}_{number}": row for number, row in enumerate(rows, start=1)}
        return vectors
