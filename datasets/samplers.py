"""The order of training images."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from utils.errors import UserError


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
        if batch_size < 1 or num_images < batch_size * world_size:
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
