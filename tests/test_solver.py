"""Optimiser and learning-rate schedule."""

import copy

import pytest
import torch
from tiny import tiny_cfg, tiny_model
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchvision.models.convnext import CNBlock
from torchvision.models.swin_transformer import SwinTransformerBlockV2

from engine.solver import OPTIMIZERS, build_optimizer, build_schedule
from engine.train import set_learning_rate
from models.backbones import build_backbone
from models.base import PersonSearchModel
from models.deformable import DeformableConv
from models.preprocess import Preprocess
from utils.errors import UserError


def rates(steps, steps_per_epoch, **options):
    cfg = tiny_cfg(**options)
    optimizer, schedule = build_optimizer(cfg, nn.Linear(2, 2)), build_schedule(cfg, steps_per_epoch)
    return [set_learning_rate(optimizer, schedule(step)) for step in range(steps)]


@pytest.mark.parametrize(
    "steps_per_epoch, options, expected",
    [
        (3, {"SOLVER__MILESTONES": "[2, 3]"}, [0.001, 0.5005, 1] + [1] * 3 + [0.1] * 3 + [0.01] * 3),
        (2, {"SOLVER__MILESTONES": "[3]", "SOLVER__WARMUP_FACTOR": 0.5, "SOLVER__WARMUP_EPOCHS": 1.5}, [0.5, 0.75, 1]),
    ],
)
def test_the_rate_warms_up_and_falls_at_the_milestones(steps_per_epoch, options, expected):
    seen = rates(len(expected), steps_per_epoch, SOLVER__BASE_LR=1.0, SOLVER__MAX_EPOCHS=4, **options)
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize("milestones", ["[0]", "[3, 2]", "[2, 2]"])
def test_milestones_must_rise(milestones):
    with pytest.raises(UserError, match="MILESTONES"):
        rates(1, 1, SOLVER__MILESTONES=milestones)


def test_a_milestone_after_the_last_epoch_is_warned_of(caplog):
    late = rates(4, 2, SOLVER__MAX_EPOCHS=2, SOLVER__MILESTONES="[1, 2]", SOLVER__WARMUP_EPOCHS=0.0)
    assert "training ends after epoch 2" in caplog.text
    assert late == rates(4, 2, SOLVER__MAX_EPOCHS=2, SOLVER__MILESTONES="[1]", SOLVER__WARMUP_EPOCHS=0.0)


def test_the_cosine_is_that_of_pytorch_after_the_warm_up():
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.5)
    theirs = CosineAnnealingLR(optimizer, T_max=9, eta_min=0.5 * 0.02)
    expected = [0.005, 0.2525, 0.5]
    for _ in range(9):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    options = {"SOLVER__SCHEDULE": "cosine", "SOLVER__END_FACTOR": 0.02, "SOLVER__WARMUP_FACTOR": 0.01}
    assert rates(12, 3, SOLVER__BASE_LR=0.5, SOLVER__MAX_EPOCHS=4, **options) == pytest.approx(expected)


@pytest.mark.parametrize("optimizer, expected", [("sgd", 3.0), ("adam", 3**0.5), ("adamw", 3**0.5)])
def test_the_rate_scales_with_the_total_batch_only_if_asked(optimizer, expected):
    options = {"SOLVER__BASE_LR": 1.0, "SOLVER__REFERENCE_BATCH": 4, "SOLVER__ACCUMULATE": 3}
    for scale, rate in (("False", 1.0), ("True", expected)):
        cfg = tiny_cfg(**options, SOLVER__SCALE_LR=scale, INPUT__BATCH_SIZE_TRAIN=2, SOLVER__OPTIMIZER=optimizer)
        built = build_optimizer(cfg, nn.Linear(2, 2), world_size=2)
        assert built.param_groups[0]["lr"] == pytest.approx(rate)


PLAIN = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.8, foreach=False),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.1, betas=(0.8, 0.999), foreach=False),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.999), foreach=False),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_pytorchs_plain_optimiser(name):
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    twin, inputs = copy.deepcopy(model), torch.randn(4, 6, 7)
    cfg = tiny_cfg(SOLVER__OPTIMIZER=name, SOLVER__BASE_LR=0.1, SOLVER__MOMENTUM=0.8, SOLVER__WEIGHT_DECAY_BIAS=0.0)
    weights = {"params": [layer.weight for layer in twin], "weight_decay": cfg.SOLVER.WEIGHT_DECAY}
    biases = {"params": [layer.bias for layer in twin], "weight_decay": 0.0}
    for network, optimizer in ((model, build_optimizer(cfg, model)), (twin, PLAIN[name]([weights, biases]))):
        for batch in inputs:
            network(batch).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("option, value", [("OPTIMIZER", "lion"), ("SCHEDULE", "poly")])
def test_unknown_names_are_refused_with_those_that_exist(option, value):
    with pytest.raises(UserError, match=f"SOLVER.{option} '{value}' is not one of .*(adamw|cosine)"):
        rates(1, 1, **{f"SOLVER__{option}": value})


