"""The losses of detection at all cells: FCOS's, as AlignPS has them, all with weight 1."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from models.anchor_free.cells import Positives


def classification_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """Focal loss (alpha 0.25, gamma 2) summed over all cells, divided by the number of positives and images.

    Args:
        logits: B x N, the cells of all levels, those of P3 first.
        positives: bool B x M, which of P3's M cells are positive.
    """
    wanted = F.pad(positives, (0, logits.shape[1] - positives.shape[1])).to(logits.dtype)
    total = sigmoid_focal_loss(logits, wanted, alpha=0.25, gamma=2, reduction="sum")
    return total / (positives.sum() + len(logits))


def box_loss(distances: Tensor, positives: Positives) -> Tensor:
    """1 - GIoU of predicted boxes (`distances` p x 4 of the positives), their mean weighted by centre-ness."""
    weights = positives.centreness
    predicted, wanted = (torch.cat([-d[:, :2], d[:, 2:]], dim=1) for d in (distances, positives.distances))
    losses = generalized_box_iou_loss(predicted, wanted, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def centreness_loss(logits: Tensor, positives: Positives) -> Tensor:
    """Binary cross-entropy of the positives' centre-ness (logits p), mean."""
    total = F.binary_cross_entropy_with_logits(logits, positives.centreness, reduction="sum")
    return total / max(len(logits), 1)
