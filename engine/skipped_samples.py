"""Training images and boxes that were skipped: each named once in the log, and counted for each epoch."""

import logging
from collections.abc import Iterable, Iterator

from engine.train import Batch
from utils.distributed import gather_objects, is_main

log = logging.getLogger("train")

KINDS = {"damaged": "images that cannot be read", "outside": "boxes outside their images"}
"""Keys of the loader's targets, each with messages on what was skipped, and what these are."""


class SkippedSamples:
    """What the loaders' targets say was skipped, in all processes.

    Args:
        state: what `gather` gave before the run was interrupted.
    """

    def __init__(self, state: dict | None = None):
        state = state or {}
        self._named: dict[str, list[str]] = {kind: list(state.get("named", {}).get(kind, [])) for kind in KINDS}
        first = state.get("counts", {}) if is_main() else {}  # of all processes together
        self._counts: dict[str, int] = {kind: first.get(kind, 0) for kind in KINDS}

    def counted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches as they are, each counted when it is taken."""
        for images, targets in batches:
            for kind in KINDS:
                messages = [message for target in targets for message in target.get(kind, ())]
                self._counts[kind] += len(messages)
                self._name(kind, messages)
            yield images, targets

    def gather(self) -> dict:
        """What was named, and counted in this epoch, in all processes: for a checkpoint. All must call it."""
        everyone = gather_objects({"named": self._named, "counts": self._counts})
        for kind in KINDS:
            self._name(kind, [message for state in everyone for message in state["named"][kind]])
        return {
            "named": self._named,
            "counts": {kind: sum(state["counts"][kind] for state in everyone) for kind in KINDS},
        }

    def finish_epoch(self, epoch: int) -> None:
        """Log the counts of an epoch and begin the next one. All processes must call this."""
        for kind, count in self.gather()["counts"].items():
            if count:
                log.warning("epoch %d: skipped %d %s (%d so far)", epoch, count, KINDS[kind], len(self._named[kind]))
            self._counts[kind] = 0

    def _name(self, kind: str, messages: list[str]) -> None:
        for message in messages:
            if message not in self._named[kind]:
                self._named[kind].append(message)
                log.warning("skipped: %s", message)
