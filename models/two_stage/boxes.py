"""Boxes of the two heads: sampling RoIs for training, and learning and decoding box deltas."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher, encode_boxes
from torchvision.models.detection._utils import BoxCoder as TorchvisionBoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image

from models.base import Targets
from models.preprocess import Size
from utils.labels import BACKGROUND

NUM_CLASSES, PERSON = 2, 1  # person is class 1, background class 0


class BoxCoder(TorchvisionBoxCoder):
    """torchvision's coder of box deltas, without its copies of single numbers to the device in each call."""

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Deltas n x 4 that move the proposals n x 4 to the reference boxes n x 4."""
        return encode_boxes(reference_boxes, proposals, self.weights)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """The boxes n x 4 that the deltas n x 4 encode, relative to `boxes`."""
        boxes = boxes.to(rel_codes.dtype)
        size = boxes[:, 2:] - boxes[:, :2]
        dx, dy, dw, dh = (code / weight for code, weight in zip(rel_codes.unbind(1), self.weights, strict=True))
        centre = torch.stack([dx, dy], 1) * size + (boxes[:, :2] + 0.5 * size)
        half = 0.5 * (torch.stack([dw, dh], 1).clamp(max=self.bbox_xform_clip).exp() * size)
        return torch.cat([centre - half, centre + half], dim=1)


BOX_CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))
"""The coder of both heads, with the scale of dx, dy, dw and dh of Fast R-CNN."""


@dataclass
class Samples:
    """The RoIs that one image contributes to the losses of a head.

    Attributes:
        boxes: n x 4, pixels of the resized image.
        labels: int64 n, identities; background and people without identity as in `utils.labels`.
        matched: n x 4, the ground-truth box of each person. A background RoI has the first one of the image, as in
            torchvision, or itself where there is none.
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor

    @property
    def is_person(self) -> Tensor:
        """bool n."""
        return self.labels != BACKGROUND


class EqualSampler(BalancedPositiveNegativeSampler):
    """For one image: as many negative as positive examples, but two where none is positive."""

    def __call__(self, classes: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        positives = min(int((classes[0] >= 1).sum()), int(self.batch_size_per_image * self.positive_fraction))
        return BalancedPositiveNegativeSampler(2 * max(positives, 1), 0.5)(classes)


class RoISampler:
    """Choose the RoIs of an image that a head learns from (Fast R-CNN), ground truth included.

    Args:
        batch_size: RoIs per image.
        positive_fraction: largest share of people among them.
        foreground_iou: IoU with a ground-truth box from which a RoI shows that person.
        background_iou: IoU below which it is background; RoIs between the two are not used (NAE: 0.1).
        equal: no more background than people (SEAS), but two where there is nobody.
    """

    def __init__(
        self,
        batch_size: int,
        positive_fraction: float,
        foreground_iou: float,
        background_iou: float,
        equal: bool = False,
    ):
        self.matcher = Matcher(foreground_iou, background_iou, allow_low_quality_matches=False)
        self.sampler = (EqualSampler if equal else BalancedPositiveNegativeSampler)(batch_size, positive_fraction)

    @torch.no_grad()
    def __call__(self, boxes: list[Tensor], targets: Targets) -> list[Samples]:
        """Sample among `boxes` (per image n x 4) and the targets' own `boxes`, which have `labels`."""
        return [self._sample(image_boxes, target) for image_boxes, target in zip(boxes, targets, strict=True)]

    def _sample(self, boxes: Tensor, target: dict[str, Tensor]) -> Samples:
        truth = target["boxes"].float()
        boxes = torch.cat([boxes.float(), truth])
        if not len(truth):
            labels, matched, classes = target["labels"].new_zeros(len(boxes)), boxes, boxes.new_zeros(len(boxes))
        else:
            match = self.matcher(box_iou(truth, boxes))  # -1 below, -2 between the thresholds
            person = match.clamp(min=0)
            labels = target["labels"][person].masked_fill(match < 0, BACKGROUND)
            matched = truth[person]
            classes = (match >= 0).to(boxes.dtype)
            classes = classes.masked_fill(match == Matcher.BETWEEN_THRESHOLDS, -1)  # the sampler ignores -1
        positive, negative = self.sampler([classes])
        chosen = torch.where(positive[0] | negative[0])[0]
        return Samples(boxes[chosen], labels[chosen], matched[chosen])


def person_deltas(deltas: Tensor) -> Tensor:
    """The four deltas of the person class, n x 4: all, or the last four of those of both classes, n x 8."""
    return deltas[:, -4:]


def decode_boxes(deltas: Tensor, boxes: list[Tensor], sizes: list[Size]) -> list[Tensor]:
    """Decode the person class's deltas (R x 4 or 8) of boxes (per image n x 4), and clip them to their image."""
    decoded = BOX_CODER.decode_single(person_deltas(deltas), torch.cat(boxes))
    decoded = decoded.nan_to_num()  # where training diverges: torchvision's kernels may crash on a NaN box
    per_image = decoded.split([len(image_boxes) for image_boxes in boxes])
    return [clip_boxes_to_image(image_boxes, size) for image_boxes, size in zip(per_image, sizes, strict=True)]


def box_regression_loss(deltas: Tensor, samples: list[Samples]) -> Tensor:
    """Smooth L1 (beta 1) of the person class's deltas, summed over people and divided by the number of sampled RoIs.

    Background RoIs are masked, not left out, as choosing rows would wait for the device. Their targets are masked too:
    those of a RoI of zero width are infinite or NaN, and would make the gradient so.
    """
    is_person = torch.cat([s.is_person for s in samples])
    encoded = BOX_CODER.encode_single(torch.cat([s.matched for s in samples]), torch.cat([s.boxes for s in samples]))
    regression_targets = encoded.where(is_person[:, None], 0)
    losses = F.smooth_l1_loss(person_deltas(deltas), regression_targets, beta=1.0, reduction="none").sum(1)
    return losses.where(is_person, 0).sum() / max(len(is_person), 1)
