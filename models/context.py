"""Context of a person: the scene (the whole image) and the group (the people in it), each through an extractor.

An extractor is a module from a map B x C x h x w to a vector B x C, made from the number of channels C. A new one is a
class here and a line in `SCENE_EXTRACTORS` or `GROUP_EXTRACTORS`, under the name that MODEL.CONTEXT.SCENE or .GROUP
then takes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

HIDDEN = 256
"""Channels between the convolutions of an extractor, in all releases."""


def _conv_bn_relu(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A convolution that keeps the map's size, with bias, then batch norm and ReLU."""
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Stack(nn.Sequential):
    """Three convolutions, then a global max pool (release of 2021).

    Args:
        channels: C.
        kernels: side of each convolution's kernel.
    """

    def __init__(self, channels: int, kernels: tuple[int, int, int]):
        widths = (channels, HIDDEN, HIDDEN, channels)
        layers = zip(widths[:-1], widths[1:], kernels, strict=True)
        super().__init__(*(module for layer in layers for module in _conv_bn_relu(*layer)))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).amax((2, 3))


class Gate(nn.Module):
    """x a + x, a being an attention map learned from x, then a global max pool (scene, release of 2024)."""

    def __init__(self, channels: int):
        super().__init__()
        widths = ((channels, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1))
        self.convs = nn.Sequential(*(m for inputs, outputs in widths for m in _conv_bn_relu(inputs, outputs, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.convs(x).sigmoid() + x).amax((2, 3))


class ChannelAttention(nn.Module):
    """A weight in (0, 1) for each channel, B x C x 1 x 1, from its mean and its maximum."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // reduction, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.fc(x.mean((2, 3), keepdim=True)) + self.fc(x.amax((2, 3), keepdim=True))).sigmoid()


class SpatialAttention(nn.Module):
    """A weight in (0, 1) for each position, B x 1 x h x w, from the mean and the maximum of its channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


class MultiScale(nn.Module):
    """Branches of three kernel sizes, summed, weighted by an attention of x, plus x, then a global max pool (2024).

    Args:
        channels: C.
        attention: gives the weights, of a shape that broadcasts over B x C x h x w.
    """

    KERNELS = (1, 3, 5)

    def __init__(self, channels: int, attention: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*_conv_bn_relu(channels, HIDDEN, kernel), *_conv_bn_relu(HIDDEN, channels, kernel))
            for kernel in self.KERNELS
        )
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return (sum(branch(x) for branch in self.branches) * self.attention(x) + x).amax((2, 3))


class CoAttention(nn.Module):
    """What the images of a batch have in common, then a global max pool.

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
        positions = height * width
        queries = self.query(x).flatten(2).transpose(1, 2).flatten(0, 1)  # (B h w) x C
        keys = self.key(x).flatten(2).transpose(1, 2).flatten(0, 1)
        affinity = (queries @ keys.T).view(batch * positions, batch, positions).amax(2).mean(1)
        weights = (affinity.view(batch, positions) * self.scale).softmax(1).view(batch, 1, height, width)
        prototype = self.project(x * weights).mean((0, 2, 3), keepdim=True)
        return (x * prototype).amax((2, 3))


class Pool(nn.Module):
    """A global max pool alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


SCENE_EXTRACTORS: dict[str, Callable[[int], nn.Module]] = {
    "stack": lambda channels: Stack(channels, (3, 3, 3)),
    "gate": Gate,
    "multiscale": lambda channels: MultiScale(channels, SpatialAttention()),
    "coattention": CoAttention,
    "pool": lambda _: Pool(),
}

GROUP_EXTRACTORS: dict[str, Callable[[int], nn.Module]] = {
    "stack": lambda channels: Stack(channels, (1, 1, 3)),
    "multiscale": lambda channels: MultiScale(channels, ChannelAttention(channels)),
    "coattention": CoAttention,
    "pool": lambda _: Pool(),
}


class SceneContext(nn.Module):
    """One vector for the whole image."""

    def __init__(self, extractor: nn.Module, channels: int):
        super().__init__()
        self.extractor, self.channels = extractor, channels

    def forward(self, feature_map: Tensor, people: list[Tensor]) -> Tensor:  # noqa: ARG002 - the interface of contexts
        """From the res4 map B x C x h x w to B x C; the people (see `GroupContext`) play no part."""
        return self.extractor(feature_map)


class GroupContext(nn.Module):
    """One vector for the people of an image: their mean res5 vector through an extractor."""

    def __init__(self, extractor: nn.Module, channels: int):
        super().__init__()
        self.extractor, self.channels = extractor, channels

    def forward(self, feature_map: Tensor, people: list[Tensor]) -> Tensor:  # noqa: ARG002 - the interface of contexts
        """From the res5 vectors of each image's people, n_i x C, to B x C. Without people the mean is zero."""
        means = torch.stack([vectors.sum(0) / max(len(vectors), 1) for vectors in people])
        return self.extractor(means[:, :, None, None])
