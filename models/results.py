"""What a network finds in an image, as part of a gallery and as the image of a query; which boxes stay."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms, remove_small_boxes

MIN_SIDE = 0.01  # pixels; boxes with a smaller side are dropped (torchvision's value)


@dataclass(frozen=True)
class Thresholds:
    """Which boxes of an image stay.

    Attributes:
        min_score: lowest score, exclusive.
        nms_iou: IoU with a better box above which non-maximum suppression drops a box.
        max_detections: most boxes that stay.
    """

    min_score: float
    nms_iou: float
    max_detections: int


def keep_best(boxes: Tensor, scores: Tensor, thresholds: Thresholds) -> Tensor:
    """Indices (int64) of the boxes (n x 4, with scores n) that stay, by falling score."""
    candidates = torch.where(scores > thresholds.min_score)[0]
    candidates = candidates[remove_small_boxes(boxes[candidates], MIN_SIDE)]
    kept = nms(boxes[candidates], scores[candidates], thresholds.nms_iou)
    return candidates[kept[: thresholds.max_detections]]


@dataclass
class SearchResult:
    """The people found in one image, before the last non-maximum suppression, and the embeddings of queries.

    Attributes:
        boxes: n x 4, x1, y1, x2, y2 in pixels of the original image.
        scores: n, in [0, 1].
        embeddings: n x D, unit vectors.
        query_boxes: g x 4, the boxes that were given, in pixels of the original image.
        query_embeddings: g x D, unit vectors.
        thresholds: which boxes stay.
        weight_by_score: whether embeddings of a gallery are multiplied by their scores.
        scene: D, a unit vector, the embedding of the whole image, which a gallery filter compares; None without one.
    """

    boxes: Tensor
    scores: Tensor
    embeddings: Tensor
    query_boxes: Tensor
    query_embeddings: Tensor
    thresholds: Thresholds
    weight_by_score: bool = True
    scene: Tensor | None = None

    def gallery(self) -> dict[str, Tensor]:
        """The image as part of a gallery: `boxes` n x 4, `scores` n, `embeddings` n x D, by falling score.

        If `weight_by_score`, an embedding is multiplied by its score (confidence weighted similarity, NAE), so that
        its dot product with a query's unit vector ranks by both.
        """
        kept = keep_best(self.boxes, self.scores, self.thresholds)
        scores, embeddings = self.scores[kept], self.embeddings[kept]
        if self.weight_by_score:
            embeddings = embeddings * scores[:, None]
        return {"boxes": self.boxes[kept], "scores": scores, "embeddings": embeddings}

    def query(self, index: int | None = None) -> dict[str, Tensor | dict[str, Tensor]]:
        """The image of a query.

        Args:
            index: which of the given boxes is the query; None: all of them together.

        Returns:
            `embeddings` of the given boxes (unit vectors), and `context`: `boxes`, `scores` and `embeddings` of the
            given boxes, with score 1, then of the other people by falling score. Embeddings of a context are not
            weighted by scores, as context bipartite graph matching (CBGM) compares them.
        """
        chosen = slice(None) if index is None else slice(index, index + 1)
        given, embeddings = self.query_boxes[chosen], self.query_embeddings[chosen]
        # Given boxes count as the best ones: they suppress their duplicates and are never suppressed themselves.
        others = torch.where(~(box_iou(given, self.boxes) > self.thresholds.nms_iou).any(0))[0]
        kept = others[keep_best(self.boxes[others], self.scores[others], self.thresholds)]
        kept = kept[: max(self.thresholds.max_detections - len(given), 0)]
        context = {
            "boxes": torch.cat([given, self.boxes[kept]]),
            "scores": torch.cat([torch.ones_like(given[:, 0]), self.scores[kept]]),
            "embeddings": torch.cat([embeddings, self.embeddings[kept]]),
        }
        return {"embeddings": embeddings, "context": context}


TENSORS = ("boxes", "scores", "embeddings", "query_boxes", "query_embeddings", "scene")


def to_cpu(results: list[SearchResult]) -> list[SearchResult]:
    """The results on the CPU in float32, copied in one transfer.

    The tensors are views of one buffer: clone those that outlive the batch.
    """
    if not results:
        return []
    names = [name for name in TENSORS if getattr(results[0], name) is not None]
    tensors = [getattr(result, name) for result in results for name in names]
    packed = torch.cat([tensor.float().flatten() for tensor in tensors]).cpu()
    pieces = iter(packed.split([tensor.numel() for tensor in tensors]))
    return [
        replace(result, **{name: next(pieces).view(getattr(result, name).shape) for name in names})
        for result in results
    ]
