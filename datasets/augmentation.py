"""What is done to a training image and its boxes: cropping, colour jitter, mirroring."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_area
from torchvision.transforms.v2 import ColorJitter
from torchvision.transforms.v2.functional import resized_crop

from utils.labels import BACKGROUND

Item = tuple[Tensor, dict[str, Any]]
"""An image 3 x H x W and its target, see PersonSearchDataset."""

MIN_VISIBLE = 0.6
"""Share of a box's area from which a crop keeps it; this and the next two are those of `rrc2`, see RandomCrops."""
CANVAS = 3
"""Sides of the padded image, in crops."""
EROSION = 0.1
"""Share of a box's width and height that a safe crop may cut off at each edge."""


@dataclass(frozen=True)
class RandomCrops:
    """Square crops of images: `rrc2` of the Gallery Filter Network's code (Jaffe and Zakhor, WACV 2023).

    The image is taken to be as large as in a test, and to have a black border that makes it three crops wide and high
    where it is not. Then follows, at equal chance,

    - a focused crop: a square that contains one person with identity, chosen at random, and lies anywhere else; it has
      the size of the crop, or of the person if that is larger. Without such a person it contains a pixel of the image,
      where the release has it anywhere, which may be in the border.
    - a safe crop: a rectangle around all people, each of whose edges lies anywhere between them and the border's edge;
      of the outermost people a tenth may be missing. It is scaled to a square: proportions change.

    A box stays if 60 % of its area are in the crop, and is clipped.

    Args:
        size: side of the crop in pixels.
        min_size, max_size: limits of a resized image's short and long side in a test, in pixels.
    """

    size: int
    min_size: int
    max_size: int

    def __call__(self, image: Tensor, target: dict[str, Any], scale: float, seed: int) -> Item:
        """A crop of an image that counts as `scale` times as large as in a test, and the target of what is in it."""
        rng, (height, width) = np.random.default_rng(seed), image.shape[1:]
        resized = scale * min(self.min_size / min(height, width), self.max_size / max(height, width))
        side = round(self.size / resized)
        canvas = padded(height, width, CANVAS * side)
        boxes, known = target["boxes"].numpy(), target["boxes"][target["labels"] > BACKGROUND].numpy()
        if rng.random() < 0.5 and len(boxes):
            return cut(image, target, safe_window(boxes, canvas, rng), self.size)
        pixel = rng.integers([width, height])
        box = known[rng.integers(len(known))] if len(known) else np.concatenate([pixel, pixel + 1])
        return cut(image, target, focused_window(box.astype(np.int64), canvas, side, rng), self.size)

    @property
    def scale(self) -> float:
        """The factor on a test's image size that leaves crops as they are, and gives images the short side `size`."""
        return self.size / self.min_size


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random.

    Attributes:
        flip_prob: probability that an image is mirrored.
        scales: factors on the size that an image is resized to, of which each is as probable.
        crops: None for whole images alone.
        whole_share: share of the batches that hold whole images nevertheless, with the crops' side as short side.
        jitter: how much brightness, contrast, saturation and hue vary, see `jitter_colours`.
    """

    flip_prob: float = 0.5
    scales: Sequence[float] = (1.0,)
    crops: RandomCrops | None = None
    whole_share: float = 0.0
    jitter: Sequence[float] = (0.0, 0.0, 0.0, 0.0)

    @property
    def crop_share(self) -> float:
        """Share of the batches that hold crops."""
        return 0.0 if self.crops is None else 1.0 - self.whole_share


FLIP = Augmentation()
"""Mirroring alone."""


def padded(height: int, width: int, least: int) -> np.ndarray:
    """Edges x1, y1, x2, y2 of an image with a border on both sides that makes it at least so wide and high."""
    right, bottom = max(width, (width + least) // 2), max(height, (height + least) // 2)
    return np.array([min(right - least, 0), min(bottom - least, 0), right, bottom])


def focused_window(box: np.ndarray, canvas: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A square in the canvas with a box in it (int64 x1, y1, x2, y2); its side is larger than `side` if the box is."""
    side = max(side, *(box[2:] - box[:2]).tolist())
    outermost = canvas[:2], canvas[2:] - side  # in reverse order if the square is larger than the canvas
    first = np.maximum(np.minimum(*outermost), box[2:] - side)
    last = np.minimum(np.maximum(*outermost), box[:2])
    start = rng.integers(first, last, endpoint=True)
    return np.concatenate([start, start + side])


def safe_window(boxes: np.ndarray, canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rectangle in the canvas around the boxes (n x 4, at least one), each cut by EROSION; int64 x1, y1, x2, y2."""
    cut_off = EROSION * (boxes[:, 2:] - boxes[:, :2])
    core = np.concatenate([(boxes[:, :2] + cut_off).min(axis=0), (boxes[:, 2:] - cut_off).max(axis=0)])
    edges = core + rng.random(4) * (canvas - core)
    return np.concatenate([np.floor(edges[:2]), np.ceil(edges[2:])]).astype(np.int64)


def cut(image: Tensor, target: dict[str, Any], window: np.ndarray, size: int) -> Item:
    """The part of an image in a window (x1, y1, x2, y2, whole pixels), black where it is outside, size x size.

    The target keeps the people of whose boxes MIN_VISIBLE is in the window.
    """
    left, top, right, bottom = window.tolist()
    # Without antialiasing, as the network resizes images.
    part = resized_crop(image, top, left, bottom - top, right - left, [size, size], antialias=False)
    boxes, edges = target["boxes"], torch.from_numpy(window).float()
    clipped = boxes.clamp(edges[:2].repeat(2), edges[2:].repeat(2))
    stays = box_area(clipped) >= MIN_VISIBLE * box_area(boxes)
    moved = (clipped - edges[:2].repeat(2)) * size / (edges[2:] - edges[:2]).repeat(2)
    return part.contiguous(), {**target, "boxes": moved[stays], "labels": target["labels"][stays]}


def jitter_colours(image: Tensor, strengths: Sequence[float], seed: int) -> Tensor:
    """An image (uint8) after torchvision's ColorJitter with strengths for brightness, contrast, saturation and hue."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach CUDA's generators, too
        return ColorJitter(*strengths)(image)


def horizontal_flip(image: Tensor, target: dict[str, Any]) -> Item:
    """The mirrored image (3 x H x W) and a target whose boxes (x1, y1, x2, y2, pixels) are mirrored with it."""
    x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
    width = image.shape[-1]
    return image.flip(-1), {**target, "boxes": torch.stack([width - x2, y1, width - x1, y2], dim=1)}
