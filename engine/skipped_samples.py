"""Training images and boxes that were skipped: each named once in the log, and counted in each epoch."""

import logging
from collections.abc import Iterable, Iterator

from engine.train import Batch
from utils.distributed import gather_objects, is_main

log = logging.getLogger(__name__)

KINDS = {"damaged": "images that cannot be read", "outside": "boxes outside their images"}
"""Keys of the loader's targets that hold a message for each skipped sample -> what these samples are."""


class SkippedSamples:
    """Reads from the loader's targets what was skipped.

    Args:
        state: from `gather`, to continue an interrupted run.
    """

    def __init__(self, state: dict | None = None):
        self._named = {kind: set(state["named"][kind] if state else ()) for kind in KINDS}
        self._counts = {kind: state["counts"][kind] if state and is_main() else 0 for kind in KINDS}

    def counted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; counts what was skipped in each as it is taken."""
        for images, targets in batches:
            for kind in KINDS:
                messages = [message for target in targets for message in target.get(kind, ())]
                self._counts[kind] += len(messages)
                self._name(kind, messages)
            yield images, targets

    def gather(self) -> dict:
        """Names and this epoch's counts over all processes, for a checkpoint. All processes must call this."""
        everyone = gather_objects((self._named, self._counts))
        for kind in KINDS:
            self._name(kind, sorted(set().union(*(named[kind] for named, _ in everyone))))
        counts = {kind: sum(counts[kind] for _, counts in everyone) for kind in KINDS}
        return {"named": {kind: sorted(messages) for kind, messages in self._named.items()}, "counts": counts}

    def finish_epoch(self, epoch: int) -> None:
        """Log the counts of an epoch and begin the next one. All processes must call this."""
        for kind, count in self.gather()["counts"].items():
            if count:
                log.warning("epoch %d: skipped %d %s (%d so far)", epoch, count, KINDS[kind], len(self._named[kind]))
            self._counts[kind] = 0

    def _name(self, kind: str, messages: list[str]) -> None:
        for message in messages:
            if message not in self._named[kind]:
                self._named[kind].add(message)
                log.warning("skipped: %s", message)
