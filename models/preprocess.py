"""Preprocessing of images, the same for training and searching: normalise, resize, pad."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of RGB values in [0, 1], of torchvision's ImageNet weights."""

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class PixelFormat:
    """How a backbone takes its pixels.

    Attributes:
        mean, std: of values in [0, 1], channels in the backbone's order.
        bgr: channels are blue, green, red.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


PIXEL_FORMATS = {
    "rgb": PixelFormat(IMAGENET_MEAN, IMAGENET_STD),
    # 0 ... 255 less ImageNet's mean, as for the ResNets of Caffe, whose names and values these are in Detectron2.
    "bgr": PixelFormat((103.53 / 255, 116.28 / 255, 123.675 / 255), (1 / 255,) * 3, bgr=True),
}
"""MODEL.BACKBONE.PIXELS -> the format: torchvision's weights, or the Caffe ones of MSRA and Detectron2."""


@dataclass
class ImageBatch:
    """Images as the network takes them.

    Attributes:
        tensors: float, B x 3 x H x W, normalised, resized, and padded with zeros on the right and at the bottom.
        sizes: height and width of each resized image, without padding.
        original_sizes: height and width of each image before it was resized.
    """

    tensors: Tensor
    sizes: list[Size]
    original_sizes: list[Size]

    def resize_boxes(self, boxes: list[Tensor]) -> list[Tensor]:
        """Boxes (per image n x 4) in pixels of the original images, in pixels of the resized ones."""
        return [_scaled(*args) for args in zip(boxes, self.original_sizes, self.sizes, strict=True)]

    def restore_boxes(self, boxes: list[Tensor]) -> list[Tensor]:
        """Boxes (per image n x 4) in pixels of the resized images, in pixels of the original ones."""
        return [_scaled(*args) for args in zip(boxes, self.sizes, self.original_sizes, strict=True)]


class Preprocess(nn.Module):
    """Normalise and resize images as torchvision's `GeneralizedRCNNTransform` does, and pad them to one size.

    Args:
        min_size: short side of a resized image, in pixels.
        max_size: upper limit of its long side, which takes precedence.
        size_divisible: height and width of the padded batch are multiples of it.
        pixels: a key of `PIXEL_FORMATS`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, min_size: int, max_size: int, size_divisible: int = 32, pixels: str = "rgb"):
        super().__init__()
        self.min_size, self.max_size, self.size_divisible = min_size, max_size, size_divisible
        self.pixels = PIXEL_FORMATS[pixels]
        self.register_buffer("mean", torch.tensor(self.pixels.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.pixels.std).view(-1, 1, 1), persistent=False)

    def forward(self, images: list[Tensor], scales: Sequence[float] | None = None) -> ImageBatch:
        """A batch of images: uint8, or float in [0, 1], RGB, 3 x H x W, of any sizes, on the device of this module.

        `scales` are factors on `min_size` and `max_size`, one for each image.
        """
        scales = [1.0] * len(images) if scales is None else scales
        resized = [self.resize(image, scale) for image, scale in zip(images, scales, strict=True)]
        sizes = [(image.shape[1], image.shape[2]) for image in resized]
        height, width = (self._padded(max(sides)) for sides in zip(*sizes, strict=True))
        tensors = torch.stack([F.pad(i, (0, width - i.shape[2], 0, height - i.shape[1])) for i in resized])
        return ImageBatch(tensors, sizes, [(image.shape[1], image.shape[2]) for image in images])

    def resize(self, image: Tensor, scale: float = 1.0) -> Tensor:
        """One image (as in `forward`), normalised and resized bilinearly."""
        if image.dim() != 3:
            raise ValueError(f"images must be 3 x H x W, but one is {tuple(image.shape)}")
        pixels = image if image.is_floating_point() else image.float() / 255
        normalised = ((pixels.flip(0) if self.pixels.bgr else pixels) - self.mean) / self.std
        return F.interpolate(normalised[None], self.resized_size(*image.shape[1:], scale), mode="bilinear")[0]

    def resized_size(self, height: int, width: int, scale: float = 1.0) -> Size:
        """Height and width that an image of this height and width is resized to, with limits `scale` times as large."""
        short, long = round(self.min_size * scale), round(self.max_size * scale)
        factor = min(short / min(height, width), long / max(height, width))
        return math.floor(height * factor), math.floor(width * factor)

    def padded_size(self, height: int, width: int) -> Size:
        """Height and width that an image of this height and width has in a batch of its own."""
        resized_height, resized_width = self.resized_size(height, width)
        return self._padded(resized_height), self._padded(resized_width)

    def _padded(self, side: int) -> int:
        return math.ceil(side / self.size_divisible) * self.size_divisible


def _scaled(boxes: Tensor, size: Size, new_size: Size) -> Tensor:
    """Boxes n x 4 in an image of `size`, after it was resized to `new_size`.

    Factors are Python numbers: a tensor of them would be copied to the device for each image.
    """
    vertical, horizontal = (new / old for new, old in zip(new_size, size, strict=True))
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([left * horizontal, top * vertical, right * horizontal, bottom * vertical], dim=1)
