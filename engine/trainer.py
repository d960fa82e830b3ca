"""The training loop of one epoch."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from utils.logging import LossAverages


class DivergedError(RuntimeError):
    """A loss is no longer finite."""


@dataclass(frozen=True)
class StepSettings:
    """How gradients become steps.

    Attributes:
        device: where the network is.
        amp: dtype of mixed precision, None for float32.
        accumulate: forward passes whose gradients are averaged before a step.
        clip: largest gradient norm, 0 for no clipping.
        report_every: steps between two calls of `report`.
    """

    device: torch.device
    amp: torch.dtype | None = None
    accumulate: int = 1
    clip: float = 10.0
    report_every: int = 10


def new_scaler(settings: StepSettings) -> torch.amp.GradScaler:
    """The loss scaler that float16 needs; it does nothing in other precisions."""
    return torch.amp.GradScaler(settings.device.type, enabled=settings.amp is torch.float16)


def to_device(images: list[Tensor], targets: list[dict], device: torch.device) -> tuple[list[Tensor], list[dict]]:
    """A batch of the loader as the network takes it: uint8 images become float in [0, 1] on the device."""
    images = [image.to(device, non_blocking=True).float() / 255 for image in images]
    wanted = ("boxes", "labels")
    targets = [{name: target[name].to(device, non_blocking=True) for name in wanted} for target in targets]
    return images, targets


def train_one_epoch(
    model: nn.Module,
    batches: Iterable[tuple[list[Tensor], list[dict]]],
    optimizer: Optimizer,
    scheduler: LRScheduler,
    scaler: torch.amp.GradScaler,
    settings: StepSettings,
    report: Callable[[dict[str, float]], None],
) -> None:
    """One pass over the batches. Passes that do not fill a last accumulation make a step of their own.

    Args:
        model: gives the weighted losses of a batch, on the device.
        batches: of uint8 images and targets, as the training loader gives them.
        optimizer, scheduler, scaler: stepped once per `accumulate` batches.
        settings: see `StepSettings`.
        report: called every `report_every` steps with the mean losses since the last call; the losses stay on the
            device in between.

    Raises:
        DivergedError: a loss that was read is not finite.
    """
    model.train()
    averages = LossAverages()
    for step, group in enumerate(_groups(batches, settings.accumulate), start=1):
        for number, batch in enumerate(group, start=1):
            with _gradients_shared(model, number == len(group)):
                losses = _forward(model, batch, settings)
                scaler.scale(sum(losses.values()) / len(group)).backward()
            averages.add(losses)
        _step(model, optimizer, scheduler, scaler, settings.clip)
        if step % settings.report_every == 0:
            report(_finite(averages.read()))
    if rest := averages.read():
        report(_finite(rest))


def _groups(batches: Iterable[tuple[list, list]], size: int) -> Iterator[list[tuple[list, list]]]:
    """Batches in lists of `size`, the last one maybe shorter."""
    batches = iter(batches)
    while group := list(islice(batches, size)):
        yield group


def _gradients_shared(model: nn.Module, shared: bool) -> AbstractContextManager:
    """Where several processes accumulate gradients, only the last pass of a step needs to exchange them."""
    return nullcontext() if shared or not isinstance(model, DistributedDataParallel) else model.no_sync()


def _forward(model: nn.Module, batch: tuple[list, list], settings: StepSettings) -> dict[str, Tensor]:
    images, targets = to_device(*batch, settings.device)
    with torch.autocast(settings.device.type, dtype=settings.amp, enabled=settings.amp is not None):
        return model(images, targets)


def _step(
    model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, scaler: torch.amp.GradScaler, clip: float
) -> None:
    if clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_((p for p in model.parameters() if p.grad is not None), clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    scheduler.step()


def _finite(losses: dict[str, float]) -> dict[str, float]:
    bad = [name for name, value in losses.items() if not torch.tensor(value).isfinite()]
    if bad:
        raise DivergedError(
            f"training diverged: {', '.join(bad)} is not finite; lower SOLVER.BASE_LR or warm up longer"
        )
    return losses
