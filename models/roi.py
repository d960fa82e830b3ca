"""What both heads do with regions of interest (RoIs): sample them, decode and learn their boxes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import box_iou, clip_boxes_to_image

from utils.labels import BACKGROUND

BOX_CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Scale of the box deltas dx, dy, dw, dh (Fast R-CNN)."""

NUM_CLASSES = 2
PERSON = 1
"""Index of the person among the two classes; 0 is the background."""


@dataclass
class Samples:
    """The RoIs that one image contributes to a loss.

    Attributes:
        boxes: n x 4, pixels of the resized image.
        labels: int64 n, person ids; background and people without identity as in `utils.labels`.
        matched: n x 4, the ground-truth box of each (of a background RoI: the nearest, or itself without any).
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor

    @property
    def is_person(self) -> Tensor:
        return self.labels != BACKGROUND


class RoISampler:
    """Choose the RoIs of an image that a head learns from (Fast R-CNN), ground truth included.

    Args:
        batch_size: RoIs per image.
        positive_fraction: largest share of people among them.
        foreground_iou: IoU with a ground-truth box from which a RoI shows that person.
        background_iou: IoU below which it is background; RoIs between the two are not used (NAE: 0.1).
    """

    def __init__(self, batch_size: int, positive_fraction: float, foreground_iou: float, background_iou: float):
        self.matcher = Matcher(foreground_iou, background_iou, allow_low_quality_matches=False)
        self.sampler = BalancedPositiveNegativeSampler(batch_size, positive_fraction)

    @torch.no_grad()
    def __call__(self, boxes: list[Tensor], targets: list[dict[str, Tensor]]) -> list[Samples]:
        """Sample among `boxes` (per image n x 4) and the targets' own `boxes`, which have `labels`."""
        return [self._sample(image_boxes, target) for image_boxes, target in zip(boxes, targets, strict=True)]

    def _sample(self, boxes: Tensor, target: dict[str, Tensor]) -> Samples:
        truth = target["boxes"].float()
        boxes = torch.cat([boxes.float(), truth])
        if not len(truth):
            labels, matched, classes = target["labels"].new_zeros(len(boxes)), boxes, boxes.new_zeros(len(boxes))
        else:
            match = self.matcher(box_iou(truth, boxes))
            labels = target["labels"][match.clamp(min=0)]
            labels = labels.masked_fill(match < 0, BACKGROUND)
            matched = truth[match.clamp(min=0)]
            classes = (match >= 0).to(boxes.dtype)
            classes = classes.masked_fill(match == Matcher.BETWEEN_THRESHOLDS, -1)  # the sampler passes over -1
        positive, negative = self.sampler([classes])
        chosen = torch.where(positive[0] | negative[0])[0]
        return Samples(boxes[chosen], labels[chosen], matched[chosen])


def person_deltas(deltas: Tensor) -> Tensor:
    """The four deltas of the person class, n x 4, out of those of both classes, n x 8."""
    return deltas.view(len(deltas), NUM_CLASSES, 4)[:, PERSON]


def decode_boxes(
    deltas: Tensor, boxes: list[Tensor], sizes: list[tuple[int, int]], box_coder: BoxCoder
) -> list[Tensor]:
    """Move boxes by the person class's deltas and clip them to their image; per image n x 4."""
    moved = box_coder.decode_single(person_deltas(deltas), torch.cat(boxes))
    per_image = moved.split([len(image_boxes) for image_boxes in boxes])
    return [clip_boxes_to_image(image_boxes, size) for image_boxes, size in zip(per_image, sizes, strict=True)]


def box_regression_loss(deltas: Tensor, samples: list[Samples], box_coder: BoxCoder) -> Tensor:
    """Smooth L1 (beta 1) of the person class's deltas, summed over people and divided by the number of sampled RoIs."""
    is_person = torch.cat([s.is_person for s in samples])
    wanted = torch.cat(box_coder.encode([s.matched for s in samples], [s.boxes for s in samples]))
    losses = F.smooth_l1_loss(person_deltas(deltas), wanted, beta=1.0, reduction="none").sum(1)
    return losses.where(is_person, 0).sum() / max(len(is_person), 1)  # choosing rows would wait for the device


def new_box_coder() -> BoxCoder:
    """The coder of both heads."""
    return BoxCoder(BOX_CODER_WEIGHTS)
