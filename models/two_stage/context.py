"""Context of a person (GLCNet): the scene (the whole image) and the group (its people), each through an extractor.

An extractor is a module from a map B x C x h x w to one of that shape, made from the number of channels C; its global
maximum is the vector of the context. A new one is a class here and a line in `SCENE_EXTRACTORS` or `GROUP_EXTRACTORS`.
`Companions` is another group context, made from the people's own embeddings.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from models.roi import RoIs

HIDDEN = 256  # channels between the convolutions of an extractor, in all releases


def _conv_bn_relu(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def stack(channels: int, kernels: tuple[int, int, int], outputs: int | None = None) -> nn.Sequential:
    """Three convolutions (release of 2021).

    Args:
        channels: C.
        kernels: side of each convolution's kernel.
        outputs: channels of the last one; None: C.
    """
    widths = (channels, HIDDEN, HIDDEN, channels if outputs is None else outputs)
    layers = zip(widths[:-1], widths[1:], kernels, strict=True)
    return nn.Sequential(*(module for layer in layers for module in _conv_bn_relu(*layer)))


class Gate(nn.Module):
    """x a + x, a being an attention map learned from x (scene, release of 2024)."""

    def __init__(self, channels: int):
        super().__init__()
        self.convs = stack(channels, (3, 3, 3), outputs=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.convs(x).sigmoid() + x


class ChannelAttention(nn.Module):
    """A weight in (0, 1) for each channel, B x C x 1 x 1, from its mean and its maximum."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(channels, channels // 16, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 16, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.fc(x.mean((2, 3), keepdim=True)) + self.fc(x.amax((2, 3), keepdim=True))).sigmoid()


class SpatialAttention(nn.Module):
    """A weight in (0, 1) for each position, B x 1 x h x w, from the mean and the maximum of its channels.

    Args:
        kernel: side of the convolution's kernel.
        bias: whether the convolution has one.
    """

    def __init__(self, kernel: int = 5, bias: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


class MultiScale(nn.Module):
    """Branches of three kernel sizes, summed, weighted by an attention of x, plus x (release of 2024).

    Args:
        channels: C.
        attention: gives the weights, of a shape that broadcasts over B x C x h x w.
    """

    def __init__(self, channels: int, attention: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*_conv_bn_relu(channels, HIDDEN, kernel), *_conv_bn_relu(HIDDEN, channels, kernel))
            for kernel in (1, 3, 5)
        )
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return sum(branch(x) for branch in self.branches) * self.attention(x) + x


class CoAttention(nn.Module):
    """What the images of a batch have in common.

    Every position's affinity to each image of the batch is its largest dot product there; averaged over the images,
    scaled by C^-0.5 and put through a softmax over positions, it weights x; a 1 x 1 convolution and a mean over batch
    and space make one prototype vector, by which x is multiplied. The images of a batch are mixed, so a result depends
    on its neighbours.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.query, self.key, self.project = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.scale = channels**-0.5

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        queries = self.query(x).flatten(2).transpose(1, 2) * self.scale  # scaled first: float16 ends at 65504
        keys = self.key(x).flatten(2)
        # By pairs of images: the largest matrix is hw x hw, and none is kept for the backward pass.
        affinity = [torch.stack([(q @ k).max(1).values for k in keys]).mean(0) for q in queries]
        weights = torch.stack(affinity).softmax(1).view(batch, 1, height, width)
        prototype = self.project(x * weights).mean((0, 2, 3), keepdim=True)
        return x * prototype


SCENE_EXTRACTORS: dict[str, Callable[[int], nn.Module]] = {
    "stack": lambda channels: stack(channels, (3, 3, 3)),
    "gate": Gate,
    "multiscale": lambda channels: MultiScale(channels, SpatialAttention()),
    "coattention": CoAttention,
    "pool": lambda _: nn.Identity(),
}

GROUP_EXTRACTORS: dict[str, Callable[[int], nn.Module]] = {
    "stack": lambda channels: stack(channels, (1, 1, 3)),
    "multiscale": lambda channels: MultiScale(channels, ChannelAttention(channels)),
    "coattention": CoAttention,
    "pool": lambda _: nn.Identity(),
}


class Context(nn.Module):
    """A vector of context for each RoI.

    Args:
        extractor: see above.
        channels: C, of the extractor's input and output.
    """

    def __init__(self, extractor: nn.Module, channels: int):
        super().__init__()
        self.extractor, self.channels = extractor, channels


class SceneContext(Context):
    """The vector of the whole image, from its res4 map, R x C."""

    def forward(self, rois: RoIs, *_: Any) -> Tensor:
        return _repeated(self.extractor(rois.feature_map), rois.counts)


class GroupContext(Context):
    """The vector of a group, from the mean res5 vector of its people; the mean of no people is zero."""

    def forward(self, _: RoIs, res5: Tensor, group_masks: list[Tensor]) -> Tensor:
        """The vectors, R x C.

        Args:
            res5: the res5 vectors of the RoIs, R x C.
            group_masks: consecutive bool masks that partition the R RoIs. RoIs of one mask share a group: those marked
                True.
        """
        sizes = [len(mask) for mask in group_masks]
        # Masked, as choosing rows would wait for the device.
        means = [
            vectors.float().where(mask[:, None], 0).sum(0) / mask.sum().clamp(min=1)
            for vectors, mask in zip(res5.split(sizes), group_masks, strict=True)
        ]
        return _repeated(self.extractor(torch.stack(means)[:, :, None, None]), sizes)


class Companions(nn.Module):
    """Appends the mean embedding of the other people of the image to each person's own (this project's, no paper's).

    From an embedding e and the companions' mean c comes (e, w c) / |(e, w c)|; without companions c is zero. The weight
    w is learned. Embeddings enter c without gradient: they are learned as what tells a person apart. RoIs that overlap
    one by `SAME_PERSON` or more show the same person, who is no companion and counts once in the mean of others.

    Args:
        weight: w at the start of training.
        search_factor: factor on w in eval mode.
    """

    SAME_PERSON = 0.4

    def __init__(self, weight: float = 0.5, search_factor: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.search_factor = search_factor

    def forward(self, embeddings: Tensor, boxes: Tensor, group_masks: list[Tensor]) -> Tensor:
        """Embeddings R x 2 D (unit vectors) from embeddings R x D (unit vectors) and their boxes R x 4.

        For `group_masks` see `GroupContext`.
        """
        sizes = [len(mask) for mask in group_masks]
        with torch.autocast(embeddings.device.type, enabled=False):
            groups = zip(embeddings.detach().split(sizes), boxes.split(sizes), group_masks, strict=True)
            means = torch.cat([self._means(*group) for group in groups])
            weight = self.weight if self.training else self.weight * self.search_factor
            return F.normalize(torch.cat([embeddings, weight * means], dim=1))

    def _means(self, embeddings: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
        same = (box_iou(boxes, boxes) >= self.SAME_PERSON) & mask
        shares = mask / same.sum(1).clamp(min=1)  # of a RoI in its person
        weights = shares.where(~same, 0)
        return weights @ embeddings / weights.sum(1, keepdim=True).clamp(min=1e-6)


def _repeated(maps: Tensor, counts: list[int]) -> Tensor:
    """The global maximum of each map, as often as its count says."""
    vectors = maps.amax((2, 3))
    return torch.cat([vector.expand(count, -1) for vector, count in zip(vectors, counts, strict=True)])
