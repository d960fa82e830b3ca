"""The first convolutions of a ResNet's tail on the feature map instead of on the crops, for CPUs.

The first block of `layer4` begins with two 1 x 1 convolutions, the main path's and the shortcut's. They and RoIAlign
are both linear, so they can change places: RoIs overlap, and a map has far fewer cells than 300 crops have bins.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from models.fast.roi_align import gathered_crops
from models.roi import RoIs, Tail

MIN_BINS_PER_CELL = 2.0
"""RoI bins per map cell from which convolving the map and cropping the result is cheaper than convolving the crops."""


def begins_with_bottleneck(tail: Tail) -> bool:
    """Whether a tail is a ResNet's `layer4` of bottleneck blocks."""
    layer4 = getattr(tail, "layer4", None)
    return layer4 is not None and isinstance(layer4[0], Bottleneck) and layer4[0].conv1.stride == (1, 1)


def tail_on_rois(tail: Tail, rois: RoIs) -> Tensor:
    """The output of `tail(rois.crops)`, convolved on the map where that is cheaper."""
    first, *others = tail.layer4
    step = first.stride
    # Checkpointing recomputes the tail from the crops.
    if (tail.checkpointed and tail.training) or bins_per_cell(rois) < MIN_BINS_PER_CELL:
        return tail(rois.crops)
    x = first.relu(first.bn1(_convolved(rois, first.conv1)))
    x = first.relu(first.bn2(first.conv2(x)))
    x = first.bn3(first.conv3(x))
    shortcut, norm = first.downsample
    if bins_per_cell(rois, step) < MIN_BINS_PER_CELL:
        x += first.downsample(rois.crops)
    else:
        x += norm(_convolved(rois, shortcut, step))
    x = first.relu(x)
    for block in others:
        x = block(x)
    return x


def bins_per_cell(rois: RoIs, step: int = 1) -> float:
    """Bins of the crops (every `step`-th) per cell of the feature map."""
    batch, _, height, width = rois.feature_map.shape
    rows, columns = (len(range(0, size, step)) for size in rois.roi_align.output_size)
    return sum(rois.counts) * rows * columns / (batch * height * width)


def _convolved(rois: RoIs, conv: nn.Conv2d, step: int = 1) -> Tensor:
    """A 1 x 1 convolution of the RoIs' crops (of every `step`-th bin), computed on the map.

    Its bias, which folded batch norms leave, is added to the crops: samples outside the map count 0, not the bias.
    """
    crops = gathered_crops(rois.roi_align, F.conv2d(rois.feature_map, conv.weight), rois.boxes, step)
    return crops if conv.bias is None else crops.add_(conv.bias[:, None, None])
