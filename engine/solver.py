"""Optimiser, learning-rate schedule and precisions from the options."""

import logging
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import SGD
from yacs.config import CfgNode

from utils.errors import UserError

log = logging.getLogger(__name__)

PRECISIONS = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Names of SOLVER.AMP and EVAL.AMP -> dtype of the autocast, None for plain float32."""


def build_optimizer(cfg: CfgNode, model: nn.Module, world_size: int = 1) -> SGD:
    """SGD over the parameters that learn, biases with a weight decay of their own.

    With SOLVER.SCALE_LR the rate is BASE_LR x total batch / REFERENCE_BATCH, the total batch counting all processes and
    accumulated passes (linear scaling, Goyal et al., 2017). `initial_lr` of each group is the rate that
    `build_schedule` multiplies.
    """
    solver = cfg.SOLVER
    rate = solver.BASE_LR
    if solver.SCALE_LR:
        total_batch = cfg.INPUT.BATCH_SIZE_TRAIN * world_size * solver.ACCUMULATE
        rate *= total_batch / solver.REFERENCE_BATCH
        log.info("learning rate %g for a total batch of %d images", rate, total_batch)
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in learning if not name.endswith("bias")], "weight_decay": solver.WEIGHT_DECAY},
        {"params": [p for name, p in learning if name.endswith("bias")], "weight_decay": solver.WEIGHT_DECAY_BIAS},
    ]
    return SGD([{**group, "initial_lr": rate} for group in groups], lr=rate, momentum=solver.MOMENTUM)


def build_schedule(cfg: CfgNode, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor on the learning rate of optimiser step i: linear warm-up, then x GAMMA after each milestone (epochs).

    Step i of the W warm-up steps has the factor f + (1 - f) i / (W - 1), f being WARMUP_FACTOR (NAE, SeqNet).

    Milestones after the last epoch have no effect, of which the log warns.

    Raises:
        UserError: milestones that are not positive or do not rise.
    """
    solver = cfg.SOLVER
    milestones = list(solver.MILESTONES)
    if milestones != sorted(set(milestones)) or any(milestone < 1 for milestone in milestones):
        raise UserError(f"SOLVER.MILESTONES {milestones} must rise and be 1 or more; [] for none")
    if any(milestone >= solver.MAX_EPOCHS for milestone in milestones):
        log.warning("SOLVER.MILESTONES %s: training ends after epoch %d", milestones, solver.MAX_EPOCHS)
    warmup_steps = round(solver.WARMUP_EPOCHS * steps_per_epoch)

    def factor(step: int) -> float:
        decayed = solver.GAMMA ** sum(step >= milestone * steps_per_epoch for milestone in milestones)
        if step >= warmup_steps:
            return decayed
        progress = step / max(warmup_steps - 1, 1)
        return decayed * (solver.WARMUP_FACTOR + (1 - solver.WARMUP_FACTOR) * progress)

    return factor


def precision(name: str, option: str) -> torch.dtype | None:
    """The autocast dtype of a name in PRECISIONS; UserError with the option's name if there is none."""
    if name not in PRECISIONS:
        raise UserError(f"{option} {name!r} is not one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
