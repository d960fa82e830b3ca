"""Training images and boxes that were skipped: each named once in the log, and counted in each epoch."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from engine.train import Batch
from utils.distributed import gather_objects

log = logging.getLogger(__name__)

KINDS = {"damaged": "images that cannot be read", "outside": "boxes outside their images"}
"""Keys of the loader's targets that hold a message for each skipped sample -> what these samples are."""


class SkippedSamples:
    """Reads from the loader's targets what was skipped."""

    def __init__(self):
        self._epoch: list[tuple[str, str]] = []  # kind and message of each sample skipped in this epoch
        self._named: set[str] = set()

    def counted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; notes what was skipped in each as it is taken."""
        for images, targets in batches:
            skipped = [(kind, message) for kind in KINDS for each in targets for message in each.get(kind, ())]
            self._epoch += skipped
            self._name(skipped)
            yield images, targets

    def finish_epoch(self, epoch: int) -> None:
        """Log what all processes skipped in an epoch, and begin the next one. All processes must call this."""
        skipped = sum(gather_objects(self._epoch), [])
        self._name(skipped)
        for kind, count in Counter(kind for kind, _ in skipped).items():
            log.warning("epoch %d: skipped %d %s", epoch, count, KINDS[kind])
        self._epoch = []

    def _name(self, skipped: list[tuple[str, str]]) -> None:
        for _, message in skipped:
            if message not in self._named:
                self._named.add(message)
                log.warning("skipped: %s", message)