def test_biases_have_a_weight_decay_of_their_own_and_frozen_parameters_none():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[1].requires_grad_(False)
    cfg = tiny_cfg(SOLVER__WEIGHT_DECAY=0.1, SOLVER__WEIGHT_DECAY_BIAS=0.0)
    weights, biases = build_optimizer(cfg, model).param_groups
    assert [p.shape for p in weights["params"]] == [(3, 2)] and weights["weight_decay"] == 0.1
    assert [p.shape for p in biases["params"]] == [(3,)] and biases["weight_decay"] == 0.0


def test_biases_and_offsets_have_learning_rates_of_their_own():
    model = nn.Sequential(nn.Conv2d(32, 32, 1), nn.GroupNorm(32, 32), DeformableConv(32, 32, True, bias=True))
    options = {"SOLVER__BASE_LR": 1.0, "SOLVER__BIAS_LR_FACTOR": 2.0, "SOLVER__OFFSET_LR_FACTOR": 0.1}
    options |= {"SOLVER__WEIGHT_DECAY": 0.1, "SOLVER__WEIGHT_DECAY_BIAS": 0.0, "SOLVER__NORM_BIASES_AS_WEIGHTS": True}
    conv, norm, deformable = model
    expected = [
        (1.0, 0.1, [conv.weight, norm.weight, norm.bias, deformable.weight]),
        (2.0, 0.0, [conv.bias, deformable.bias]),
        (0.1, 0.1, [deformable.conv_offset.weight, deformable.conv_offset.bias]),
    ]
    optimizer = build_optimizer(tiny_cfg(**options), model)
    set_learning_rate(optimizer, 1.0)
    for group, (rate, decay, parameters) in zip(optimizer.param_groups, expected, strict=True):
        assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (rate, rate, decay)
        assert {id(parameter) for parameter in group["params"]} == {id(parameter) for parameter in parameters}


def test_normalisation_layers_and_layer_scales_need_not_decay():
    block = CNBlock(4, layer_scale=1e-6, stochastic_depth_prob=0.0)
    model = nn.Sequential(block, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
    model[3].requires_grad_(False)
    conv, norm, first, second = (block.block[index] for index in (0, 2, 3, 5))
    expected = [
        (0.1, [conv.weight, first.weight, second.weight, model[1].weight]),
        (0.05, [conv.bias, first.bias, second.bias, model[1].bias]),
        (0.0, [block.layer_scale, norm.weight, norm.bias, model[2].weight, model[2].bias]),
    ]
    cfg = tiny_cfg(SOLVER__DECAY_NORMS=False, SOLVER__WEIGHT_DECAY=0.1, SOLVER__WEIGHT_DECAY_BIAS=0.05)
    for group, (decay, parameters) in zip(build_optimizer(cfg, model).param_groups, expected, strict=True):
        assert group["weight_decay"] == decay
        assert {id(parameter) for parameter in group["params"]} == {id(parameter) for parameter in parameters}


def test_attention_decays_but_for_its_positions_and_its_temperature():
    attention = SwinTransformerBlockV2(4, 2, [2, 2], [0, 0]).attn
    model = nn.ModuleDict({"swin": attention, "scene": nn.MultiheadAttention(4, 2)})
    model["scene"].rows = nn.Parameter(torch.zeros(1, 4, 7, 1))
    groups = build_optimizer(tiny_cfg(SOLVER__DECAY_NORMS=False, SOLVER__WEIGHT_DECAY_BIAS=0.0), model).param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    decayed = {name for name, parameter in model.named_parameters() if decays[id(parameter)]}
    swin, scene = ("swin.qkv.weight", "swin.proj.weight"), ("scene.in_proj_weight", "scene.out_proj.weight")
    assert decayed == {*swin, *scene}


def test_what_comes_from_the_backbone_learns_at_a_rate_of_its_own():
    model, options = tiny_model(), {"SOLVER__BASE_LR": 1.0, "SOLVER__BACKBONE_LR_FACTOR": 0.25}
    groups = build_optimizer(tiny_cfg(**options), model).param_groups
    rates = {id(parameter): group["initial_lr"] for group in groups for parameter in group["params"]}
    learning = {name: rates[id(value)] for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {name: 0.25 if "stem." in name or ".tail." in name else 1.0 for name in learning}
    assert groups[0]["initial_lr"] == 1.0, "the rate that is logged"
    without = PersonSearchModel(Preprocess(96, 160))
    with pytest.raises(UserError, match="BACKBONE_LR_FACTOR must be 1: MODEL.FAMILY two_stage names no backbone"):
        build_optimizer(tiny_cfg(**options), without)


@pytest.mark.parametrize("name", ["tiny_swin", "tiny_swin_v2"])
def test_swins_relative_positions_need_not_decay(name):
    stem = build_backbone(name).stem
    groups = build_optimizer(tiny_cfg(SOLVER__DECAY_NORMS=False), stem).param_groups
    decaying = {id(parameter) for parameter in groups[0]["params"]}
    names = {name for name, parameter in stem.named_parameters() if id(parameter) in decaying}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in names} == {"0", "3", "qkv", "proj", "reduction"}
    assert not any("cpb_mlp" in name for name in names)
