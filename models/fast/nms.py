"""Proposals of an RPN with non-maximum suppression in blocks, for CPUs.

torchvision's kernel takes a third of the RPN's time to compare thousands of boxes, of which a few hundred are kept.
"""

import torch
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou, clip_boxes_to_image, nms, remove_small_boxes

NMS_BLOCK = 1024  # boxes that are compared with each other at once


def filter_proposals(
    rpn: RegionProposalNetwork,
    proposals: Tensor,
    objectness: Tensor,
    image_shapes: list[tuple[int, int]],
    num_anchors_per_level: list[int],
) -> tuple[list[Tensor], list[Tensor]]:
    """The output of torchvision's `filter_proposals`, which is called where the RPN has several maps."""
    if len(num_anchors_per_level) > 1:
        return type(rpn).filter_proposals(rpn, proposals, objectness, image_shapes, num_anchors_per_level)
    (anchors,) = num_anchors_per_level
    logits, best = objectness.detach().view(len(proposals), anchors).topk(min(rpn.pre_nms_top_n(), anchors))
    boxes, scores = [], []
    for image, size in enumerate(image_shapes):
        candidates = clip_boxes_to_image(proposals[image, best[image]], size)
        probabilities = logits[image].sigmoid()
        usable = remove_small_boxes(candidates, rpn.min_size)
        usable = usable[probabilities[usable] >= rpn.score_thresh]
        candidates, probabilities = candidates[usable], probabilities[usable]
        kept = best_of_nms(candidates, probabilities, rpn.nms_thresh, rpn.post_nms_top_n())
        boxes.append(candidates[kept])
        scores.append(probabilities[kept])
    return boxes, scores


def best_of_nms(boxes: Tensor, scores: Tensor, nms_iou: float, count: int) -> Tensor:
    """Positions (int64, rising) of the first `count` boxes that non-maximum suppression keeps.

    Boxes are n x 4, by falling score. They are processed in blocks: what the kept boxes of a block suppress is left out
    of later blocks.
    """
    left, kept, found = torch.arange(len(boxes)), [], 0
    while len(left) and found < count:
        block, left = left[:NMS_BLOCK], left[NMS_BLOCK:]
        kept.append(block[nms(boxes[block], scores[block], nms_iou)])
        found += len(kept[-1])
        if found < count:
            left = left[(box_iou(boxes[kept[-1]], boxes[left]) <= nms_iou).all(0)]
    return torch.cat(kept)[:count] if kept else left
