"""What training does to an image and its boxes."""

from typing import Any

import numpy as np
from torch import Tensor, stack
from torch.utils.data import Dataset

from datasets.samplers import TrainKey
from utils.images import ImageError

Item = tuple[Tensor, dict[str, Any]]
"""An image 3 x H x W and its target, see PersonSearchDataset."""


def horizontal_flip(image: Tensor, target: dict[str, Any]) -> Item:
    """The mirrored image (3 x H x W) and a target whose boxes (x1, y1, x2, y2, pixels) are mirrored with it."""
    x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
    width = image.shape[-1]
    return image.flip(-1), {**target, "boxes": stack([width - x2, y1, width - x1, y2], dim=1)}


class TrainingImages(Dataset):
    """A dataset's items, mirrored where the sampler's key says so.

    Args:
        dataset: a training split.
        damaged: "error" raises ImageError for an image that cannot be read; "skip" takes another image in its place,
            so that batches keep their size. Which one follows from `seed`, epoch and index alone. The target then
            holds `damaged`, the messages (list of str) of the images that were skipped.
        seed: of the replacements; not negative.
    """

    def __init__(self, dataset: Dataset, damaged: str = "error", seed: int = 0):
        self.dataset, self.damaged, self.seed = dataset, damaged, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: TrainKey) -> Item:
        try:
            image, target = self.dataset[key.index]
        except ImageError as error:
            if self.damaged == "error":
                raise ImageError(f"{error} (DAMAGED_IMAGES skip trains without such images)") from error
            image, target = self._replacement(key, str(error))
        return horizontal_flip(image, target) if key.flip else (image, target)

    def _replacement(self, key: TrainKey, message: str) -> Item:
        skipped = [message]
        for index in np.random.default_rng([self.seed, key.epoch, key.index]).permutation(len(self)).tolist():
            if index == key.index:
                continue
            try:
                image, target = self.dataset[index]
            except ImageError as error:
                skipped.append(str(error))
            else:
                return image, {**target, "damaged": skipped}
        raise ImageError(f"none of the {len(self)} training images can be read, the first: {message}")
