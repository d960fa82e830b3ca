"""Preprocessing of images, the same for training and searching: normalise, resize, pad."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of RGB values in [0, 1], of torchvision's ImageNet weights."""

Size = tuple[int, int]
"""Height and width in pixels."""


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
    """

    mean: Tensor
    std: Tensor

    def __init__(self, min_size: int, max_size: int, size_divisible: int = 32):
        super().__init__()
        self.min_size, self.max_size, self.size_divisible = min_size, max_size, size_divisible
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(-1, 1, 1), persistent=False)

    def forward(self, images: list[Tensor]) -> ImageBatch:
        """A batch of images: uint8, or float in [0, 1], RGB, 3 x H x W, of any sizes, on the device of this module."""
        resized = [self.resize(image) for image in images]
        sizes = [(image.shape[1], image.shape[2]) for image in resized]
        height, width = (self._padded(max(sides)) for sides in zip(*sizes, strict=True))
        tensors = torch.stack([F.pad(i, (0, width - i.shape[2], 0, height - i.shape[1])) for i in resized])
        return ImageBatch(tensors, sizes, [(image.shape[1], image.shape[2]) for image in images])

    def resize(self, image: Tensor) -> Tensor:
        """One image (as in `forward`), normalised and resized bilinearly."""
        if image.dim() != 3:
            raise ValueError(f"images must be 3 x H x W, but one is {tuple(image.shape)}")
        pixels = image if image.is_floating_point() else image.float() / 255
        normalised = (pixels - self.mean) / self.std
        return F.interpolate(normalised[None], self.resized_size(*image.shape[1:]), mode="bilinear")[0]

    def resized_size(self, height: int, width: int) -> Size:
        """Height and width that an image of this height and width is resized to."""
        scale = min(self.min_size / min(height, width), self.max_size / max(height, width))
        return math.floor(height * scale), math.floor(width * scale)

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
