"""What training data lost: images and boxes left out, named once each and counted in the main process's log."""

import logging
from collections.abc import Iterable, Iterator

import torch.distributed as dist

from engine.trainer import Batch
from utils.distributed import is_distributed, is_main, world_size

log = logging.getLogger("train")


class DamagedImages:
    """What the loader's targets tell about images that could not be read and boxes that lie outside theirs.

    See datasets.transforms.TrainingImages (`damaged`) and PersonSearchDataset (`outside`).
    """

    def __init__(self):
        self._images = _Tally("left out of training", "%s: %d images replaced, %d files could not be read so far")
        self._read: list[list[tuple]] = []
        self._settled = 0
        self._boxes = _Tally("box left out of training", "%s: %d boxes outside their images left out, %d boxes so far")

    def state_dict(self) -> dict:
        """What this process has named, and counted since the last `tell`."""
        return {"images": self._images.state(), "boxes": self._boxes.state()}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict`: nothing is named twice."""
        self._images.restore(state["images"])
        self._boxes.restore(state["boxes"])

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches as they are; what they tell of is counted by `settle`."""
        self._read, self._settled = [], 0
        for batch in batches:
            self._read.append([(target.get("damaged", ()), target.get("outside", ())) for target in batch[1]])
            yield batch

    def settle(self, batches: int | None = None) -> None:
        """Count, and name in this process's log, what the first batches of `watch` told (None: all of them).

        Batches are read before they are learnt from: an interruption in between has them read again.
        """
        for batch in self._read[self._settled : batches]:
            for replaced, outside in batch:
                self._images.add(int(bool(replaced)), replaced)
                self._boxes.add(len(outside), outside)
            self._settled += 1

    def tell(self, epoch: str) -> None:
        """Log the counts of an epoch, and what other processes alone have met. All processes must call this."""
        self.settle()
        self._images.tell(epoch)
        self._boxes.tell(epoch)


class _Tally:
    """Things of one kind that were left out: a heading for each one's message, and the line of an epoch's counts."""

    def __init__(self, heading: str, line: str):
        self._heading, self._line = heading, line
        self._named: set[str] = set()
        """Messages that this process has logged."""
        self._count = 0
        """Since the last `tell`."""

    def state(self) -> dict:
        return {"named": sorted(self._named), "count": self._count}

    def restore(self, state: dict) -> None:
        self._named, self._count = set(state["named"]), int(state["count"])

    def add(self, count: int, messages: Iterable[str]) -> None:
        self._count += count
        self._name(messages)

    def tell(self, epoch: str) -> None:
        found = [(self._count, sorted(self._named))]
        if is_distributed():
            found = [None] * world_size()
            dist.all_gather_object(found, (self._count, sorted(self._named)))
        self._count, total = 0, sum(count for count, _ in found)
        if total and is_main():
            for _, messages in found:
                self._name(messages)
            log.warning(self._line, epoch, total, len(self._named))

    def _name(self, messages: Iterable[str]) -> None:
        for message in messages:
            if message not in self._named:
                self._named.add(message)
                log.warning("%s: %s", self._heading, message)
