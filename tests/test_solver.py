"""Optimiser, learning-rate schedule and the training loop."""

import pytest
import torch
from tiny import tiny_cfg
from torch import nn

from engine.solver import build_optimizer, build_scheduler
from engine.trainer import StepSettings, Trainer, new_scaler

CPU = torch.device("cpu")


def rates(steps, steps_per_epoch, **options):
    cfg = tiny_cfg(**options)
    optimizer = build_optimizer(cfg, nn.Linear(2, 2))
    scheduler = build_scheduler(cfg, optimizer, steps_per_epoch)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_rate_warms_up_over_the_first_epoch_and_falls_at_the_milestones():
    seen = rates(12, 3, SOLVER__BASE_LR=1.0, SOLVER__MAX_EPOCHS=4, SOLVER__MILESTONES="[2, 3]")
    assert seen == pytest.approx([0.001, 0.5005, 1] + [1] * 3 + [0.1] * 3 + [0.01] * 3)


def test_warm_up_factor_and_length_count():
    seen = rates(3, 2, SOLVER__BASE_LR=1.0, SOLVER__WARMUP_FACTOR=0.5, SOLVER__WARMUP_EPOCHS=1.5)
    assert seen == pytest.approx([0.5, 0.75, 1])


@pytest.mark.parametrize("milestones", ["[30]", "[0]", "[3, 2]", "[25]"])
def test_milestones_must_rise_within_the_epochs(milestones):
    with pytest.raises(ValueError, match="MILESTONES"):
        rates(1, 1, SOLVER__MILESTONES=milestones)


def test_the_rate_scales_with_the_total_batch_only_if_asked():
    options = {"SOLVER__BASE_LR": 1.0, "SOLVER__REFERENCE_BATCH": 4, "SOLVER__ACCUMULATE": 3}
    for scale, expected in (("False", 1.0), ("True", 2 * 2 * 3 / 4)):
        cfg = tiny_cfg(**options, SOLVER__SCALE_LR=scale, INPUT__BATCH_SIZE_TRAIN=2)
        assert build_optimizer(cfg, nn.Linear(2, 2), world_size=2).param_groups[0]["lr"] == expected


def test_biases_have_a_weight_decay_of_their_own_and_frozen_parameters_none():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[1].requires_grad_(False)
    cfg = tiny_cfg(SOLVER__WEIGHT_DECAY=0.1, SOLVER__WEIGHT_DECAY_BIAS=0.0)
    weights, biases = build_optimizer(cfg, model).param_groups
    assert [p.shape for p in weights["params"]] == [(3, 2)] and weights["weight_decay"] == 0.1
    assert [p.shape for p in biases["params"]] == [(3,)] and biases["weight_decay"] == 0.0


class Regression(nn.Module):
    """A network with the interface of training: the mean of w x over the batch, as two losses."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, images, targets):
        x = torch.stack([image.mean() for image in images])
        return {"loss_a": (self.w * x).mean(), "loss_b": 0 * self.w}


def fit(values, batch_size, **settings):
    """The weight after an epoch of SGD with rate 1 on images of these grey values, and what was reported."""
    model, reports = Regression(), []
    items = [
        (torch.full((3, 2, 2), v, dtype=torch.uint8), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)})
        for v in values
    ]
    batches = [tuple(map(list, zip(*items[i : i + batch_size], strict=True))) for i in range(0, len(items), batch_size)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    settings = StepSettings(CPU, **{"clip": 0.0} | settings)
    scaler = new_scaler(settings)
    report = lambda losses, skips: reports.append(losses)  # noqa: E731 (short)
    trainer = Trainer(model, optimizer, scheduler, scaler, settings, lambda batch, process: [], report)
    done = list(trainer.steps(batches, epoch=0))
    trainer.report()
    assert done == list(range(scheduler.last_epoch + 1))
    return model.w.item(), reports, scheduler.last_epoch


def test_accumulated_passes_are_one_step_of_the_joint_batch():
    values = [10, 50, 90, 130, 170, 210]
    joint = fit(values, 2)
    accumulated = fit(values, 1, accumulate=2)
    assert accumulated[0] == pytest.approx(joint[0]) and accumulated[2] == joint[2] == 3


def test_passes_left_over_make_a_step():
    assert fit([10, 50, 90], 1, accumulate=2)[2] == 2


def test_gradients_are_clipped():
    assert fit([255], 1)[0] == pytest.approx(0.0)
    assert fit([255], 1, clip=0.25)[0] == pytest.approx(0.75)


def test_losses_are_reported_as_means_of_their_period_and_the_rest_at_the_end():
    _, reports, _ = fit([0, 0, 0], 1, report_every=2)
    assert [r.keys() for r in reports] == 2 * [{"loss_a", "loss_b", "loss_total"}]
    model_means = fit([255, 255, 255], 1, report_every=2)[1]
    assert [r["loss_a"] for r in model_means] == pytest.approx([(1 + 0) / 2, -1])


def test_bfloat16_trains_close_to_float32():
    assert fit([100, 200], 1, amp=torch.bfloat16)[0] == pytest.approx(fit([100, 200], 1)[0], abs=0.05)
