"""The training loop: steps, accumulation, logging, and steps that are skipped because they are not finite."""

import copy
import logging

import pytest
import torch
from tiny import picture, target, tiny_cfg, tiny_model
from torch import nn
from training_process import assert_same

from engine.solver import build_optimizer
from engine.train import Progress, TrainSettings, train_one_epoch
from utils.distributed import rank
from utils.errors import DivergedError

FAULTS = {
    "loss": lambda loss: loss * float("nan"),
    "infinite loss": lambda loss: loss + float("inf"),
    "loss alone": lambda loss: loss + torch.tensor(float("nan")),  # whose gradient is finite
    "gradient": lambda loss: loss + (loss - loss).sqrt(),  # whose value is finite
}


class Faulty(nn.Module):
    """A layer, a batch norm and two losses; the second one has a fault in the batches that are named."""

    def __init__(self, faults: dict[int, str]):
        super().__init__()
        torch.manual_seed(5)
        self.layer, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.faults = faults

    def forward(self, images, targets):
        batch = int(targets[0]["labels"])
        x = self.norm(self.layer(pixels(images).flatten(1)))
        losses = {"loss_a": x.square().mean(), "loss_b": x.exp().mean() + torch.rand(()) * x.mean()}
        if batch in self.faults:
            losses["loss_b"] = FAULTS[self.faults[batch]](losses["loss_b"])
        return losses


