"""The identity losses of AlignPS: online instance matching with a focal factor, and triplets with its table's rows."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.oim import OIMLoss
from models.triplet import hardest_triplet_loss
from utils.distributed import sum_over_processes, world_size
from utils.labels import BACKGROUND

MARGIN = 0.3  # of the triplet loss


class FocalOIMLoss(OIMLoss):
    """OIM (see `OIMLoss`) for many cells of a person: -(1 - p)^2 log p, divided by the number of all positive cells.

    p is the probability of the own identity among identities and queue; cells without identity cost 0, but count.

    Args:
        num_features, num_ids, queue_size, momentum: see `OIMLoss`.
        scalar, queue_scalar: factors on the similarities to identities and to the queue.
        normalised_rows: normalise a row after each update (the release for PRW, not that for CUHK-SYSU).
        queue_dims: how many dimensions of a vector the queue takes; 0 all. The release: the first 64, a fault.
    """

    def __init__(
        self,
        num_features: int,
        num_ids: int,
        queue_size: int,
        momentum: float,
        scalar: float,
        queue_scalar: float,
        normalised_rows: bool,
        queue_dims: int = 0,
    ):
        super().__init__(num_features, num_ids, queue_size, momentum, scalar)
        self.queue_scalar, self.normalised_rows = queue_scalar, normalised_rows
        self.queue_dims = queue_dims or num_features

    def _loss(self, features: Tensor, labels: Tensor) -> Tensor:
        tables = torch.cat([self.scalar * self.lut, self.queue_scalar * self.cq])
        known = torch.where((labels > BACKGROUND) & (labels <= len(self.lut)))[0]
        log_p = (features[known] @ tables.T).log_softmax(dim=1).gather(1, labels[known, None] - 1)
        total = -((1 - log_p.exp()) ** 2 * log_p).sum()
        count = torch.tensor(len(labels), device=labels.device)
        return total * world_size() / sum_over_processes(count).clamp(min=1)

    def _moved(self, rows: Tensor, features: Tensor) -> Tensor:
        mixed = self.momentum * rows + (1 - self.momentum) * features
        return F.normalize(mixed) if self.normalised_rows else mixed

    def _enqueue(self, places: Tensor, features: Tensor) -> None:
        self.cq[places, : self.queue_dims] = features[:, : self.queue_dims]


def triplet_loss(features: Tensor, labels: Tensor, lut: Tensor, without_first: bool = False) -> Tensor:
    """Triplet loss of the cells with identity and of their identities' rows, a row for each cell; 0 for one identity.

    Each is an anchor: max(0, d - d' + 0.3), d being the distance to the farthest of its identity (itself at least), and
    d' that to the nearest of another; mean. Rows have no gradient.

    Args:
        features: n x D, unit vectors.
        labels: int64 n, identities from 1; others do not take part.
        lut: P x D, the identities' rows before they are updated.
        without_first: cells of identity 1 come without its row, as in the release, a fault.
    """
    known = (labels > BACKGROUND) & (labels <= len(lut))
    features, labels = features[known].float(), labels[known]
    paired = labels[labels > 1] if without_first else labels
    vectors, labels = torch.cat([features, lut[paired - 1]]), torch.cat([labels, paired])
    norms = vectors.square().sum(dim=1)
    with torch.autocast(vectors.device.type, enabled=False):  # rounded to bfloat16, no distance would be below 0.1
        products = vectors @ vectors.T
    distances = (norms[:, None] + norms - 2 * products).clamp(min=1e-12).sqrt()
    return hardest_triplet_loss(distances, labels[:, None] == labels, MARGIN)
