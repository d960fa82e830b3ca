"""The head of FCOS (Tian et al., ICCV 2019) as AlignPS has it: person, box and centre-ness at each cell of a map."""

import math

import torch
from torch import Tensor, nn

from models.deformable import DeformableConv

GROUPS = 32  # of the group norms
PRIOR = 0.01  # probability of a person at a cell before training


class DenseHead(nn.Module):
    """Two towers of four convolutions, the last one deformable (version 2), and the predictions from them.

    The predictions are float32 in every precision: lower ones would tie many scores, and move boxes.

    Args:
        channels: C of the maps.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.cls_tower, self.box_tower = _tower(channels), _tower(channels)
        self.classifier, self.box, self.centreness = (nn.Conv2d(channels, n, 3, padding=1) for n in (1, 4, 1))
        self.scale = nn.Parameter(torch.ones(()))
        for module in (*self.cls_tower.children(), *self.box_tower.children(), self):
            for conv in module.children():
                if isinstance(conv, nn.Conv2d):
                    nn.init.normal_(conv.weight, std=0.01)
                    nn.init.zeros_(conv.bias)
        nn.init.constant_(self.classifier.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of a person, distances and centre-ness logits at each cell of a map, see `classify` and `locate`."""
        return self.classify(level), *self.locate(level)

    def classify(self, level: Tensor) -> Tensor:
        """Logits of a person, B x N, at the N = h w cells of a map B x C x h x w, row by row."""
        return _predicted(self.classifier, self.cls_tower(level)).flatten(1)

    def locate(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Of each cell: the distances of its box's left, top, right and bottom side, in strides (B x N x 4), and the
        centre-ness logit (B x N)."""
        features = self.box_tower(level)
        distances = (self.scale * _predicted(self.box, features)).relu()
        return distances.flatten(2).transpose(1, 2), _predicted(self.centreness, features).flatten(1)


def _tower(channels: int) -> nn.Sequential:
    plain = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
    convs = [*plain, DeformableConv(channels, channels, modulated=True, bias=True)]
    return nn.Sequential(*(nn.Sequential(conv, nn.GroupNorm(GROUPS, channels), nn.ReLU()) for conv in convs))


def _predicted(conv: nn.Conv2d, features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return conv(features.float())
