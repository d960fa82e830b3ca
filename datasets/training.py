"""The loader of training: the order of the images, and what is done to an image and its boxes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, stack
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.base import PersonSearchDataset
from utils.errors import UserError
from utils.images import ImageError
from utils.signals import leave_signals_to_parent

Item = tuple[Tensor, dict[str, Any]]
"""An image 3 x H x W and its target, see PersonSearchDataset."""


def build_train_loader(
    dataset: PersonSearchDataset,
    batch_size: int,
    num_workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    flip_prob: float = 0.5,
    damaged: str = "error",
    pin_memory: bool = False,
) -> DataLoader:
    """Batches (list of uint8 images 3 x H x W, list of targets) of this process's share of a shuffled epoch.

    `loader.batch_sampler.set_epoch(epoch, start_batch)` chooses the epoch, and where in it to begin, before each
    pass. What a batch holds depends on seed, epoch and its place alone: neither on the number of workers nor on what
    ran before.

    Args:
        batch_size: images per process.
        flip_prob: probability that an image is mirrored, its boxes with it.
        damaged: what to do about an image that cannot be read, "error" or "skip": see TrainingImages.
        pin_memory: put batches into page-locked memory, which opens a CUDA context: for training on CUDA alone.

    Raises:
        UserError: another value of `damaged`, or fewer images than a batch of all processes.
    """
    if damaged not in ("error", "skip"):
        raise UserError(f"INPUT.DAMAGED_IMAGES is {damaged!r}: choose error or skip")
    return DataLoader(
        TrainingImages(dataset, damaged, seed),
        batch_sampler=TrainBatchSampler(len(dataset), batch_size, seed, rank, world_size, flip_prob),
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        # Its own: otherwise each pass draws from, and so moves, the global generator that training uses.
        generator=torch.Generator().manual_seed(seed),
        worker_init_fn=leave_signals_to_parent,
    )


class TrainKey(NamedTuple):
    """One training item: which image, whether it is mirrored, and the epoch that asks for it."""

    index: int
    flip: bool
    epoch: int


class TrainBatchSampler(Sampler):
    """Batches of TrainKeys: each epoch a permutation of the images, of which every process takes its own batches.

    The permutation and the flips follow from (seed, epoch) alone, so that an interrupted run continues exactly.
    Images that do not fill a batch of every process are left out of that epoch.

    Args:
        num_images: images of the dataset.
        batch_size: images per process.
        seed: not negative.
        rank, world_size: this process, of how many.
        flip_prob: probability that an image is mirrored.

    Raises:
        UserError: fewer images than one batch of all processes takes.
    """

    def __init__(
        self, num_images: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, flip_prob: float = 0.5
    ):
        if num_images < batch_size * world_size:
            raise UserError(
                f"{num_images} training images do not fill one batch of {batch_size} on {world_size} processes: "
                "lower BATCH_SIZE_TRAIN or add images"
            )
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.rank, self.world_size, self.flip_prob = rank, world_size, flip_prob
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch of the next pass, and how many of its batches to skip (those already trained on)."""
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        """Batches per process in a whole epoch, skipped ones included."""
        return self.num_images // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[TrainKey]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.num_images).tolist()
        flips = (rng.random(self.num_images) < self.flip_prob).tolist()
        for batch in range(self.start_batch, len(self)):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield [TrainKey(index, flips[index], self.epoch) for index in order[start : start + self.batch_size]]


class TrainingImages(Dataset):
    """A dataset's items, mirrored where the sampler's key says so.

    Args:
        dataset: a training split.
        damaged: "error" raises ImageError for an image that cannot be read; "skip" takes another image in its place,
            so that batches keep their size. Which one follows from `seed`, epoch and index alone. The target then
            holds `damaged`, the messages (list of str) of the images that were skipped.
        seed: of the replacements; not negative.
    """

    def __init__(self, dataset: Dataset, damaged: str, seed: int):
        self.dataset, self.damaged, self.seed = dataset, damaged, seed

    def __getitem__(self, key: TrainKey) -> Item:
        try:
            image, target = self.dataset[key.index]
        except ImageError as error:
            if self.damaged == "error":
                raise ImageError(f"{error} (DAMAGED_IMAGES skip trains without such images)") from error
            image, target = self._replacement(key, str(error))
        return horizontal_flip(image, target) if key.flip else (image, target)

    def _replacement(self, key: TrainKey, message: str) -> Item:
        count, skipped = len(self.dataset), [message]
        for index in np.random.default_rng([self.seed, key.epoch, key.index]).permutation(count).tolist():
            if index == key.index:
                continue
            try:
                image, target = self.dataset[index]
            except ImageError as error:
                skipped.append(str(error))
            else:
                return image, {**target, "damaged": skipped}
        raise ImageError(f"none of the {count} training images can be read, the first: {message}")


def horizontal_flip(image: Tensor, target: dict[str, Any]) -> Item:
    """The mirrored image (3 x H x W) and a target whose boxes (x1, y1, x2, y2, pixels) are mirrored with it."""
    x1, y1, x2, y2 = target["boxes"].unbind(dim=1)
    width = image.shape[-1]
    return image.flip(-1), {**target, "boxes": stack([width - x2, y1, width - x1, y2], dim=1)}


def collate(items: list[Item]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Items to a list of images and a list of targets: images of a batch differ in size."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)
