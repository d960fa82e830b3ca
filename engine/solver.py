"""Optimiser and learning-rate schedule from the options."""

import logging

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from yacs.config import CfgNode

log = logging.getLogger(__name__)


def build_optimizer(cfg: CfgNode, model: nn.Module, world_size: int = 1) -> SGD:
    """SGD over the parameters that learn, biases with a weight decay of their own.

    It is the fused one, which leaves out a step that a tensor on the device (`found_inf`) tells it to leave out.

    With SOLVER.SCALE_LR the rate is BASE_LR x total batch / REFERENCE_BATCH, the total batch counting all processes and
    accumulated passes (linear scaling, Goyal et al., 2017).
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
    optimizer = SGD(groups, lr=rate, momentum=solver.MOMENTUM, fused=True)
    lay_out_momentum(optimizer)
    return optimizer


def lay_out_momentum(optimizer: SGD) -> None:
    """Give every parameter a momentum buffer, 0 where it has none, in the parameter's own layout in memory.

    The fused step takes both for granted: it leaves new buffers uninitialised if the very first step is left out, and
    walks through the memory of parameter, gradient and buffer alike.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            laid_out, stored = torch.zeros_like(parameter, requires_grad=False), state.get("momentum_buffer")
            state["momentum_buffer"] = laid_out if stored is None else laid_out.copy_(stored)


def check_milestones(cfg: CfgNode) -> list[int]:
    """SOLVER.MILESTONES; ValueError where they do not rise within the epochs."""
    milestones, epochs = list(cfg.SOLVER.MILESTONES), cfg.SOLVER.MAX_EPOCHS
    if milestones != sorted(set(milestones)) or any(not 0 < m < epochs for m in milestones):
        raise ValueError(
            f"SOLVER.MILESTONES {milestones} must rise and lie between 0 and SOLVER.MAX_EPOCHS ({epochs}); [] for none"
        )
    return milestones


def build_scheduler(cfg: CfgNode, optimizer: Optimizer, steps_per_epoch: int) -> LambdaLR:
    """The learning rate of every optimiser step: linear warm-up, then x GAMMA after each milestone (in epochs).

    Step i of the W warm-up steps has the factor f + (1 - f) i / (W - 1), f being WARMUP_FACTOR (NAE, SeqNet).

    Raises:
        ValueError: a milestone that is not within the epochs, or milestones that do not rise.
    """
    solver, milestones = cfg.SOLVER, check_milestones(cfg)
    warmup_steps = round(solver.WARMUP_EPOCHS * steps_per_epoch)

    def factor(step: int) -> float:
        passed = sum(step >= milestone * steps_per_epoch for milestone in milestones)
        decayed = solver.GAMMA**passed
        if step >= warmup_steps:
            return decayed
        progress = step / max(warmup_steps - 1, 1)
        return decayed * (solver.WARMUP_FACTOR + (1 - solver.WARMUP_FACTOR) * progress)

    return LambdaLR(optimizer, factor)


PRECISIONS = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Names of SOLVER.AMP and EVAL.AMP -> dtype of the autocast, None for plain float32."""


def precision(name: str, option: str) -> torch.dtype | None:
    """The autocast dtype of a name; ValueError with the option's name if there is none."""
    if name not in PRECISIONS:
        raise ValueError(f"{option} {name!r} is not one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
