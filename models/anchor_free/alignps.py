"""The anchor-free network: each cell of one map of stride 8 may be a person, and is its embedding (AlignPS)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.anchor_free.cells import cell_centres, cells_under_centres, find_positives
from models.anchor_free.detections import QUERY_CELLS, Detector
from models.anchor_free.head import DenseHead
from models.anchor_free.losses import box_loss, centreness_loss, classification_loss
from models.anchor_free.memory import FocalOIMLoss, triplet_loss
from models.anchor_free.neck import AlignedAggregation
from models.backbones import FreezePolicy
from models.base import PersonSearchModel, Targets
from models.preprocess import ImageBatch, Preprocess
from models.results import SearchResult, Thresholds


class AlignPS(PersonSearchModel):
    """Person search without proposals (Yan et al., CVPR 2021).

    P3 less its mean over the map (per image and channel, padding included) is what people are found on, and a person's
    embedding is that map's vector, normalised, at the cell that found it.

    Args:
        preprocess: resizes, normalises and pads images.
        backbone: from images to C3, C4 and C5 by name, in this order.
        neck: from these to P3, and in training to the coarser levels.
        head: the predictions at each cell.
        memory: the identity loss.
        detector: which cells become detections.
        min_score: lowest score of a person in a gallery, exclusive.
        query: how given boxes are embedded, a key of `QUERY_CELLS`.
        triplet: add the triplet loss (the release for CUHK-SYSU).
        triplet_without_first: see `triplet_loss`.
        freeze: what of the backbone does not learn.
    """

    identity_memory = ("memory.lut", "memory.cq", "memory.header")

    def __init__(
        self,
        *,
        preprocess: Preprocess,
        backbone: nn.Module,
        neck: AlignedAggregation,
        head: DenseHead,
        memory: FocalOIMLoss,
        detector: Detector,
        min_score: float,
        query: str,
        triplet: bool,
        triplet_without_first: bool,
        freeze: FreezePolicy,
    ):
        super().__init__(preprocess)
        self.backbone, self.neck, self.head, self.memory = backbone, neck, head, memory
        self.detector, self.query_cells = detector, QUERY_CELLS[query]
        self.thresholds = Thresholds(min_score, detector.nms_iou, detector.max_detections)
        self.triplet, self.triplet_without_first, self.freeze = triplet, triplet_without_first, freeze
        freeze.freeze_parameters(backbone, [])

    @property
    def embedding_width(self) -> int:
        return self.memory.lut.shape[1]

    def backbone_modules(self) -> list[nn.Module]:
        return [self.backbone]

    def inference_modules(self) -> list[nn.Module]:
        return [self.backbone, self.neck, self.head.cls_tower, self.head.box_tower]

    def train(self, mode: bool = True) -> "AlignPS":
        """Train or eval mode; frozen normalisation layers stay in eval mode."""
        super().train(mode)
        if mode:
            self.freeze.freeze_statistics(self.backbone, [])
        return self

    def losses(self, batch: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        p3, *coarser = self.neck.pyramid(list(self.backbone(batch.tensors).values()))
        p3 = _centred(p3)
        logits, distances, centreness = self.head(p3)
        logits = torch.cat([logits, *(self.head.classify(level) for level in coarser)], dim=1)
        positives = find_positives(cell_centres(*p3.shape[2:], p3.device), targets)
        is_positive = torch.zeros_like(centreness, dtype=torch.bool)
        is_positive.view(-1)[positives.cells] = True
        embeddings = F.normalize(p3.permute(0, 2, 3, 1).flatten(0, 2)[positives.cells])
        losses = {
            "loss_cls": classification_loss(logits, is_positive),
            "loss_box": box_loss(distances.flatten(0, 1)[positives.cells], positives),
            "loss_centreness": centreness_loss(centreness.flatten()[positives.cells], positives),
        }
        if self.triplet:  # first: the memory moves its rows
            lut, without_first = self.memory.lut, self.triplet_without_first
            losses["loss_triplet"] = triplet_loss(embeddings, positives.labels, lut, without_first)
        return losses | {"loss_reid": self.memory(embeddings, positives.labels)}

    def search_batch(self, batch: ImageBatch, boxes: list[Tensor]) -> list[SearchResult]:
        p3 = _centred(self.neck(list(self.backbone(batch.tensors).values())))
        height, width = p3.shape[2:]
        centres, vectors = cell_centres(height, width, p3.device), p3.flatten(2).transpose(1, 2)
        predictions = zip(*self.head(p3), batch.sizes, strict=True)
        found = [self.detector(*image, centres, size) for *image, size in predictions]
        restored = batch.restore_boxes([people.boxes for people in found])
        found = [people._replace(boxes=own) for people, own in zip(found, restored, strict=True)]
        centre_cells = [cells_under_centres(resized, height, width) for resized in batch.resize_boxes(boxes)]
        cells = [self.query_cells(*image) for image in zip(boxes, found, centre_cells, strict=True)]
        return [
            SearchResult(
                boxes=people.boxes,
                scores=people.scores,
                embeddings=F.normalize(own[people.cells]),
                query_boxes=given,
                query_embeddings=F.normalize(own[chosen]),
                thresholds=self.thresholds,
                weight_by_score=False,
            )
            for people, own, given, chosen in zip(found, vectors, boxes, cells, strict=True)
        ]


def _centred(level: Tensor) -> Tensor:
    """A map B x C x h x w less the mean of each channel, float32."""
    level = level.float()
    return level - level.mean(dim=(2, 3), keepdim=True)
