"""From the features of a RoI to its identity embedding and to the logits of person against background.

Norm-aware (NAE, SeqNet, GLCNet), the same with a linear score (SeqNeXt), and linear (the OIM baseline); NAE+'s is in
`pixelwise.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.two_stage.boxes import NUM_CLASSES, PERSON, Samples


def projection(*layers: nn.Module) -> nn.Sequential:
    """A layer and its batch norm, initialised as in NAE: weights of both from N(0, 0.01), biases 0."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


class Projectors(nn.ModuleDict):
    """A linear layer with a batch norm for each feature; their outputs, one after another, are one vector (NAE).

    Args:
        channels: length of each feature, by name.
        widths: dimensions of each in the vector, by name, in the order of concatenation.
    """

    def __init__(self, channels: dict[str, int], widths: dict[str, int]):
        super().__init__(
            {
                name: projection(nn.Linear(channels[name], width), nn.BatchNorm1d(width))
                for name, width in widths.items()
            }
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Vectors R x D float32 from features name -> R x channels[name]."""
        return torch.cat([project(features[name].float()) for name, project in self.items()], dim=1)


class RoIEmbedding(nn.Module):
    """From features by name to embeddings R x D (`num_features` is D) and logits R x ..., in float32.

    `widths` holds the widths of the features that an embedding is concatenated from, by name; empty where it is one.
    """

    num_features: int
    widths: dict[str, int] = {}

    def classification_loss(self, logits: Tensor, samples: list[Samples]) -> Tensor:
        """Loss of the logits against person or background, mean over all sampled RoIs."""
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """Probability of a person, R."""
        raise NotImplementedError


class ProjectedEmbedding(RoIEmbedding):
    """From the vector z of `Projectors`: z / |z| is the identity embedding (NAE).

    Subclasses say what the logit of person against background is. For the arguments see `Projectors`.
    """

    def __init__(self, channels: dict[str, int], widths: dict[str, int]):
        super().__init__()
        self.projectors = Projectors(channels, widths)
        self.num_features, self.widths = sum(widths.values()), widths

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings R x D (unit vectors) and logits R from features name -> R x channels[name]."""
        with torch.autocast(next(iter(features.values())).device.type, enabled=False):
            z = self.projectors(features)
            return F.normalize(z), self.logits(z, features)

    def logits(self, z: Tensor, features: dict[str, Tensor]) -> Tensor:
        """Logits R from the vectors z, R x D, and from the features."""
        raise NotImplementedError

    def classification_loss(self, logits: Tensor, samples: list[Samples]) -> Tensor:
        is_person = torch.cat([s.is_person for s in samples])
        return F.binary_cross_entropy_with_logits(logits, is_person.to(logits.dtype))

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class NormAwareEmbedding(ProjectedEmbedding):
    """The logit is |z| through a batch norm (NAE, SeqNet, GLCNet)."""

    def __init__(self, channels: dict[str, int], widths: dict[str, int]):
        super().__init__(channels, widths)
        self.rescaler = nn.BatchNorm1d(1)

    def logits(self, z: Tensor, _: dict[str, Tensor]) -> Tensor:
        return self.rescaler(z.norm(dim=1, keepdim=True))[:, 0]


class LinearScoreEmbedding(ProjectedEmbedding):
    """The logit is linear in the feature `res5` (SeqNeXt)."""

    def __init__(self, channels: dict[str, int], widths: dict[str, int]):
        super().__init__(channels, widths)
        self.classifier = nn.Linear(channels["res5"], 1)

    def logits(self, _: Tensor, features: dict[str, Tensor]) -> Tensor:
        return self.classifier(features["res5"].float())[:, 0]


class LinearEmbedding(RoIEmbedding):
    """A linear layer to the identity embedding and another to two classes, both on the res5 vector (OIM).

    Args:
        channels: length of the res5 vector.
        num_features: D.
    """

    def __init__(self, channels: int, num_features: int):
        super().__init__()
        self.projector = nn.Linear(channels, num_features)
        self.classifier = nn.Linear(channels, NUM_CLASSES)
        self.num_features = num_features

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings R x D (unit vectors) and class logits R x 2 from the feature `res5`."""
        with torch.autocast(features["res5"].device.type, enabled=False):
            res5 = features["res5"].float()
            return F.normalize(self.projector(res5)), self.classifier(res5)

    def classification_loss(self, logits: Tensor, samples: list[Samples]) -> Tensor:
        return F.cross_entropy(logits, torch.cat([s.is_person for s in samples]).long())

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)[:, PERSON]
