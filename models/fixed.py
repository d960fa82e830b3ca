"""Networks for export: what others drop is masked here, so that no shape depends on data."""

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from models.results import MIN_SIDE, Thresholds

UNUSABLE = -1.0
"""Score of boxes that take no part; scores of others are 0 or above."""
USABLE = UNUSABLE / 2
"""Every score above is that of a box that takes part."""


class FixedNetwork(nn.Module):
    """A network in eval mode whose results have shapes that do not depend on data.

    Attributes:
        thresholds: which of the people stay, after the network; see `models.results.SearchResult`.
        weight_by_score: whether embeddings of a gallery are multiplied by their scores.
        people: N, most people that are found in an image.
    """

    thresholds: Thresholds
    weight_by_score: bool
    people: int

    def forward(self, images: Tensor, sizes: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        """Search images, and embed given boxes, each in the context of its image.

        Args:
            images: B x 3 x H x W float32, normalised, resized and padded.
            sizes: float32 B x 2, height and width of each image without padding.
            boxes: float32 B x k x 4 in pixels of the resized images.

        Returns:
            Of the people boxes B x N x 4 in pixels of the resized images, scores B x N, whether there is one (bool
            B x N) and embeddings B x N x D; embeddings of the given boxes, B x k x D. What is not there scores 0.
        """
        raise NotImplementedError


@torch.library.custom_op("person_search::nms_mask", mutates_args=())
def nms_mask(boxes: Tensor, scores: Tensor, iou: float, count: int) -> Tensor:
    """Which boxes non-maximum suppression keeps, as bool B x n: the best `count` of each image at most.

    An operator of its own, so that export can put ONNX's NonMaxSuppression in its place.

    Args:
        boxes: B x n x 4.
        scores: B x n, `UNUSABLE` for boxes that take no part.
        iou: with a better box, above which a box is dropped.
        count: most boxes of an image that are kept.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for row, own, own_scores in zip(kept, boxes, scores, strict=True):
        usable = torch.where(own_scores > USABLE)[0]
        row[usable[nms(own[usable], own_scores[usable], iou)[:count]]] = True
    return kept


@nms_mask.register_fake
def _(_boxes: Tensor, scores: Tensor, _iou: float, _count: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def keep_best(
    boxes: Tensor, scores: Tensor, thresholds: Thresholds, min_side: float = MIN_SIDE
) -> tuple[Tensor, Tensor]:
    """The boxes that `models.results.keep_best` keeps, as many for each image.

    Args:
        boxes: B x n x 4.
        scores: B x n in [0, 1], `UNUSABLE` for boxes that take no part.
        thresholds: which boxes stay; `max_detections` is m, at most n.
        min_side: pixels; boxes with a smaller side do not stay.

    Returns:
        Their indices, int64 B x m by falling score, and whether there is one, bool B x m.
    """
    usable = (scores > thresholds.min_score) & (boxes[..., 2:] - boxes[..., :2] >= min_side).all(-1)
    scores = scores.where(usable, UNUSABLE)
    kept = nms_mask(boxes, scores, thresholds.nms_iou, thresholds.max_detections)
    best, index = scores.where(kept, UNUSABLE).topk(thresholds.max_detections, dim=1)
    return index, best > USABLE


def pick(values: Tensor, index: Tensor) -> Tensor:
    """The rows B x m x C that an index B x m chooses among B x n x C."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
