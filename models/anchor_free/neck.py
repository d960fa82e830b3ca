"""Aligned feature aggregation (AFA; Yan et al., AlignPS, CVPR 2021): one map of stride 8 from C3, C4 and C5."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.deformable import DeformableConv


class AlignedAggregation(nn.Module):
    """A feature pyramid that concatenates, with deformable convolutions (version 1) in place of 1 x 1 and 3 x 3 ones.

    P3 comes from [lateral C3, [lateral C4, lateral C5]], the inner ones enlarged; P4 and P5 likewise, P6 and P7 by
    convolutions of stride 2. All have `width` channels. Only P3 finds people: the others give negatives in training.

    Args:
        channels: of C3, C4 and C5.
        width: of every lateral and output.
    """

    def __init__(self, channels: tuple[int, int, int], width: int):
        super().__init__()
        self.laterals = nn.ModuleList(DeformableConv(count, width, modulated=False) for count in channels)
        self.outputs = nn.ModuleList(DeformableConv(count * width, width, modulated=False) for count in (3, 2, 1))
        self.coarser = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # those of the offsets too, as released
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """P3, B x width x h x w, from C3 (B x C x h x w), C4 and C5."""
        return self.outputs[0](self._aggregated(maps)[0])

    def pyramid(self, maps: list[Tensor]) -> list[Tensor]:
        """P3, P4, P5, P6 and P7, at strides 8 to 128."""
        levels = [output(level) for output, level in zip(self.outputs, self._aggregated(maps), strict=True)]
        p6 = self.coarser[0](levels[-1])
        return [*levels, p6, self.coarser[1](p6.relu())]

    def _aggregated(self, maps: list[Tensor]) -> list[Tensor]:
        """The inputs of P3, P4 and P5: each map's lateral, and behind it the enlarged input of the next level."""
        *finer, coarsest = (lateral(level) for lateral, level in zip(self.laterals, maps, strict=True))
        aggregated = [coarsest]
        for lateral in reversed(finer):
            enlarged = F.interpolate(aggregated[0], lateral.shape[2:], mode="nearest")
            aggregated.insert(0, torch.cat([lateral, enlarged], dim=1))
        return aggregated
