"""Identity losses beside OIM: triplets with the rows of its table, and a classifier of identities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.oim import IGNORED
from models.triplet import hardest_triplet_loss
from utils.labels import BACKGROUND


class CosineTripletLoss(nn.Module):
    """Hardest triplets by cosine similarity, with the table's rows (SEAS).

    Anchors are the people with identity and one row for each of their identities; samples are the same and the people
    without identity, who are others to everybody and learn nothing. Rows have no gradient.

    Args:
        margin: of similarities.
    """

    def __init__(self, margin: float):
        super().__init__()
        self.margin = margin

    def forward(self, features: Tensor, labels: Tensor, lut: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            features: n x D, unit vectors.
            labels: int64 n, see `OIMLoss`.
            lut: P x D, the identities' rows before they are updated.
        """
        features = features.float()
        known = torch.where((labels > BACKGROUND) & (labels <= len(lut)))[0]
        others = torch.where(labels < BACKGROUND)[0]
        identities = labels[known].unique()
        anchors = torch.cat([features[known], lut[identities - 1]])
        anchor_labels = torch.cat([labels[known], identities])
        with torch.autocast(features.device.type, enabled=False):
            similarities = anchors @ torch.cat([anchors, features[others].detach()]).T
        same = anchor_labels[:, None] == torch.cat([anchor_labels, labels[others]])
        return hardest_triplet_loss(-similarities, same, self.margin)


class IdentityClassifier(nn.Module):
    """Cross-entropy over the training set's identities, from a batch norm and a linear layer (COAT).

    Args:
        num_features: D.
        num_ids: P.
    """

    def __init__(self, num_features: int, num_ids: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(num_features)
        self.norm.bias.requires_grad_(False)  # the neck of Luo et al., Bag of Tricks, 2019
        self.linear = nn.Linear(num_features, num_ids, bias=False)
        nn.init.normal_(self.linear.weight, std=0.001)

    def forward(self, features: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        """The mean over people with identity, a scalar; arguments as those of `CosineTripletLoss`."""
        known = (labels > BACKGROUND) & (labels <= self.linear.out_features)
        with torch.autocast(features.device.type, enabled=False):
            logits = self.linear(self.norm(features.float()))
            classes = (labels - 1).where(known, IGNORED)
            total = F.cross_entropy(logits, classes, ignore_index=IGNORED, reduction="sum")
        return total / known.sum().clamp(min=1)
