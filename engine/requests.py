"""What can be searched: images from anywhere, with or without boxes asked about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.errors import UserError

ImageSource: TypeAlias = str | Path | np.ndarray | Tensor | Image.Image

MIN_BOX_SIDE = 4.0
"""Pixels; a smaller box given by hand is a mistake, such as coordinates from 0 to 1."""


@dataclass(frozen=True)
class SearchRequest:
    """An image to search, with the boxes of query people in it, if any.

    Attributes:
        image: a path, a uint8 RGB array H x W x 3, an RGB tensor 3 x H x W (uint8, or float in [0, 1]), or a PIL image.
        boxes: g x 4, x1, y1, x2, y2 in pixels of the image; None for no query.
        num_contexts: compute the contexts of this many boxes, the first ones; None: of all.
    """

    image: ImageSource
    boxes: np.ndarray | Sequence | None = None
    num_contexts: int | None = None


def check_boxes(boxes: np.ndarray, name: str | Path) -> None:
    """Refuse boxes of an image that are not g x 4 (ValueError), or of which one has no area (UserError)."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"the boxes of {name} must be g x 4, but are {boxes.shape}")
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(boxes).all(axis=1)
    if not has_area.all():
        raise UserError(
            f"{name} has a box without area, {boxes[~has_area][0].tolist()}: correct it; boxes are x1, y1, x2, y2 in "
            "pixels with x1 < x2 and y1 < y2"
        )


def check_inside(box: Sequence[float], image: Tensor, name: str | Path) -> None:
    """Raise UserError where a box (x1, y1, x2, y2) of an image 3 x H x W is too small or not inside it."""
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height) or min(x2 - x1, y2 - y1) < MIN_BOX_SIDE:
        raise UserError(
            f"box {x1:g} {y1:g} {x2:g} {y2:g} of {name}, which is {width} x {height} pixels: give the left, top, right "
            f"and bottom edge of the person in pixels, inside the image and at least {MIN_BOX_SIDE:g} apart"
        )


def tensor_of(image: ImageSource, read: Callable, max_pixels: int) -> Tensor:
    """An image as a tensor 3 x H x W, uint8, or float in [0, 1]."""
    if isinstance(image, str | Path):
        image = read(image, max_pixels)
    elif isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3:
        image = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
    what = f"{type(image).__name__} {getattr(image, 'dtype', '')} {list(getattr(image, 'shape', []))}"
    if not isinstance(image, Tensor) or image.ndim != 3 or len(image) != 3 or 0 in image.shape:
        raise ValueError(f"an image is a path, a PIL image, a uint8 array H x W x 3 or a tensor 3 x H x W, not {what}")
    if image.dtype != torch.uint8 and not (image.is_floating_point() and 0 <= image.min() <= image.max() <= 1):
        raise ValueError(f"a tensor image is uint8, or float with values from 0 to 1; this {what} is not")
    return image