class Regression(nn.Module):
    """The mean of w x over a batch of grey values x, in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, images, targets):
        return {"loss_a": (self.w * pixels(images)).mean(), "loss_b": 0 * self.w}


def pixels(images):
    """As floats in [0, 1]."""
    return torch.stack(images) / 255


class Board:
    """Takes what TensorBoard would."""

    def __init__(self):
        self.drawn: dict[str, list[tuple[float, int]]] = {}

    def add_scalar(self, name, value, step):
        self.drawn.setdefault(name.removeprefix("train/"), []).append((value, step))


def batch_of(number):
    """A batch of two images, whose content, label and names follow from its number."""
    images = torch.randint(0, 255, (2, 1, 2, 2), generator=torch.Generator().manual_seed(number)).to(torch.uint8)
    boxes, label = torch.zeros(0, 4), torch.tensor(number)
    return list(images), [{"boxes": boxes, "labels": label, "img_name": f"{number}{i}.jpg"} for i in "ab"]


def grey(*values):
    """A batch of images, each of one grey value."""
    targets = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "img_name": str(value)} for value in values]
    return [torch.full((3, 2, 2), value, dtype=torch.uint8) for value in values], targets


def optimizer_of(model, lr=0.1, momentum=0.9):
    return build_optimizer(tiny_cfg(SOLVER__BASE_LR=lr, SOLVER__MOMENTUM=momentum, SOLVER__WEIGHT_DECAY=0.0), model)


def fit(model, batches, progress=None, optimizer=None, scale=256.0, after_step=lambda: None, **settings):
    """Train on the batches; what TensorBoard was given, the progress, and all that a step can change."""
    settings = TrainSettings(torch.device("cpu"), **{"log_every": 100, "max_skipped": 3} | settings)
    optimizer, progress, board = optimizer or optimizer_of(model), progress or Progress(steps_per_epoch=10), Board()
    # A scale at which nothing overflows but what is meant to; the usual one is found in the first steps.
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=settings.amp is torch.float16)
    train_one_epoch(model, batches, optimizer, lambda _: 1.0, scaler, progress, settings, board, after_step)
    return board.drawn, progress, state_of(model, optimizer)


def state_of(model, optimizer):
    momenta = [state["momentum_buffer"] for state in optimizer.state.values() if state]
    return copy.deepcopy([dict(model.state_dict()), momenta])


# ------------------------------------------------------------------------------------------------- steps and their log
def test_accumulated_passes_are_one_step_of_the_joint_batch():
    values = [10, 50, 90, 130, 170, 210]
    joint, apart = Regression(), Regression()
    _, steps, _ = fit(joint, [grey(*values[i : i + 2]) for i in (0, 2, 4)], max_grad_norm=0.0)
    _, also, _ = fit(apart, [grey(value) for value in values], accumulate=2, max_grad_norm=0.0)
    torch.testing.assert_close(joint.w, apart.w)
    assert steps.step == also.step == 3
    assert fit(Regression(), [grey(1)] * 3, accumulate=2)[1].step == 2, "passes left over make a step"


@pytest.mark.parametrize("norm, change", [(0.0, 1.0), (0.25, 0.25)])
def test_gradients_are_clipped(norm, change):
    model = Regression()
    fit(model, [grey(255)], optimizer=optimizer_of(model, 1.0, 0.0), max_grad_norm=norm)
    assert 1 - model.w.item() == pytest.approx(change, rel=1e-5)


def test_losses_are_logged_as_means_of_their_interval_and_the_rest_at_the_end(caplog):
    caplog.set_level(logging.INFO)
    model = Regression()
    drawn, progress, _ = fit(
        model, [grey(255)] * 3, optimizer=optimizer_of(model, 1.0, 0.0), log_every=2, max_grad_norm=0.0
    )
    assert drawn.keys() == {"loss_a", "loss_b", "loss_total", "learning_rate"}
    assert drawn["loss_a"] == [(pytest.approx(0.5), 2), (pytest.approx(-1), 3)]
    assert drawn["learning_rate"] == [(1.0, 2), (1.0, 3)]
    assert "epoch 1 step 2 lr 1 loss_a 0.5000" in caplog.text and not progress.losses


# ----------------------------------------------------------------------------------------------------- skipped steps
@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", [0, 2])
def test_a_skipped_step_changes_nothing_and_is_named(fault, where, amp, caplog):
    model = Faulty({10 + where: fault})
    optimizer = optimizer_of(model)
    states = [state_of(model, optimizer)]
    save = lambda: states.append(state_of(model, optimizer))  # noqa: E731
    _, progress, _ = fit(model, map(batch_of, [10, 11, 12]), optimizer=optimizer, amp=amp, after_step=save)
    assert (progress.step, progress.skipped, progress.skipped_in_a_row) == (3, 1, int(where == 2))
    for step in range(3):
        if step == where:
            assert_same(states[step], states[step + 1])
        else:
            assert not torch.equal(states[step][0]["layer.weight"], states[step + 1][0]["layer.weight"])
    name, batch = "gradient" if fault == "gradient" else "loss_b", 10 + where
    assert f"epoch 1: step {where + 1} skipped (1 so far): {name} not finite; images {batch}a.jpg, {batch}b.jpg" in (
        caplog.text
    )


def test_in_accumulation_the_whole_step_is_skipped_and_the_guilty_pass_named(caplog):
    _, _, ours = fit(Faulty({13: "loss"}), map(batch_of, [10, 11, 12, 13, 14]), accumulate=2)
    model = Faulty({})
    optimizer = optimizer_of(model)
    fit(model, map(batch_of, [10, 11]), optimizer=optimizer, accumulate=2)
    _, _, expected = fit(model, [batch_of(14)], Progress(10, step=2), optimizer, accumulate=2)
    assert_same(ours, expected)
    assert "images 13a.jpg, 13b.jpg" in caplog.text
    fit(Faulty({10: "gradient"}), map(batch_of, [10, 11]), accumulate=2)
    assert "gradient not finite; images 10a.jpg, 10b.jpg, 11a.jpg, 11b.jpg" in caplog.text


def test_float16_finds_a_scale_that_does_not_overflow():
    model, before = Faulty({}), Faulty({}).state_dict()
    _, progress, _ = fit(model, map(batch_of, range(40)), amp=torch.float16, scale=2.0**20, max_skipped=20)
    assert 0 < progress.skipped < 20 and progress.skipped_in_a_row == 0
    assert int(model.norm.num_batches_tracked) == 40 - progress.skipped
    assert not torch.equal(model.layer.weight, before["layer.weight"])


def test_so_many_in_a_row_end_training_and_fewer_do_not():
    two = {11: "loss", 12: "loss", 14: "loss", 15: "gradient"}
    assert fit(Faulty(two), map(batch_of, range(10, 17)))[1].skipped == 4
    with pytest.raises(DivergedError, match=r"3 steps in a row .* gradient not finite; images 15a.jpg, 15b.jpg"):
        fit(Faulty({13: "loss", 14: "loss", 15: "gradient"}), map(batch_of, range(10, 17)))


def test_an_epoch_continues_exactly_after_any_step():
    model, progress, saved = Faulty({11: "loss", 12: "gradient", 15: "loss"}), Progress(10), []
    optimizer = optimizer_of(model)
    save = lambda: saved.append(copy.deepcopy((model, optimizer, progress)))  # noqa: E731
    drawn, _, expected = fit(model, map(batch_of, range(10, 18)), progress, optimizer, after_step=save, log_every=3)
    for step, (halfway, its_optimizer, its_progress) in enumerate(saved[:-1], start=1):
        rest, _, state = fit(halfway, map(batch_of, range(10 + step, 18)), its_progress, its_optimizer, log_every=3)
        assert its_progress == progress
        assert rest == {name: values[-len(rest[name]) :] for name, values in drawn.items()}
        assert_same(state, expected)


class Spoiled(nn.Module):
    """A real network whose box loss is not finite in one process."""

    def __init__(self, model, guilty):
        super().__init__()
        self.model, self.guilty = model, guilty

    def forward(self, images, targets):
        losses = self.model(images, targets)
        if rank() == self.guilty:
            losses["loss_box_reg"] = losses["loss_box_reg"] * float("nan")
        return losses


def real_step(guilty: int | None, wrap=lambda network: network) -> dict:
    """One step of a real network: what changed, identity memory included, and what was logged."""
    model, lines = tiny_model(), []
    before = copy.deepcopy(model.state_dict())
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("engine").addHandler(handler)
    images = [(255 * picture(96, 130, seed=2 * rank() + i)).to(torch.uint8) for i in range(2)]
    targets = [target(([10.0 + rank(), 10, 50, 80], rank() + i)) | {"img_name": f"{rank()}{i}.jpg"} for i in (1, 2)]
    _, progress, _ = fit(wrap(Spoiled(model, guilty)), [(images, targets)])
    logging.getLogger("engine").removeHandler(handler)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    return {"changed": changed, "skipped": progress.skipped, "lines": lines}
