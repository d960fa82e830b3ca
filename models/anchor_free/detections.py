"""From the predictions at all cells of an image to the people in it, and to the cells that stand for given boxes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image

from models.anchor_free.cells import STRIDE
from models.preprocess import Size
from models.results import Thresholds, keep_best


class Detections(NamedTuple):
    """People of an image, by falling score.

    Attributes:
        boxes: n x 4, in pixels of the resized image, or restored to those of the original.
        scores: n, probability of a person times centre-ness.
        cells: int64 n, the cell that gave each.
    """

    boxes: Tensor
    scores: Tensor
    cells: Tensor


@dataclass(frozen=True)
class Detector:
    """Which cells become detections (FCOS).

    Attributes:
        min_probability: lowest probability of a person, exclusive; centre-ness does not count.
        max_candidates: cells with the best scores that are looked at.
        nms_iou, max_detections: see `Thresholds`.
    """

    min_probability: float
    max_candidates: int
    nms_iou: float
    max_detections: int

    def __call__(
        self, logits: Tensor, distances: Tensor, centreness: Tensor, centres: Tensor, size: Size
    ) -> Detections:
        """The people of an image of this resized size.

        Args:
            logits, centreness: of the N cells.
            distances: N x 4, see `DenseHead.locate`.
            centres: N x 2, see `cell_centres`.
            size: height and width without padding, to which boxes are clipped.
        """
        probabilities = logits.sigmoid()
        scores, cells = (probabilities * centreness.sigmoid()).topk(min(self.max_candidates, len(logits)))
        sides, points = STRIDE * distances[cells], centres[cells]
        boxes = clip_boxes_to_image(torch.cat([points - sides[:, :2], points + sides[:, 2:]], dim=1), size)
        eligible = torch.where(probabilities[cells] > self.min_probability)[0]
        thresholds = Thresholds(-1.0, self.nms_iou, self.max_detections)
        kept = eligible[keep_best(boxes[eligible], scores[eligible], thresholds)]
        return Detections(boxes[kept], scores[kept], cells[kept])


def best_overlapping(boxes: Tensor, found: Detections, centre_cells: Tensor) -> Tensor:
    """The cell of the detection that overlaps each box most, by the IoU of pixels as released: int64 g.

    Args:
        boxes: g x 4, in pixels of the original image, as those of `found`.
        centre_cells: the cells under the boxes' centres, which stand for boxes that no detection overlaps (our choice:
            the release takes the best detection of the image, and fails where there is none).
    """
    if not len(found.boxes):
        return centre_cells
    last_pixel = boxes.new_tensor([0, 0, 1, 1])  # a box of pixels 3 to 5 is 3 wide
    overlaps, best = box_iou(boxes + last_pixel, found.boxes + last_pixel).max(dim=1)
    return found.cells[best].where(overlaps > 0, centre_cells)


def under_centre(_: Tensor, __: Detections, centre_cells: Tensor) -> Tensor:
    """The cells under the boxes' centres."""
    return centre_cells


QUERY_CELLS: dict[str, Callable[[Tensor, Detections, Tensor], Tensor]] = {
    "overlap": best_overlapping,
    "centre": under_centre,
}
"""How given boxes are embedded -> function that chooses a cell for each."""
