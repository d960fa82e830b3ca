"""Norm-aware embedding (NAE): from the features of a RoI to who it is (direction) and whether it is a person (norm)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.roi import Samples

INIT_STD = 0.01
"""Deviation of the normal distribution that projections start from (published)."""


def new_projection(inputs: int, outputs: int) -> nn.Sequential:
    """A linear layer and a batch norm, both weights drawn from N(0, 0.01), both biases 0."""
    projection = nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))
    for layer in projection:
        nn.init.normal_(layer.weight, std=INIT_STD)
        nn.init.zeros_(layer.bias)
    return projection


class NormAwareEmbedding(nn.Module):
    """Every feature is projected to its own width; the outputs are concatenated to one vector z.

    z / |z| is the identity embedding, and |z| through a batch norm the logit of person against background.

    Args:
        channels: length of each feature, by name.
        widths: dimensions that each gets in the embedding, by name, in the order of concatenation.
    """

    def __init__(self, channels: dict[str, int], widths: dict[str, int]):
        super().__init__()
        self.projectors = nn.ModuleDict({name: new_projection(channels[name], widths[name]) for name in channels})
        self.rescaler = nn.BatchNorm1d(1)
        self.num_features = sum(widths[name] for name in channels)

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings R x D (unit vectors) and logits R, in float32, from features name -> R x channels[name]."""
        with torch.autocast(next(iter(features.values())).device.type, enabled=False):
            z = torch.cat([project(features[name].float()) for name, project in self.projectors.items()], dim=1)
            norm = z.norm(dim=1, keepdim=True)
            return F.normalize(z), self.rescaler(norm)[:, 0]

    @staticmethod
    def classification_loss(logits: Tensor, samples: list[Samples]) -> Tensor:
        """Binary cross-entropy of the logits against person or background, mean over all sampled RoIs."""
        is_person = torch.cat([s.is_person for s in samples])
        return F.binary_cross_entropy_with_logits(logits, is_person.to(logits.dtype))
