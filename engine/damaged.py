"""Training images that could not be read: named once each and counted in the main process's log."""

import logging
from collections.abc import Iterable, Iterator

import torch.distributed as dist
from torch import Tensor

from utils.distributed import is_distributed, is_main, world_size

log = logging.getLogger("train")

Batch = tuple[list[Tensor], list[dict]]


class DamagedImages:
    """What the loader's targets tell about images that were left out (see datasets.transforms.TrainingImages)."""

    def __init__(self):
        self._named: set[str] = set()
        """Messages, one for each file, that this process has logged."""
        self._count = 0
        """Images replaced by others since the last `tell`."""

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches as they are; images left out are counted, and each is named once in this process's log."""
        for batch in batches:
            for target in batch[1]:
                messages = target.get("damaged", ())
                self._count += bool(messages)
                self._name(messages)
            yield batch

    def tell(self, epoch: str) -> None:
        """Log the count of an epoch, and files that other processes alone have met. All processes must call this."""
        found = [(self._count, sorted(self._named))]
        if is_distributed():
            found = [None] * world_size()
            dist.all_gather_object(found, (self._count, sorted(self._named)))
        self._count, total = 0, sum(count for count, _ in found)
        if total and is_main():
            for _, messages in found:
                self._name(messages)
            log.warning("%s: %d images replaced, %d files could not be read so far", epoch, total, len(self._named))

    def _name(self, messages: Iterable[str]) -> None:
        for message in messages:
            if message not in self._named:
                self._named.add(message)
                log.warning("left out of training: %s", message)
