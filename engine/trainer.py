"""The training loop: forward, backward, step, and what lies between two reports."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from engine.skips import DivergedError, Skip, SkippedSteps, spread_faults
from utils.distributed import rank
from utils.logging import LossAverages

SMALLEST_SCALE = 1e-3
"""Factor on the loss in float16 below which gradients overflow whatever the factor is; it begins at 65536."""

Batch = tuple[list[Tensor], list[dict]]
"""Images and targets, as the training loader gives them."""


@dataclass(frozen=True)
class StepSettings:
    """How gradients become steps.

    Attributes:
        device: where the network is.
        amp: dtype of mixed precision, None for float32.
        accumulate: forward passes whose gradients are averaged before a step.
        clip: largest gradient norm, 0 for no clipping.
        report_every: steps between two reports.
        max_skipped: steps in a row that are not finite at which training stops.
        seed: of the random samples; not negative.
    """

    device: torch.device
    amp: torch.dtype | None = None
    accumulate: int = 1
    clip: float = 10.0
    report_every: int = 10
    max_skipped: int = 10
    seed: int = 0


def new_scaler(settings: StepSettings) -> torch.amp.GradScaler:
    """The loss scaler that float16 needs; it does nothing in other precisions."""
    return torch.amp.GradScaler(settings.device.type, enabled=settings.amp is torch.float16)


def to_device(images: list[Tensor], targets: list[dict], device: torch.device) -> tuple[list[Tensor], list[dict]]:
    """A batch of the loader as the network takes it: uint8 images become float in [0, 1] on the device."""
    images = [image.to(device, non_blocking=True).float() / 255 for image in images]
    wanted = ("boxes", "labels")
    targets = [{name: target[name].to(device, non_blocking=True) for name in wanted} for target in targets]
    return images, targets


class Trainer:
    """Takes optimiser steps, leaves out those that are not finite, and reports.

    A step is left out where a loss of any process or the gradient is not finite: parameters, momentum and buffers
    (statistics of batch norm, OIM's tables) stay as they were before it. That is decided on the device, which no step
    waits for, and told with the next report. In float16 a gradient that is not finite is the loss scaler's business:
    that step leaves parameters and momentum alone, and is not told.

    Args:
        network: gives the weighted losses of a batch, on the device.
        optimizer: a fused one; see `engine.solver.build_optimizer`.
        scheduler: stepped with the optimiser, at steps that are left out too.
        scaler: see `new_scaler`.
        settings: see `StepSettings`.
        images_of: see `SkippedSteps`.
        report: called with the mean losses since the last report (none if all steps were left out), and the steps
            left out.

    Raises:
        ValueError: an optimiser that cannot leave out a step.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        scaler: torch.amp.GradScaler,
        settings: StepSettings,
        images_of: Callable[[int, int], list[str]],
        report: Callable[[dict[str, float], list[Skip]], None],
    ):
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            raise ValueError("the optimiser must be fused (fused=True), so that it can leave out a step")
        self.network, self.optimizer, self.scheduler, self.scaler = network, optimizer, scheduler, scaler
        self.settings = settings
        self.averages, self.skips = LossAverages(), SkippedSteps(settings.max_skipped, images_of)
        self._report = report

    def steps(self, batches: Iterable[Batch], epoch: int, first_step: int = 0) -> Iterator[int]:
        """The optimiser steps of an epoch, each taken when the next is asked for.

        Batches that do not fill a last accumulation make a step of their own. Random samples of a step depend on seed,
        epoch, step and process alone.

        Args:
            batches: those that come after the first `first_step` steps.
            epoch: from 0.
            first_step: steps of the epoch that were taken before.

        Yields:
            How many steps of the epoch are done: before each step, when its batches are read, and after the last.

        Raises:
            DivergedError: see `report`.
        """
        self.network.train()
        done = first_step
        for group in _groups(batches, self.settings.accumulate):
            yield done
            torch.manual_seed(_step_seed(self.settings.seed, epoch, done, rank()))
            self._take_step(group, done)
            done += 1
            if done % self.settings.report_every == 0:
                self.report()
        yield done

    def report(self) -> None:
        """Report what happened since the last report, if anything did; waits for the device.

        Raises:
            DivergedError: `max_skipped` steps in a row were left out, or the gradient overflows float16 for good.
        """
        skips, losses = self.skips.read(), self.averages.read()
        if skips or losses:
            self._report(losses, skips)
        self.skips.check(skips)
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            raise DivergedError("training diverged: the gradient overflows float16; SOLVER.AMP bf16 reaches further")

    def state_dict(self) -> dict:
        """All that goes on with the next step, of steps that are done; waits for the device."""
        parts = {name: getattr(self, name).state_dict() for name in ("optimizer", "scheduler", "scaler")}
        return parts | {"since_report": {"averages": self.averages.state_dict(), "skips": self.skips.state_dict()}}

    def load_since_report(self, state: dict) -> None:
        """Take up the losses and left-out steps that were not reported, from the `since_report` of a `state_dict`."""
        self.averages.load_state_dict(state["averages"], self.settings.device)
        self.skips.load_state_dict(state["skips"])

    def _take_step(self, group: list[Batch], step: int) -> None:
        kept = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        passes = []
        for number, batch in enumerate(group, start=1):
            with _gradients_shared(self.network, number == len(group)):
                losses = self._forward(batch)
                self.scaler.scale(sum(losses.values()) / len(group)).backward()
            passes.append(torch.stack([loss.detach().float() for loss in losses.values()]))
        names, values = tuple(losses), torch.stack(passes)
        faults = spread_faults(values, self.settings.accumulate)
        faulty = faults.any()
        gradient = self._scaled_update(faulty) if self.scaler.is_enabled() else self._update(faulty)
        bad = faulty | gradient
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(torch.where(bad, before, buffer))
        self.skips.note(step, names, faults, gradient)
        self.averages.add(names, values, ~bad)
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()

    def _forward(self, batch: Batch) -> dict[str, Tensor]:
        images, targets = to_device(*batch, self.settings.device)
        with torch.autocast(self.settings.device.type, dtype=self.settings.amp, enabled=self.settings.amp is not None):
            return self.network(images, targets)

    def _update(self, faulty: Tensor) -> Tensor:
        """Move the parameters unless a loss is faulty or the gradient is not finite; whether that is so."""
        gradient = ~self._clipped_norm().isfinite()
        self.optimizer.found_inf = (faulty | gradient).float()  # by which a loss scaler tells a fused optimiser
        self.optimizer.step()
        return gradient

    def _scaled_update(self, faulty: Tensor) -> Tensor:
        """The same in float16, where the scaler finds gradients that are not finite: False."""
        first = next(parameter.grad for parameter in self._learning())
        first.add_(torch.where(faulty, torch.nan, 0.0))  # or the scaler would let finite gradients of it pass
        self.scaler.unscale_(self.optimizer)
        self._clipped_norm()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return torch.zeros_like(faulty)

    def _clipped_norm(self) -> Tensor:
        """Clip the gradient; the norm that it had."""
        return nn.utils.clip_grad_norm_(self._learning(), self.settings.clip or float("inf"))

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.grad is not None]


def _step_seed(*numbers: int) -> int:
    """A seed of 64 bits from whole numbers that are not negative."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches in lists of `size`, the last one maybe shorter."""
    batches = iter(batches)
    while group := list(islice(batches, size)):
        yield group


def _gradients_shared(model: nn.Module, shared: bool) -> AbstractContextManager:
    """Where several processes accumulate gradients, only the last pass of a step needs to exchange them."""
    return nullcontext() if shared or not isinstance(model, DistributedDataParallel) else model.no_sync()
