"""The triplet loss with the hardest samples of a batch (Hermans et al., In Defense of the Triplet Loss, 2017)."""

import torch
from torch import Tensor


def hardest_triplet_loss(distances: Tensor, same: Tensor, margin: float) -> Tensor:
    """max(0, d - d' + margin), the mean over anchors; 0, with a gradient of 0, where there are none.

    d is an anchor's distance to the farthest sample of its identity, d' that to the nearest of another. An anchor
    without samples of another identity costs 0.

    Args:
        distances: A x N, of A anchors to N samples.
        same: bool A x N, whether both have the same identity; at least one sample for each anchor.
        margin: in the unit of the distances.
    """
    if not distances.numel():
        return distances.sum()
    farthest = distances.masked_fill(~same, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(same, torch.inf).amin(dim=1)
    return (farthest - nearest + margin).clamp(min=0).mean()
