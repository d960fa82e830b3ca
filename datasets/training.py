"""The loader of training: the order of the images, and how each is changed."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.augmentation import FLIP, Augmentation, Item, horizontal_flip, jitter_colours
from datasets.mixture import Mixture
from utils.errors import UserError
from utils.images import ImageError
from utils.signals import leave_signals_to_parent


def build_train_loader(
    dataset: Mixture,
    batch_size: int,
    num_workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    augmentation: Augmentation = FLIP,
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
        augmentation: how images are changed, their boxes with them.
        same_orientation: the images of a batch are all wider than high, or none of them is, so that less is padded.
        damaged: what to do about an image that cannot be read, "error" or "skip": see TrainingImages.
        pin_memory: put batches into page-locked memory, which opens a CUDA context: for training on CUDA alone.

    Raises:
        UserError: another value of `damaged`, or fewer images than a batch of all processes.
    """
    if damaged not in ("error", "skip"):
        raise UserError(f"INPUT.DAMAGED_IMAGES is {damaged!r}: choose error or skip")
    groups = [dataset.is_wide(index) if same_orientation else False for index in range(len(dataset))]
    return DataLoader(
        TrainingImages(dataset, damaged, augmentation),
        batch_sampler=TrainBatchSampler(groups, batch_size, seed, rank, world_size, augmentation, dataset.frequencies),
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        # Its own: otherwise each pass draws from, and so moves, the global generator that training uses.
        generator=torch.Generator().manual_seed(seed),
        worker_init_fn=leave_signals_to_parent,
    )


class TrainKey(NamedTuple):
    """One training item: an image, and how it is changed.

    Attributes:
        index: which image.
        flip: whether it is mirrored.
        scale: the factor on its size.
        crop: whether it is cropped.
        seed: of all else that is left to chance.
    """

    index: int
    flip: bool
    scale: float
    crop: bool
    seed: int


class TrainBatchSampler(Sampler):
    """Batches of TrainKeys: each epoch the images in another order, of which every process takes its own batches.

    The order and the changes to images follow from (seed, epoch) alone, so that an interrupted run continues exactly. A
    batch of all processes holds images of one group, in this order; it comes where the last of them stands. Images that
    do not fill one are left out of that epoch.

    Args:
        groups: of each image of the dataset, the group that it may share a batch with.
        batch_size: images per process.
        seed: not negative.
        rank, world_size: this process, of how many.
        augmentation: how images are changed; all images of a batch are cropped, or none is, so that less is padded.
        frequencies: how often an epoch shows each image on average, where not each comes once. Of images with the same
            group and frequency each comes as often as the others, but for some, by chance, which come once more.

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
        augmentation: Augmentation = FLIP,
        frequencies: Sequence[float] | None = None,
    ):
        self.groups, self.batch_size, self.seed = groups, batch_size, seed
        self.rank, self.world_size, self.augmentation = rank, world_size, augmentation
        pools: dict[tuple[bool, float], list[int]] = defaultdict(list)
        for index, pool in enumerate(zip(groups, frequencies or [1.0] * len(groups), strict=True)):
            pools[pool].append(index)
        # The images of one group and frequency, and how many of them an epoch takes.
        self._pools = [(images, round(frequency * len(images))) for (_, frequency), images in pools.items()]
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
        counts: dict[bool, int] = Counter()
        for images, count in self._pools:
            counts[self.groups[images[0]]] += count
        return sum(count // (self.batch_size * self.world_size) for count in counts.values())

    def _images(self) -> list[int]:
        """The images of the epoch in rising order, some of them perhaps several times."""
        rng, chosen = np.random.default_rng([self.seed, self.epoch, 1]), []
        for images, count in self._pools:
            times, rest = divmod(count, len(images))
            chosen += images * times + rng.permutation(images)[:rest].tolist()
        return sorted(chosen)

    def __iter__(self) -> Iterator[list[TrainKey]]:
        images = self._images()
        rng, count, how = np.random.default_rng([self.seed, self.epoch]), len(images), self.augmentation
        order = rng.permutation(count).tolist()
        flips = (rng.random(count) < how.flip_prob).tolist()
        scales = rng.choice(how.scales, count).tolist()
        crops = (rng.random(len(self)) < how.crop_share).tolist()
        seeds = rng.integers(2**63, size=count).tolist()
        own = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for batch, crop in islice(zip(self._batches(images, order), crops, strict=True), self.start_batch, None):
            yield [TrainKey(images[place], flips[place], scales[place], crop, seeds[place]) for place in batch[own]]

    def _batches(self, images: list[int], order: list[int]) -> Iterator[list[int]]:
        """The places in `images` of each batch of all processes."""
        filling: dict[bool, list[int]] = defaultdict(list)
        for place in order:
            group = self.groups[images[place]]
            filling[group].append(place)
            if len(filling[group]) == self.batch_size * self.world_size:
                yield filling.pop(group)


class TrainingImages(Dataset):
    """A dataset's items as the sampler's keys say: cropped, jittered, mirrored, and with `scale` in the target.

    Args:
        dataset: a training split.
        damaged: "error" raises ImageError for an image that cannot be read; "skip" takes another image in its place,
            so that batches keep their size. Which one follows from the key alone. The target then holds `damaged`, the
            messages (list of str) of the images that were skipped.
        augmentation: how images are changed.
    """

    def __init__(self, dataset: Dataset, damaged: str, augmentation: Augmentation):
        self.dataset, self.damaged, self.augmentation = dataset, damaged, augmentation

    def __getitem__(self, key: TrainKey) -> Item:
        try:
            image, target = self.dataset[key.index]
        except ImageError as error:
            if self.damaged == "error":
                raise ImageError(f"{error} (DAMAGED_IMAGES skip trains without such images)") from error
            image, target = self._replacement(key, str(error))
        return self._changed(image, target, key)

    def _changed(self, image: Tensor, target: dict[str, Any], key: TrainKey) -> Item:
        crops, scale = self.augmentation.crops, key.scale
        if key.crop:
            image, target = crops(image, target, key.scale, key.seed)
            scale = crops.scale
        elif crops is not None:
            scale *= crops.scale
        image, target = jitter_colours(image, self.augmentation.jitter, key.seed), {**target, "scale": scale}
        return horizontal_flip(image, target) if key.flip else (image, target)

    def _replacement(self, key: TrainKey, message: str) -> Item:
        count, skipped = len(self.dataset), [message]
        for index in np.random.default_rng(key.seed).permutation(count).tolist():
            if index == key.index:
                continue
            try:
                image, target = self.dataset[index]
            except ImageError as error:
                skipped.append(str(error))
            else:
                return image, {**target, "damaged": skipped}
        raise ImageError(f"none of the {count} training images can be read, the first: {message}")


def collate(items: list[Item]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Items to a list of images and a list of targets: images of a batch differ in size."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)
