"""The loader of training: the order of the images, and what is done to an image and its boxes."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
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
    scales: Sequence[float] = (1.0,),
    same_orientation: bool = False,
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
        scales: factors on the size that an image is resized to; each image of an epoch gets one of them by chance.
        same_orientation: the images of a batch are all wider than high, or none of them is, so that less is padded.
        damaged: what to do about an image that cannot be read, "error" or "skip": see TrainingImages.
        pin_memory: put batches into page-locked memory, which opens a CUDA context: for training on CUDA alone.

    Raises:
        UserError: another value of `damaged`, no scale or one that is not positive, or fewer images than a batch of all
            processes.
    """
    if damaged not in ("error", "skip"):
        raise UserError(f"INPUT.DAMAGED_IMAGES is {damaged!r}: choose error or skip")
    if not scales or min(scales) <= 0:
        raise UserError(f"INPUT.TRAIN_SCALES is {list(scales)}: give one or more positive factors; [1.0] for one size")
    groups = [dataset.is_wide(index) if same_orientation else False for index in range(len(dataset))]
    return DataLoader(
        TrainingImages(dataset, damaged, seed),
        batch_sampler=TrainBatchSampler(groups, batch_size, seed, rank, world_size, flip_prob, scales),
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        # Its own: otherwise each pass draws from, and so moves, the global generator that training uses.
        generator=torch.Generator().manual_seed(seed),
        worker_init_fn=leave_signals_to_parent,
    )


class TrainKey(NamedTuple):
    """One training item: which image, whether it is mirrored, the factor on its size, and the epoch that asks."""

    index: int
    flip: bool
    scale: float
    epoch: int


class TrainBatchSampler(Sampler):
    """Batches of TrainKeys: each epoch a permutation of the images, of which every process takes its own batches.

    The permutation, the flips and the scales follow from (seed, epoch) alone, so that an interrupted run continues
    exactly. A batch of all processes holds images of one group, in the order of the permutation; it comes where the
    last of them stands. Images that do not fill one are left out of that epoch.

    Args:
        groups: of each image of the dataset, the group that it may share a batch with.
        batch_size: images per process.
        seed: not negative.
        rank, world_size: this process, of how many.
        flip_prob: probability that an image is mirrored.
        scales: factors on an image's size, of which each is as probable.

    Raises:
        UserError: no group has as many images as one batch of all processes takes.
    """

    def __init__(
        self,
        groups: Sequence[bool],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        flip_prob: float = 0.5,
        scales: Sequence[float] = (1.0,),
    ):
        self.groups, self.batch_size, self.seed = groups, batch_size, seed
        self.rank, self.world_size, self.flip_prob, self.scales = rank, world_size, flip_prob, scales
        if not len(self):
            raise UserError(
                f"{len(groups)} training images do not fill one batch of {batch_size} on {world_size} processes: "
                "lower BATCH_SIZE_TRAIN or add images"
            )
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch of the next pass, and how many of its batches to skip (those already trained on)."""
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        """Batches per process in a whole epoch, skipped ones included."""
        return sum(count // (self.batch_size * self.world_size) for count in Counter(self.groups).values())

    def __iter__(self) -> Iterator[list[TrainKey]]:
        rng, count = np.random.default_rng([self.seed, self.epoch]), len(self.groups)
        order = rng.permutation(count).tolist()
        flips = (rng.random(count) < self.flip_prob).tolist()
        scales = rng.choice(self.scales, count).tolist()
        own = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for batch in islice(self._batches(order), self.start_batch, None):
            yield [TrainKey(index, flips[index], scales[index], self.epoch) for index in batch[own]]

    def _batches(self, order: list[int]) -> Iterator[list[int]]:
        """The images of each batch of all processes."""
        filling: dict[bool, list[int]] = defaultdict(list)
        for index in order:
            group = self.groups[index]
            filling[group].append(index)
            if len(filling[group]) == self.batch_size * self.world_size:
                yield filling.pop(group)


class TrainingImages(Dataset):
    """A dataset's items as the sampler's keys say: mirrored or not, and with `scale` in the target.

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
        target = {**target, "scale": key.scale}
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
