"""The region proposal network: torchvision's, with the choice of its box loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import box_iou, clip_boxes_to_image, nms, remove_small_boxes

SMOOTH_L1_BETA = 1 / 9
"""torchvision's value since 0.5, from Detectron (sigma 3)."""

NMS_BLOCK = 1024
"""Boxes that are compared with each other at once on CPUs."""

BOX_LOSSES = {"l1": 0.0, "smooth_l1": SMOOTH_L1_BETA}
"""Name of the box loss -> beta; beta 0 is plain L1, the loss of torchvision 0.4 and of the published results."""


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's RPN on the one res4 map, with the published or the current box loss."""

    def __init__(self, *, box_loss: str, **settings):
        super().__init__(**settings)
        if box_loss not in BOX_LOSSES:
            raise ValueError(f"MODEL.RPN.BOX_LOSS {box_loss!r} is not one of {', '.join(BOX_LOSSES)}")
        self.beta = BOX_LOSSES[box_loss]

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Objectness and box loss over the sampled anchors, both divided by the number of sampled anchors."""
        positive, negative = (torch.where(torch.cat(mask))[0] for mask in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        box_loss = F.smooth_l1_loss(
            pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], beta=self.beta, reduction="sum"
        )
        class_loss = F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], torch.cat(labels)[sampled])
        return class_loss, box_loss / max(sampled.numel(), 1)

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The best proposals of each image and their scores, as torchvision's, on one map.

        Args:
            proposals: B x A x 4, pixels of the resized image.
            objectness: logits of all images' anchors in turn, B A.
            image_shapes: height and width of each resized image.
            num_anchors_per_level: A alone.
        """
        (anchors,) = num_anchors_per_level
        logits, best = objectness.detach().view(len(proposals), anchors).topk(min(self.pre_nms_top_n(), anchors))
        boxes, scores = [], []
        for image, size in enumerate(image_shapes):
            candidates = clip_boxes_to_image(proposals[image, best[image]], size)
            probabilities = logits[image].sigmoid()
            usable = remove_small_boxes(candidates, self.min_size)
            usable = usable[probabilities[usable] >= self.score_thresh]
            candidates, probabilities = candidates[usable], probabilities[usable]
            kept = best_of_nms(candidates, probabilities, self.nms_thresh, self.post_nms_top_n())
            boxes.append(candidates[kept])
            scores.append(probabilities[kept])
        return boxes, scores

    def propose(self, feature_map: Tensor, padded_size: tuple[int, int], sizes: list[tuple[int, int]]) -> list[Tensor]:
        """Boxes n x 4 of each image, in pixels of the resized image, best first.

        Args:
            feature_map: B x C x h x w.
            padded_size: height and width that the images of the batch were padded to.
            sizes: height and width of each resized image.
        """
        # Anchors take the map's dtype: in half precision they would be pixels off.
        return self(_image_list(feature_map, padded_size, sizes), {"res4": feature_map.float()})[0]

    def propose_and_learn(
        self, feature_map: Tensor, padded_size: tuple[int, int], sizes: list[tuple[int, int]], targets: list[dict]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """As `propose`, with the losses `loss_rpn_cls` and `loss_rpn_reg` against the targets' `boxes`."""
        images = _image_list(feature_map, padded_size, sizes)
        proposals, losses = self(images, {"res4": feature_map.float()}, targets)
        return proposals, {"loss_rpn_cls": losses["loss_objectness"], "loss_rpn_reg": losses["loss_rpn_box_reg"]}


class ProposalHead(RPNHead):
    """torchvision's RPN head, whose outputs stay float32 under mixed precision: they become coordinates."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


def best_of_nms(boxes: Tensor, scores: Tensor, iou_thresh: float, count: int) -> Tensor:
    """The first `count` of what non-maximum suppression keeps.

    On CPUs torchvision's kernel takes a third of the RPN's time to compare thousands of boxes of which few are asked
    for. Here it sees a block at a time, and what the kept ones suppress is left out of later blocks.

    Args:
        boxes: n x 4.
        scores: n, falling.

    Returns:
        int64, positions in `boxes`, rising.
    """
    if boxes.device.type != "cpu":
        return nms(boxes, scores, iou_thresh)[:count]
    left, kept, found = torch.arange(len(boxes)), [], 0
    while len(left) and found < count:
        block, left = left[:NMS_BLOCK], left[NMS_BLOCK:]
        kept.append(block[nms(boxes[block], scores[block], iou_thresh)])
        found += len(kept[-1])
        if found < count:
            left = left[(box_iou(boxes[kept[-1]], boxes[left]) <= iou_thresh).all(0)]
    return torch.cat(kept)[:count] if kept else left


def _image_list(feature_map: Tensor, padded_size: tuple[int, int], sizes: list[tuple[int, int]]) -> ImageList:
    """What torchvision's RPN wants of the images: their padded shape and their sizes; no pixel is read."""
    return ImageList(feature_map.new_empty(1).expand(len(sizes), 1, *padded_size), sizes)


def anchors_and_head(channels: int, sizes: list[int], ratios: list[float]) -> dict[str, nn.Module]:
    """Anchor generator and head of an RPN on one map of C channels; `sizes` in pixels, `ratios` height / width."""
    anchors = AnchorGenerator((tuple(sizes),), (tuple(ratios),))
    return {"anchor_generator": anchors, "head": ProposalHead(channels, anchors.num_anchors_per_location()[0])}
