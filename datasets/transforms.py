"""What training does to an image and its boxes."""

import torch
from torch.utils.data import Dataset

from datasets.samplers import TrainKey


def horizontal_flip(image: torch.Tensor, target: dict) -> tuple[torch.Tensor, dict]:
    """The mirrored image (3 x H x W) and a target whose boxes (x1, y1, x2, y2, pixels) are mirrored with it."""
    x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
    width = image.shape[-1]
    return image.flip(-1), {**target, "boxes": torch.stack([width - x2, y1, width - x1, y2], dim=1)}


class TrainingImages(Dataset):
    """A dataset's items, mirrored where the sampler's key says so."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: TrainKey) -> tuple[torch.Tensor, dict]:
        image, target = self.dataset[key.index]
        return horizontal_flip(image, target) if key.flip else (image, target)
