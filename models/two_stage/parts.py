"""Parts of a person (GLCNet's release of 2024): horizontal stripes of the body, from tails of their own."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.roi import RoIs, Tail
from models.two_stage.features import RoIFeatures

CROP_SIZE = 14
"""Side of the crops that the stripes are made for."""

KERNEL_HEIGHTS = {1: 7, 2: 3, 3: 2}
"""Number of stripes -> height of the max pool's kernel on the tail's 7 x 7 output, over its full width, as released."""


class PartFeatures(RoIFeatures):
    """Max pools of 1, 2 and 3 stripes, each division from its own copy of the tail.

    The six features are `part1_1`, `part2_1`, `part2_2`, `part3_1` ..., from top to bottom. Crops must be 14 x 14.

    Args:
        tails: one for each key of `KERNEL_HEIGHTS`.
        tail_channels: channels of their outputs.
    """

    def __init__(self, tails: list[Tail], tail_channels: int):
        super().__init__()
        self.stripe_tails = nn.ModuleDict({str(n): tail for n, tail in zip(KERNEL_HEIGHTS, tails, strict=True)})
        self.channels = {
            f"part{stripes}_{row}": tail_channels for stripes in KERNEL_HEIGHTS for row in range(1, stripes + 1)
        }

    def forward(self, rois: RoIs) -> dict[str, Tensor]:
        vectors = {}
        for stripes, height in KERNEL_HEIGHTS.items():
            body = self.stripe_tails[str(stripes)].on_rois(rois)
            rows = F.max_pool2d(body, (height, body.shape[3])).flatten(2).unbind(2)
            vectors |= {f"part{stripes}_{number}": row for number, row in enumerate(rows, start=1)}
        return vectors
