"""The training loop: one epoch of optimiser steps."""

import logging
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from models.image_memory import memory_of
from utils.distributed import gather_objects, gather_rows, rank, world_size
from utils.errors import DivergedError

log = logging.getLogger(__name__)

Batch = tuple[list[Tensor], list[dict]]
"""Images and targets, as the training loader gives them."""


@dataclass(frozen=True)
class TrainSettings:
    """How gradients become optimiser steps.

    Attributes:
        device: where the network is.
        amp: dtype of autocast, None for float32.
        accumulate: forward passes whose gradients are averaged for one step.
        max_grad_norm: the gradient is clipped to this norm; 0 for no clipping.
        log_every: the logging interval, in steps.
        max_skipped: skipped steps in a row that end training.
        seed: of the random samples; not negative.
    """

    device: torch.device
    amp: torch.dtype | None = None
    accumulate: int = 1
    max_grad_norm: float = 10.0
    log_every: int = 10
    max_skipped: int = 20
    seed: int = 0


@dataclass
class Progress:
    """The state of a run besides weights, optimiser and scaler; a checkpoint holds these fields under their names.

    Attributes:
        steps_per_epoch: optimiser steps of a complete epoch.
        epoch: epochs done.
        step: steps done of the next epoch.
        evaluated: epochs done at the last evaluation.
        best: highest search mAP so far.
        skipped, skipped_in_a_row: steps skipped in all, and since the last one that was not.
        losses: not yet logged, by name, of each forward pass.
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

    def load_state_dict(self, checkpoint: dict) -> None:
        """Take the fields that a checkpoint has; TypeError where one is of another type."""
        for name, value in asdict(self).items():
            saved = checkpoint.get(name, value)
            if type(saved) is not type(value):
                raise TypeError(f"{name} is {saved!r}")
            setattr(self, name, saved)


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
    """Train on the batches of an epoch that come after its first `progress.step` steps, and update `progress`.

    A step whose losses or gradient are not finite in any process is skipped: weights, momentum, buffers (batch-norm
    statistics, identity memory) and the memory of images stay as they were. Random samples depend on seed, epoch, step
    and process alone.

    Args:
        network: gives the weighted losses of a batch by name; on the device.
        schedule: factor on each parameter group's `initial_lr`, given the steps done since training began.
        scaler: enabled for float16 alone.
        board: TensorBoard writer; None for the log alone.
        after_step: called after each step, for instance to save or to stop.

    Raises:
        DivergedError: `max_skipped` steps in a row were skipped.
    """
    network.train()
    remaining = iter(loader)
    while batches := list(islice(remaining, settings.accumulate)):  # fewer at the end of an epoch
        torch.manual_seed(_step_seed(settings.seed, progress.epoch, progress.step, rank()))
        rate = set_learning_rate(optimizer, schedule(progress.total_steps))
        undo = _undo_of_passes(network)
        losses, fault = accumulate_gradients(network, batches, scaler, settings)
        if not fault:
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm or math.inf)
            if norm.isfinite():
                scaler.step(optimizer)
            else:
                fault = _describe_fault(["gradient"], [target for _, targets in batches for target in targets])
            scaler.update()  # in float16 an overflow of the gradient lowers the loss scale
        if fault:
            undo()
        optimizer.zero_grad()
        progress.step += 1
        _count(progress, losses, fault, settings.max_skipped)
        if progress.step % settings.log_every == 0:
            log_losses(progress, rate, board)
        after_step()
    log_losses(progress, optimizer.param_groups[0]["lr"], board)


def accumulate_gradients(
    network: nn.Module, batches: list[Batch], scaler: torch.amp.GradScaler, settings: TrainSettings
) -> tuple[list[dict[str, float]], str]:
    """Add up the (scaled) gradients of the mean loss over the batches of a step, one forward pass each.

    Returns:
        The losses of each pass by name, means over processes, and "". At the first that are not finite: none, and a
        description of the fault.
    """
    passes = []
    for images, targets in batches:
        inputs = to_device(images, targets, settings.device)
        with _sync_gradients(network, last=len(passes) + 1 == len(batches)):
            with torch.autocast(settings.device.type, dtype=settings.amp, enabled=settings.amp is not None):
                losses = network(*inputs)
            values = _gather_losses(losses)  # waits for the device
            finite = values.isfinite()
            if not finite.all():
                names = [name for name, column in zip(losses, finite.T, strict=True) if not column.all()]
                return [], _describe_fault(names, [] if finite[rank()].all() else targets)
            scaler.scale(sum(losses.values()) / len(batches)).backward()
        passes.append(dict(zip(losses, values.mean(dim=0).tolist(), strict=True)))
    return passes, ""


def to_device(images: list[Tensor], targets: list[dict], device: torch.device) -> tuple[list[Tensor], list[dict]]:
    """A batch of the loader on a device, targets with what a network takes alone; see `models.base.Targets`."""
    images = [image.to(device, non_blocking=True) for image in images]
    moved = [{n: target[n].to(device, non_blocking=True) for n in ("boxes", "labels")} for target in targets]
    others = [{n: target[n] for n in ("scale", "index") if n in target} for target in targets]
    return images, [to | other for to, other in zip(moved, others, strict=True)]


def set_learning_rate(optimizer: Optimizer, factor: float) -> float:
    """Set the rate of every parameter group to its `initial_lr` times `factor`; returns the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return optimizer.param_groups[0]["lr"]


def log_losses(progress: Progress, rate: float, board: SummaryWriter | None) -> None:
    """Log the means of the losses not yet logged, if there are any."""
    passes, progress.losses = progress.losses, []
    if not passes:
        return
    means = {name: sum(losses[name] for losses in passes) / len(passes) for name in passes[0]}
    means["loss_total"] = sum(means.values())
    losses = " ".join(f"{name} {value:.4f}" for name, value in means.items())
    log.info("epoch %d step %d lr %.3g %s", progress.epoch + 1, progress.total_steps, rate, losses)
    if board is not None:
        for name, value in {**means, "learning_rate": rate}.items():
            board.add_scalar(f"train/{name}", value, progress.total_steps)


def _undo_of_passes(network: nn.Module) -> Callable[[], None]:
    """A function that undoes what forward passes after this call change: buffers and the memory of images."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    memory = memory_of(network)
    visits = dict(memory.visits) if memory is not None else {}

    def undo() -> None:
        for buffer, saved in buffers:
            buffer.copy_(saved)
        if memory is not None:
            memory.visits = visits

    return undo


def _step_seed(*numbers: int) -> int:
    """A 64-bit seed from non-negative integers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _sync_gradients(network: nn.Module, last: bool) -> AbstractContextManager:
    """Where several processes accumulate gradients, only the last pass of a step needs to exchange them."""
    return nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()


def _gather_losses(losses: dict[str, Tensor]) -> Tensor:
    """The losses of all processes, processes x losses, on the CPU."""
    stacked = torch.stack([loss.detach().float() for loss in losses.values()])
    return gather_rows(stacked[None], [1] * world_size()).cpu()


def _describe_fault(names: list[str], targets: list[dict]) -> str:
    """Which values are not finite, and the images that gave them: those of `targets` of all processes."""
    images = sum(gather_objects([target["img_name"] for target in targets]), [])
    return f"{', '.join(names)} not finite; images {', '.join(images)}"


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
