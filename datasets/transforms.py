"""What training does to an image and its boxes."""

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.samplers import TrainKey
from utils.images import ImageError

DAMAGED_IMAGES = ("error", "skip")
"""What training does about an image that cannot be read: see TrainingImages."""


def horizontal_flip(image: torch.Tensor, target: dict) -> tuple[torch.Tensor, dict]:
    """The mirrored image (3 x H x W) and a target whose boxes (x1, y1, x2, y2, pixels) are mirrored with it."""
    x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
    width = image.shape[-1]
    return image.flip(-1), {**target, "boxes": torch.stack([width - x2, y1, width - x1, y2], dim=1)}


class TrainingImages(Dataset):
    """A dataset's items, mirrored where the sampler's key says so.

    Args:
        dataset: a training split.
        damaged: "error" raises ImageError for an image that cannot be read; "skip" takes another image in its place,
            so that batches keep their size. Which one follows from `seed`, epoch and index alone. The target then
            holds `damaged`: the messages of the images that were left out, a list of str.
        seed: of the replacements; not negative.

    Raises:
        ValueError: another value of `damaged`.
    """

    def __init__(self, dataset: Dataset, damaged: str = "error", seed: int = 0):
        if damaged not in DAMAGED_IMAGES:
            raise ValueError(f"INPUT.DAMAGED_IMAGES is {damaged!r}: choose {' or '.join(DAMAGED_IMAGES)}")
        self.dataset, self.damaged, self.seed = dataset, damaged, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: TrainKey) -> tuple[torch.Tensor, dict]:
        image, target = self._read(key)
        return horizontal_flip(image, target) if key.flip else (image, target)

    def _read(self, key: TrainKey) -> tuple[torch.Tensor, dict]:
        try:
            return self.dataset[key.index]
        except ImageError as error:
            if self.damaged == "error":
                raise ImageError(
                    f"{error} (INPUT.DAMAGED_IMAGES skip trains without such images)", error.kind
                ) from error
            return self._replacement(key, str(error))

    def _replacement(self, key: TrainKey, message: str) -> tuple[torch.Tensor, dict]:
        left_out = [message]
        for index in np.random.default_rng([self.seed, key.epoch, key.index]).permutation(len(self)).tolist():
            if index == key.index:
                continue
            try:
                image, target = self.dataset[index]
            except ImageError as error:
                left_out.append(str(error))
            else:
                return image, {**target, "damaged": left_out}
        raise ImageError(f"none of the {len(self)} training images can be read, the first: {message}")
