"""Optimiser, learning-rate schedule and precisions from the options."""

import logging
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import SGD
from torchvision.ops import DeformConv2d
from yacs.config import CfgNode

from models.backbones import NORMS, scale_parameters
from utils.errors import UserError

log = logging.getLogger(__name__)

PRECISIONS = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Names of SOLVER.AMP and EVAL.AMP -> dtype of the autocast, None for plain float32."""


def build_optimizer(cfg: CfgNode, model: nn.Module, world_size: int = 1) -> SGD:
    """SGD over the parameters that learn; biases, and offsets of deformable convolutions, with settings of their own.

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
    scales = [] if solver.DECAY_NORMS else [p for p in scale_parameters(model) if p.requires_grad]
    weights, biases, offsets = _grouped(model, solver.NORM_BIASES_AS_WEIGHTS, scales)
    groups = [(weights, 1.0, solver.WEIGHT_DECAY), (biases, solver.BIAS_LR_FACTOR, solver.WEIGHT_DECAY_BIAS)]
    groups += [(offsets, solver.OFFSET_LR_FACTOR, solver.WEIGHT_DECAY)] if offsets else []
    groups += [(scales, 1.0, 0.0)] if scales else []
    return SGD(
        [
            {"params": parameters, "lr": rate * factor, "initial_lr": rate * factor, "weight_decay": decay}
            for parameters, factor, decay in groups
        ],
        momentum=solver.MOMENTUM,
    )


def _grouped(
    model: nn.Module, norm_biases_as_weights: bool, others: list[nn.Parameter]
) -> tuple[list[nn.Parameter], ...]:
    """The parameters that learn: weights, biases, those of deformable convolutions' offsets; `others` are left out."""
    left_out = {id(parameter) for parameter in others}
    offsets = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, DeformConv2d)
        for child in module.children()
        for parameter in child.parameters()
    }
    norms = [module for module in model.modules() if norm_biases_as_weights and isinstance(module, NORMS)]
    as_weights = {id(parameter) for norm in norms for parameter in norm.parameters()}
    groups: tuple[list[nn.Parameter], ...] = ([], [], [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in left_out:
            is_bias = name.endswith("bias") and id(parameter) not in as_weights
            groups[2 if id(parameter) in offsets else int(is_bias)].append(parameter)
    return groups


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
