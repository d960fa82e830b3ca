"""The training loop: one epoch of optimiser steps."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from utils.distributed import gather_objects, gather_rows, rank, world_size

log = logging.getLogger("train")

Batch = tuple[list[Tensor], list[dict]]
"""Images and targets, as the training loader gives them."""


class DivergedError(RuntimeError):
    """Too many optimiser steps in a row had losses or gradients that were not finite."""


@dataclass(frozen=True)
class TrainSettings:
    """How gradients become optimiser steps.

    Attributes:
        device: where the network is.
        amp: dtype of autocast, None for float32.
        accumulate: forward passes whose gradients are averaged for one step.
        clip: largest norm of the gradient, 0 for no clipping.
        log_every: the logging interval, in steps.
        max_skipped: skipped steps in a row that end training.
        seed: of the random samples; not negative.
    """

    device: torch.device
    amp: torch.dtype | None = None
    accumulate: int = 1
    clip: float = 10.0
    log_every: int = 10
    max_skipped: int = 20
    seed: int = 0


@dataclass
class Progress:
    """Where a run stands; part of each checkpoint.

    Attributes:
        steps_per_epoch: optimiser steps of a whole epoch.
        epoch: epochs done.
        step: steps done of the next epoch.
        evaluated: epochs done at the last evaluation.
        best: highest search mAP so far.
        skipped, skipped_in_a_row: steps skipped in all, and since the last one that was not.
        losses: by name, of each forward pass since the last line of the log.
    """

    steps_per_epoch: int
    epoch: int = 0
    step: int = 0
    evaluated: int = 0
    best: float = -1.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)

    @property
    def total_steps(self) -> int:
        """Optimiser steps done since training began."""
        return self.epoch * self.steps_per_epoch + self.step


def train_one_epoch(
    network: nn.Module,
    loader: Iterable[Batch],
    optimizer: Optimizer,
    schedule: Callable[[int], float],
    scaler: torch.amp.GradScaler,
    progress: Progress,
    settings: TrainSettings,
    board: SummaryWriter | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Train on the batches of an epoch that come after its first `progress.step` steps, and move `progress` on.

    A step whose losses or gradient are not finite in any process is skipped: weights, momentum and buffers (batch-norm
    statistics, identity memory) stay as they were. Random samples depend on seed, epoch, step and process alone.

    Args:
        network: gives the weighted losses of a batch by name; on the device.
        schedule: factor on each parameter group's `initial_lr`, given the steps done since training began.
        scaler: enabled for float16 alone.
        board: where the losses are drawn besides the log.
        after_step: called after each step, as to save or to stop.

    Raises:
        DivergedError: `max_skipped` steps in a row were skipped.
    """
    network.train()
    for batches in _grouped(loader, settings.accumulate):
        torch.manual_seed(_step_seed(settings.seed, progress.epoch, progress.step, rank()))
        rate = set_learning_rate(optimizer, schedule(progress.total_steps))
        buffers = [buffer.clone() for buffer in network.buffers()]
        passes: list[dict[str, float]] = []
        for images, targets in batches:
            inputs = to_device(images, targets, settings.device)
            with _synchronised(network, last=len(passes) + 1 == len(batches)):
                with torch.autocast(settings.device.type, dtype=settings.amp, enabled=settings.amp is not None):
                    losses = network(*inputs)
                values = _gathered(losses)  # waits for the device
                if fault := _fault_of(values, list(losses), targets):
                    break
                scaler.scale(sum(losses.values()) / len(batches)).backward()
            passes.append(dict(zip(losses, values.mean(dim=0).tolist(), strict=True)))
        if not fault:
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip or math.inf)
            fault = _fault_of(norm[None, None].cpu(), ["gradient"], [t for _, targets in batches for t in targets])
            if not fault:
                scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
        progress.step += 1
        if fault:
            for buffer, before in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(before)
        _count(progress, passes, fault, settings.max_skipped)
        if progress.step % settings.log_every == 0:
            log_losses(progress, rate, board)
        after_step()
    log_losses(progress, optimizer.param_groups[0]["lr"], board)


def to_device(images: list[Tensor], targets: list[dict], device: torch.device) -> tuple[list[Tensor], list[dict]]:
    """A batch of the loader with the parts of targets that networks take."""
    images = [image.to(device, non_blocking=True) for image in images]
    wanted = ("boxes", "labels")
    return images, [{name: target[name].to(device, non_blocking=True) for name in wanted} for target in targets]


def set_learning_rate(optimizer: Optimizer, factor: float) -> float:
    """Multiply the `initial_lr` of every parameter group by `factor`; the rate of the first group."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return optimizer.param_groups[0]["lr"]


def log_losses(progress: Progress, rate: float, board: SummaryWriter | None) -> None:
    """Log the losses since the last line, means over passes and processes; nothing where all steps were skipped."""
    passes, progress.losses = progress.losses, []
    if not passes:
        return
    means = {name: sum(losses[name] for losses in passes) / len(passes) for name in passes[0]}
    means["loss_total"] = sum(means.values())
    losses = " ".join(f"{name} {value:.4f}" for name, value in means.items())
    log.info("epoch %d step %d lr %.6f %s", progress.epoch + 1, progress.total_steps, rate, losses)
    if board is not None:
        for name, value in {**means, "learning_rate": rate}.items():
            board.add_scalar(f"train/{name}", value, progress.total_steps)


def _grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches in lists of `size`, the last one maybe shorter."""
    batches = iter(batches)
    while group := list(islice(batches, size)):
        yield group


def _step_seed(*numbers: int) -> int:
    """A seed of 64 bits from whole numbers that are not negative."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _synchronised(network: nn.Module, last: bool) -> AbstractContextManager:
    """Where several processes accumulate gradients, only the last pass of a step needs to exchange them."""
    return nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()


def _gathered(losses: dict[str, Tensor]) -> Tensor:
    """The losses of all processes, processes x losses, on the CPU."""
    stacked = torch.stack([loss.detach().float() for loss in losses.values()])
    return gather_rows(stacked[None], [1] * world_size()).cpu()


def _fault_of(values: Tensor, names: list[str], targets: list[dict]) -> str:
    """Which values are not finite and the images that gave them, for the log; empty where all are finite.

    Args:
        values: processes x names, or 1 x names where all processes have the same.
        targets: of this process.
    """
    finite = values.isfinite()
    if finite.all():
        return ""
    own = targets if len(values) == 1 or not finite[rank()].all() else []
    images = [name for names in gather_objects([target["img_name"] for target in own]) for name in names]
    faulty = [name for name, is_finite in zip(names, finite.all(dim=0).tolist(), strict=True) if not is_finite]
    return f"{', '.join(faulty)} not finite; images {', '.join(images)}"


def _count(progress: Progress, passes: list[dict[str, float]], fault: str, max_skipped: int) -> None:
    """Count a step in `progress`, as skipped where there was a fault."""
    if not fault:
        progress.losses += passes
        progress.skipped_in_a_row = 0
        return
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    log.warning("epoch %d: step %d skipped (%d so far): %s", progress.epoch + 1, progress.step, progress.skipped, fault)
    if progress.skipped_in_a_row >= max_skipped:
        raise DivergedError(f"training diverged: {max_skipped} steps in a row were skipped; the last one for {fault}")
