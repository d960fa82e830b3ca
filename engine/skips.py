"""Optimiser steps that are left out because a loss or the gradient is not finite: found on the device, told later."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from utils.distributed import rank, sum_over_processes, world_size


class DivergedError(RuntimeError):
    """Too many steps in a row were not finite."""


@dataclass(frozen=True)
class Skip:
    """A step that was left out.

    Attributes:
        step: of the epoch, from 0.
        losses: names of those that were not finite; empty where only the gradient was not.
        images: names of the images that gave them, or of all images of the step.
    """

    step: int
    losses: list[str]
    images: list[str]

    def reason(self) -> str:
        """What was not finite, and from which images, in words."""
        return f"{', '.join(self.losses) or 'the gradient'} is not finite; images {', '.join(self.images)}"


def spread_faults(losses: Tensor, passes: int) -> Tensor:
    """Which losses of a step are not finite in any process, the same in all of them.

    Args:
        losses: passes of this step x losses.
        passes: forward passes of a whole step.

    Returns:
        Processes x passes x losses, 1 where a loss is not finite, on the losses' device.
    """
    faults = losses.new_zeros(world_size(), passes, losses.shape[1])
    faults[rank(), : len(losses)] = (~losses.isfinite()).float()
    return sum_over_processes(faults)


class SkippedSteps:
    """Which steps were left out, and how many in a row.

    What a step was is kept on the device until `read` or `state_dict`, so that no step waits for it.

    Args:
        limit: left-out steps in a row at which training has diverged.
        images_of: names of the images of a batch of the epoch (from 0) in a process (its rank); none for a batch
            beyond the end.
    """

    def __init__(self, limit: int, images_of: Callable[[int, int], list[str]]):
        self.total, self._in_a_row = 0, 0
        self._limit, self._images_of = limit, images_of
        self._on_device: list[tuple[int, tuple[str, ...], Tensor, Tensor]] = []
        self._known: list[Skip | None] = []

    def note(self, step: int, names: tuple[str, ...], faults: Tensor, gradient: Tensor) -> None:
        """Take note of a step.

        Args:
            step: of the epoch, from 0.
            names: of the losses.
            faults: see `spread_faults`.
            gradient: scalar, whether the gradient is not finite.
        """
        self._on_device.append((step, names, faults, gradient))

    def read(self) -> list[Skip]:
        """The steps left out since the last reading; waits for the device."""
        self._fetch()
        skips, known, self._known = [], self._known, []
        for skip in known:
            self._in_a_row = self._in_a_row + 1 if skip else 0
            if skip:
                self.total += 1
                skips.append(skip)
            if self._in_a_row >= self._limit:  # training ends with this one
                break
        return skips

    def check(self, skips: list[Skip]) -> None:
        """Raise DivergedError if the last `skips` that were read fill the limit."""
        if self._in_a_row >= self._limit:
            raise DivergedError(
                f"training diverged: {self._in_a_row} steps in a row were not finite; in the last one "
                f"{skips[-1].reason()}. Take a lower SOLVER.BASE_LR, a longer warm-up or another precision; --resume "
                "goes on from the last checkpoint, where there is one"
            )

    def state_dict(self) -> dict:
        """The counts, and what was not read yet; waits for the device."""
        self._fetch()
        unread = [asdict(skip) if skip else None for skip in self._known]
        return {"total": self.total, "in_a_row": self._in_a_row, "unread": unread}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict`."""
        self.total, self._in_a_row = state["total"], state["in_a_row"]
        self._known = [Skip(**fields) if fields else None for fields in state["unread"]]

    def _fetch(self) -> None:
        if not self._on_device:
            return
        flat = torch.cat([torch.cat([faults.flatten(), gradient[None]]) for *_, faults, gradient in self._on_device])
        sizes = [faults.numel() + 1 for *_, faults, _ in self._on_device]
        for (step, names, faults, _), values in zip(self._on_device, flat.cpu().split(sizes), strict=True):
            self._known.append(self._skip(step, names, values[:-1].view_as(faults)) if values.any() else None)
        self._on_device = []

    def _skip(self, step: int, names: tuple[str, ...], faults: Tensor) -> Skip:
        """A step that was left out, from its faults on the CPU."""
        losses = [name for name, faulty in zip(names, faults.any(0).any(0).tolist(), strict=True) if faulty]
        guilty = faults.any(2) if losses else torch.ones(faults.shape[:2])
        images = [
            image
            for process, number in guilty.nonzero().tolist()
            for image in self._images_of(step * faults.shape[1] + number, process)
        ]
        return Skip(step, losses, images)
