"""Optimiser, learning-rate schedule and precisions from the options."""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torchvision.ops import DeformConv2d
from yacs.config import CfgNode

from models.backbones import NORMS, scale_parameters
from utils.errors import UserError
from utils.options import check_choices

log = logging.getLogger(__name__)

PRECISIONS = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Names of SOLVER.AMP and EVAL.AMP -> dtype of the autocast, None for plain float32."""
OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def build_optimizer(cfg: CfgNode, model: nn.Module, world_size: int = 1) -> Optimizer:
    """The optimiser SOLVER.OPTIMIZER over the parameters that learn, in groups of one rate and weight decay.

    With SOLVER.SCALE_LR the rate is BASE_LR times the total batch over REFERENCE_BATCH, the total batch counting all
    processes and accumulated passes (linear scaling, Goyal et al., 2017); for Adam and AdamW times the square root of
    that (Malladi et al., NeurIPS 2022). `initial_lr` of each group is the rate that `build_schedule` multiplies.

    Steps are fused: one pass over weights, gradients and moments, on CPUs as on CUDA.

    Raises:
        UserError: an unknown optimiser; a BACKBONE_LR_FACTOR where the family of networks names no backbone.
    """
    solver = cfg.SOLVER
    check_choices("SOLVER", solver, {"OPTIMIZER": OPTIMIZERS})
    plain = solver.OPTIMIZER == "sgd"
    rate = solver.BASE_LR
    if solver.SCALE_LR:
        total_batch = cfg.INPUT.BATCH_SIZE_TRAIN * world_size * solver.ACCUMULATE
        rate *= (total_batch / solver.REFERENCE_BATCH) ** (1.0 if plain else 0.5)
        log.info("learning rate %g for a total batch of %d images", rate, total_batch)
    groups = [
        {"params": parameters, "lr": rate * factor, "initial_lr": rate * factor, "weight_decay": decay}
        for parameters, factor, decay in _groups(cfg, model)
    ]
    momentum = {"momentum": solver.MOMENTUM} if plain else {"betas": (solver.MOMENTUM, 0.999)}
    return OPTIMIZERS[solver.OPTIMIZER](groups, **momentum, fused=True)


def _groups(cfg: CfgNode, model: nn.Module) -> list[tuple[list[nn.Parameter], float, float]]:
    """The parameters that learn, in groups, each with the factor on its learning rate and its weight decay.

    A group is one of the kinds below, of the backbone or of the rest where the rates of the two differ. The groups
    follow from the network and from switches, not from values: a resumed run may have other rates and decays.
    """
    solver = cfg.SOLVER
    settings = {
        "weights": (1.0, solver.WEIGHT_DECAY),
        "biases": (solver.BIAS_LR_FACTOR, solver.WEIGHT_DECAY_BIAS),
        "offsets": (solver.OFFSET_LR_FACTOR, solver.WEIGHT_DECAY),
        "scales": (1.0, 0.0),
    }
    kinds, backbone = _kinds(model, solver.NORM_BIASES_AS_WEIGHTS, solver.DECAY_NORMS), set()
    if solver.BACKBONE_LR_FACTOR != 1.0:
        backbone = _ids(model.backbone_modules())
        if not backbone:
            raise UserError(f"SOLVER.BACKBONE_LR_FACTOR must be 1: MODEL.FAMILY {cfg.MODEL.FAMILY} names no backbone")
    members = defaultdict(list)
    for parameter in model.parameters():
        if parameter.requires_grad:
            members[id(parameter) in backbone, kinds[id(parameter)]].append(parameter)
    return [
        (members[in_backbone, kind], factor * backbone_factor, decay)
        for in_backbone, backbone_factor in ((False, 1.0), (True, solver.BACKBONE_LR_FACTOR))
        for kind, (factor, decay) in settings.items()
        if members[in_backbone, kind]
    ]


def _kinds(model: nn.Module, norm_biases_as_weights: bool, decay_norms: bool) -> dict[int, str]:
    """The kind of each parameter by its `id`: a key of the settings in `_groups`.

    Offsets are the weights and biases of the convolutions that give deformable convolutions their offsets. Scales,
    which do without weight decay, are a kind of their own only where `decay_norms` is off.
    """
    modules = list(model.modules())
    norms = _ids(module for module in modules if norm_biases_as_weights and isinstance(module, NORMS))
    kinds = {
        id(parameter): "biases" if name.endswith("bias") and id(parameter) not in norms else "weights"
        for name, parameter in model.named_parameters()
    }
    kinds |= {id(parameter): "scales" for parameter in scale_parameters(model) if not decay_norms}
    offsets = _ids(child for module in modules if isinstance(module, DeformConv2d) for child in module.children())
    return kinds | dict.fromkeys(offsets, "offsets")


def _ids(modules: Iterable[nn.Module]) -> set[int]:
    """Which parameters are in the modules, by `id`."""
    return {id(parameter) for module in modules for parameter in module.parameters()}


def build_schedule(cfg: CfgNode, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor on the learning rate of optimiser step i, from 0: SOLVER.SCHEDULE, and a linear warm-up before it.

    Step i of the W warm-up steps has the factor f + (1 - f) i / (W - 1), f being WARMUP_FACTOR (NAE, SeqNet).

    Raises:
        UserError: an unknown schedule; milestones that are not positive or do not rise.
    """
    solver = cfg.SOLVER
    check_choices("SOLVER", solver, {"SCHEDULE": SCHEDULES})
    warmup_steps = round(solver.WARMUP_EPOCHS * steps_per_epoch)
    after_warmup = SCHEDULES[solver.SCHEDULE](solver, steps_per_epoch, warmup_steps)

    def factor(step: int) -> float:
        if step >= warmup_steps:
            return after_warmup(step)
        progress = step / max(warmup_steps - 1, 1)
        return after_warmup(step) * (solver.WARMUP_FACTOR + (1 - solver.WARMUP_FACTOR) * progress)

    return factor


def _step_schedule(solver: CfgNode, steps_per_epoch: int, _: int) -> Callable[[int], float]:
    """GAMMA to the power of the milestones (epochs) that are past; the log warns of those after the last epoch."""
    milestones = list(solver.MILESTONES)
    if milestones != sorted(set(milestones)) or any(milestone < 1 for milestone in milestones):
        raise UserError(f"SOLVER.MILESTONES {milestones} must rise and be 1 or more; [] for none")
    if any(milestone >= solver.MAX_EPOCHS for milestone in milestones):
        log.warning("SOLVER.MILESTONES %s: training ends after epoch %d", milestones, solver.MAX_EPOCHS)
    return lambda step: solver.GAMMA ** sum(step >= milestone * steps_per_epoch for milestone in milestones)


def _cosine_schedule(solver: CfgNode, steps_per_epoch: int, warmup_steps: int) -> Callable[[int], float]:
    """Half a cosine wave (Loshchilov and Hutter, ICLR 2017) from 1 after the warm-up to END_FACTOR after the last step,
    as `torch.optim.lr_scheduler.CosineAnnealingLR`."""
    length, end = max(solver.MAX_EPOCHS * steps_per_epoch - warmup_steps, 1), solver.END_FACTOR

    def factor(step: int) -> float:
        progress = min(max(step - warmup_steps, 0) / length, 1.0)
        return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2

    return factor


SCHEDULES = {"step": _step_schedule, "cosine": _cosine_schedule}


def precision(name: str, option: str) -> torch.dtype | None:
    """The autocast dtype of a name in PRECISIONS; UserError with the option's name if there is none."""
    if name not in PRECISIONS:
        raise UserError(f"{option} {name!r} is not one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
