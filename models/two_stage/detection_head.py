"""The first head: which proposals show people, and where exactly."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from models.base import Targets
from models.preprocess import Size
from models.results import Thresholds, keep_best
from models.roi import RoIAlign, RoIs
from models.two_stage.boxes import NUM_CLASSES, PERSON, RoISampler, box_regression_loss, decode_boxes
from models.two_stage.features import TailFeatures


class PassThrough(nn.Module):
    """No first head: the RPN's proposals go to the second head as they are (OIM, NAE, NAE+)."""

    def losses(self, _: Tensor, proposals: list[Tensor], *__: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The proposals as the RoIs for the second head, and no losses."""
        return proposals, {}

    def forward(self, _: Tensor, proposals: list[Tensor], *__: Any) -> tuple[list[Tensor], None]:
        """The proposals, without scores."""
        return proposals, None


class ClassAgnosticPredictor(FastRCNNPredictor):
    """Faster R-CNN's predictor with one set of box deltas for both classes, behind a batch norm (SEAS)."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__(channels, num_classes)
        self.bbox_pred = nn.Sequential(nn.Linear(channels, 4, bias=False), nn.BatchNorm1d(4))


PREDICTORS = {"faster_rcnn": FastRCNNPredictor, "class_agnostic": ClassAgnosticPredictor}
"""Kind of first head -> what predicts classes and box deltas from the channels of res5 and the number of classes."""


class DetectionHead(nn.Module):
    """Faster R-CNN's head over two classes, on the res5 vector of each RoI (SeqNet, GLCNet, SeqNeXt, SEAS).

    Args:
        roi_align: crops RoIs out of the res4 map.
        features: gives the `res5` vector of a crop.
        kind: a key of `PREDICTORS`.
        sampler: chooses RoIs for training.
        thresholds: which detections stay at test.
        with_proposals: in training, hand the proposals on to the second head, too (SEAS).
    """

    def __init__(
        self,
        roi_align: RoIAlign,
        features: TailFeatures,
        kind: str,
        sampler: RoISampler,
        thresholds: Thresholds,
        with_proposals: bool = False,
    ):
        super().__init__()
        self.roi_align, self.features = roi_align, features
        self.predictor = PREDICTORS[kind](features.channels["res5"], NUM_CLASSES)
        self.sampler, self.thresholds, self.with_proposals = sampler, thresholds, with_proposals

    def _predict(self, feature_map: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits R x 2 and box deltas R x 4 or 8, float32: lower precision would tie many scores."""
        res5 = self.features(RoIs(self.roi_align, feature_map, boxes))["res5"]
        with torch.autocast(res5.device.type, enabled=False):
            return self.predictor(res5.float())

    def losses(
        self, feature_map: Tensor, proposals: list[Tensor], sizes: list[Size], targets: Targets
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The RoIs for the second head (per image n x 4, decoded boxes without gradient first), and the losses."""
        samples = self.sampler(proposals, targets)
        boxes = [s.boxes for s in samples]
        logits, deltas = self._predict(feature_map, boxes)
        classes = torch.cat([s.is_person for s in samples]).long()
        losses = {
            "loss_proposal_cls": F.cross_entropy(logits, classes),
            "loss_proposal_reg": box_regression_loss(deltas, samples),
        }
        decoded = decode_boxes(deltas.detach(), boxes, sizes)
        if self.with_proposals:
            decoded = [torch.cat(pair) for pair in zip(decoded, proposals, strict=True)]
        return decoded, losses

    def forward(
        self, feature_map: Tensor, proposals: list[Tensor], sizes: list[Size]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes n x 4 of the people of each image, in pixels of the resized image, best first, and their scores n.

        Args:
            feature_map: B x C x h x w.
            proposals: per image n x 4, pixels of the resized image.
            sizes: height and width of each resized image.
        """
        logits, deltas = self._predict(feature_map, proposals)
        scores = logits.softmax(-1)[:, PERSON].split([len(boxes) for boxes in proposals])
        boxes = decode_boxes(deltas, proposals, sizes)
        kept = [keep_best(b, s, self.thresholds) for b, s in zip(boxes, scores, strict=True)]
        return [b[k] for b, k in zip(boxes, kept, strict=True)], [s[k] for s, k in zip(scores, kept, strict=True)]
