"""Which boxes of an image stay: thresholds and non-maximum suppression, and the two forms of a searched image."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms, remove_small_boxes

MIN_SIDE = 0.01
"""Pixels of the resized image; a smaller box is a degenerate one (torchvision's value)."""


@dataclass(frozen=True)
class Thresholds:
    """Rules for the boxes of one image: lowest score (exclusive), IoU that suppresses, and most boxes."""

    score: float
    nms: float
    max_detections: int


def keep_best(boxes: Tensor, scores: Tensor, thresholds: Thresholds) -> Tensor:
    """Indexes of the boxes (n x 4, with scores n) that stay, best first."""
    candidates = torch.where(scores > thresholds.score)[0]
    candidates = candidates[remove_small_boxes(boxes[candidates], MIN_SIDE)]
    kept = nms(boxes[candidates], scores[candidates], thresholds.nms)
    return candidates[kept[: thresholds.max_detections]]


@dataclass
class SearchedImage:
    """What the network found in one image, before duplicates are removed.

    Attributes:
        boxes, scores, embeddings: n x 4 in pixels of the resized image, n, n x D of the detections; unit vectors.
        given_boxes, given_embeddings: g x 4 in the image's own pixels, g x D of the boxes that were asked about.
        scale: factors on x1, y1, x2, y2 from the resized image to the image's own pixels.
        thresholds: which detections stay.
        weighted: whether gallery embeddings carry the score.
    """

    boxes: Tensor
    scores: Tensor
    embeddings: Tensor
    given_boxes: Tensor
    given_embeddings: Tensor
    scale: Tensor
    thresholds: Thresholds
    weighted: bool = True

    def cpu(self) -> "SearchedImage":
        """The same on the CPU, its tensors in float32."""
        tensors = ("boxes", "scores", "embeddings", "given_boxes", "given_embeddings", "scale")
        return replace(self, **{name: getattr(self, name).float().cpu() for name in tensors})

    def as_gallery(self) -> dict[str, Tensor]:
        """The image as part of a gallery: `boxes` n x 4 in its own pixels, `scores` n, `embeddings` n x D.

        If `weighted`, an embedding is multiplied by its score (confidence weighted similarity, NAE), so that its dot
        product with a query's unit vector ranks by both.
        """
        kept = keep_best(self.boxes, self.scores, self.thresholds)
        scores = self.scores[kept]
        return {
            "boxes": self._own_pixels(self.boxes[kept]),
            "scores": scores,
            "embeddings": self.embeddings[kept] * scores[:, None] if self.weighted else self.embeddings[kept],
        }

    def as_query(self, index: int | None = None) -> dict[str, Tensor | dict[str, Tensor]]:
        """The image of a query.

        Args:
            index: which of the given boxes is the query; None: all of them together.

        Returns:
            `embeddings` of the given boxes (unit vectors), and `context`: the given boxes with score 1, then the other
            people by falling score, with unweighted embeddings, as CBGM compares them.
        """
        chosen = slice(None) if index is None else slice(index, index + 1)
        given, embeddings = self.given_boxes[chosen], self.given_embeddings[chosen]
        # A given box has the highest score, so it suppresses its duplicates first and is never suppressed itself.
        others = torch.where(~(box_iou(given / self.scale, self.boxes) > self.thresholds.nms).any(0))[0]
        kept = others[keep_best(self.boxes[others], self.scores[others], self.thresholds)]
        kept = kept[: max(self.thresholds.max_detections - len(given), 0)]
        context = {
            "boxes": torch.cat([given, self._own_pixels(self.boxes[kept])]),
            "scores": torch.cat([torch.ones_like(given[:, 0]), self.scores[kept]]),
            "embeddings": torch.cat([embeddings, self.embeddings[kept]]),
        }
        return {"embeddings": embeddings, "context": context}

    def _own_pixels(self, boxes: Tensor) -> Tensor:
        return boxes * self.scale
