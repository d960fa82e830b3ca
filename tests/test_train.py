"""The training loop: steps, accumulation, logging, and steps that are skipped because they are not finite."""

import copy
import itertools
import logging

import pytest
import torch
from test_distributed import in_two_processes
from tiny import picture, target, tiny_cfg, tiny_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.solver import build_optimizer
from engine.train import DivergedError, Progress, TrainSettings, train_one_epoch
from utils.distributed import rank

CPU = torch.device("cpu")
FAULTS = {
    "loss": lambda loss: loss * float("nan"),
    "infinite loss": lambda loss: loss + float("inf"),
    "loss alone": lambda loss: loss + torch.tensor(float("nan")),  # whose gradient is finite
    "gradient": lambda loss: loss + (loss - loss).sqrt(),  # whose value is finite
}


class Watched(nn.Module):
    """A layer, a batch norm and two losses; the second one goes wrong in the batches that are named."""

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


def pixels(images):
    """As floats in [0, 1]."""
    return torch.stack([image / 255 if image.dtype == torch.uint8 else image for image in images])


class Regression(nn.Module):
    """The mean of w x over a batch of grey values x, in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, images, targets):
        return {"loss_a": (self.w * pixels(images)).mean(), "loss_b": 0 * self.w}


class Board:
    """Takes what TensorBoard would."""

    def __init__(self):
        self.drawn: dict[str, list[tuple[float, int]]] = {}

    def add_scalar(self, name, value, step):
        self.drawn.setdefault(name.removeprefix("train/"), []).append((value, step))


def batch_of(number):
    """A batch of two images, whose content, label and names follow from its number."""
    images = torch.randint(0, 255, (2, 1, 2, 2), generator=torch.Generator().manual_seed(number)).to(torch.uint8)
    targets = [
        {"boxes": torch.zeros(0, 4), "labels": torch.tensor(number), "img_name": f"{number}{i}.jpg"} for i in "ab"
    ]
    return list(images), targets


def grey(*values):
    """A batch of images, each of one grey value."""
    targets = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "img_name": str(value)} for value in values]
    return [torch.full((3, 2, 2), value, dtype=torch.uint8) for value in values], targets


def optimizer_of(model, lr=0.1, momentum=0.9):
    return build_optimizer(tiny_cfg(SOLVER__BASE_LR=lr, SOLVER__MOMENTUM=momentum, SOLVER__WEIGHT_DECAY=0.0), model)


def fit(model, batches, progress=None, optimizer=None, scale=256.0, lr=0.1, momentum=0.9, after_step=None, **settings):
    """Train on the batches; what TensorBoard was given, the progress, and all that a step can move."""
    settings = TrainSettings(CPU, **{"log_every": 100, "max_skipped": 3} | settings)
    optimizer = optimizer or build_optimizer(
        tiny_cfg(SOLVER__BASE_LR=lr, SOLVER__MOMENTUM=momentum, SOLVER__WEIGHT_DECAY=0.0), model
    )
    # A scale at which nothing overflows but what is meant to; the usual one is found in the first steps.
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=settings.amp is torch.float16)
    board, progress = Board(), progress or Progress(steps_per_epoch=10)
    after_step = after_step or (lambda: None)
    train_one_epoch(model, batches, optimizer, lambda _: 1.0, scaler, progress, settings, board, after_step)
    momenta = {str(i): state["momentum_buffer"] for i, state in enumerate(optimizer.state.values()) if momentum}
    return board.drawn, progress, {name: v.clone() for name, v in {**model.state_dict(), **momenta}.items()}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


# ------------------------------------------------------------------------------------------------- steps and their log
def test_accumulated_passes_are_one_step_of_the_joint_batch():
    values = [10, 50, 90, 130, 170, 210]
    joint, apart = Regression(), Regression()
    _, steps, _ = fit(joint, [grey(*values[i : i + 2]) for i in (0, 2, 4)], clip=0.0)
    _, also, _ = fit(apart, [grey(value) for value in values], accumulate=2, clip=0.0)
    torch.testing.assert_close(joint.w, apart.w)
    assert steps.step == also.step == 3
    assert fit(Regression(), [grey(1)] * 3, accumulate=2)[1].step == 2, "passes left over make a step"


@pytest.mark.parametrize("clip, moved", [(0.0, 1.0), (0.25, 0.25)])
def test_gradients_are_clipped(clip, moved):
    model = Regression()
    fit(model, [grey(255)], lr=1.0, momentum=0.0, clip=clip)
    assert 1 - model.w.item() == pytest.approx(moved, rel=1e-5)


def test_losses_are_logged_as_means_of_their_interval_and_the_rest_at_the_end(caplog):
    caplog.set_level(logging.INFO)
    drawn, progress, _ = fit(Regression(), [grey(255)] * 3, lr=1.0, momentum=0.0, log_every=2, clip=0.0)
    assert drawn.keys() == {"loss_a", "loss_b", "loss_total", "learning_rate"}
    assert drawn["loss_a"] == [(pytest.approx(0.5), 2), (pytest.approx(-1), 3)]
    assert drawn["learning_rate"] == [(1.0, 2), (1.0, 3)]
    assert "epoch 1 step 2 lr 1.000000 loss_a 0.5000" in caplog.text and not progress.losses


def test_bfloat16_trains_close_to_float32():
    models = [Regression(), Regression()]
    for model, amp in zip(models, (None, torch.bfloat16), strict=True):
        fit(model, [grey(100), grey(200)], amp=amp)
    assert models[0].w.item() == pytest.approx(models[1].w.item(), abs=0.05)


# ----------------------------------------------------------------------------------------------------- skipped steps
@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", [0, 2])
def test_a_skipped_step_changes_nothing_and_is_named(fault, where, amp, caplog):
    """Training goes on as if it had been a step of another network, whose state is then put in place."""
    numbers = [10, 11, 12]
    first, faulty = Watched({numbers[where]: fault}), Watched({})
    optimizer = optimizer_of(first)
    states = []

    def note():
        moments = [state["momentum_buffer"].clone() for state in optimizer.state.values()]
        states.append({**copy.deepcopy(first.state_dict()), **dict(enumerate(moments))})

    before = copy.deepcopy(first.state_dict())
    _, progress, _ = fit(first, map(batch_of, numbers), optimizer=optimizer, amp=amp, after_step=note)
    assert (progress.step, progress.skipped, progress.skipped_in_a_row) == (3, 1, int(where == 2))
    assert_equal(states[where], states[where - 1] if where else before)
    name = "gradient" if fault == "gradient" else "loss_b"
    images = f"{numbers[where]}a.jpg, {numbers[where]}b.jpg"
    assert f"epoch 1: step {where + 1} skipped (1 so far): {name} not finite; images {images}" in caplog.text
    assert not torch.equal(states[1]["layer.weight"], faulty.state_dict()["layer.weight"]), "other steps are taken"


def test_in_accumulation_the_whole_step_is_skipped_and_the_guilty_pass_named(caplog):
    drawn, _, ours = fit(Watched({13: "loss"}), map(batch_of, [10, 11, 12, 13, 14]), accumulate=2)
    theirs = Watched({})
    optimizer = optimizer_of(theirs)
    fit(theirs, map(batch_of, [10, 11]), optimizer=optimizer, accumulate=2)
    _, _, expected = fit(theirs, [batch_of(14)], Progress(10, step=2), optimizer, accumulate=2)
    assert_equal(ours, expected)
    assert "images 13a.jpg, 13b.jpg" in caplog.text
    fit(Watched({10: "gradient"}), map(batch_of, [10, 11]), accumulate=2)
    assert "gradient not finite; images 10a.jpg, 10b.jpg, 11a.jpg, 11b.jpg" in caplog.text


def test_float16_finds_a_scale_that_does_not_overflow():
    model, before = Watched({}), Watched({}).state_dict()
    scales = []
    _, progress, _ = fit(model, map(batch_of, range(40)), amp=torch.float16, scale=2.0**20, max_skipped=20)
    assert 0 < progress.skipped < 20 and progress.skipped_in_a_row == 0, scales
    assert int(model.norm.num_batches_tracked) == 40 - progress.skipped
    assert not torch.equal(model.layer.weight, before["layer.weight"])


def test_so_many_in_a_row_end_training_and_fewer_do_not():
    two = {11: "loss", 12: "loss", 14: "loss", 15: "gradient"}
    assert fit(Watched(two), map(batch_of, range(10, 17)))[1].skipped == 4
    with pytest.raises(DivergedError, match=r"3 steps in a row .* gradient not finite; images 15a.jpg, 15b.jpg"):
        fit(Watched({13: "loss", 14: "loss", 15: "gradient"}), map(batch_of, range(10, 17)))


def test_an_epoch_continues_exactly_after_any_step():
    numbers, faults = list(range(10, 18)), {11: "loss", 12: "gradient", 15: "loss"}
    expected, progress, theirs = fit(Watched(faults), map(batch_of, numbers), log_every=3)
    for stop in range(1, len(numbers)):
        model = Watched(faults)
        optimizer, steps = optimizer_of(model), itertools.count(1)
        halfway, saved = Progress(10), {}

        def save():
            if next(steps) == stop:  # noqa: B023 (called within the iteration)
                saved.update(copy.deepcopy({"model": model, "optimizer": optimizer, "progress": halfway}))  # noqa: B023

        first, _, _ = fit(model, map(batch_of, numbers), halfway, optimizer, after_step=save, log_every=3)
        assert first == expected
        second = Watched(faults)
        second.load_state_dict(saved["model"].state_dict())
        optimizer = optimizer_of(second)
        optimizer.load_state_dict(saved["optimizer"].state_dict())
        rest, ours, moved = fit(second, map(batch_of, numbers[stop:]), saved["progress"], optimizer, log_every=3)
        assert ours == progress
        assert rest == {name: drawn[-len(rest[name]) :] for name, drawn in expected.items()}
        assert_equal(moved, theirs)


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
    logging.getLogger("train").addHandler(handler)
    images = [(255 * picture(96, 130, seed=2 * rank() + i)).to(torch.uint8) for i in range(2)]
    targets = [target(([10.0 + rank(), 10, 50, 80], rank() + i)) | {"img_name": f"{rank()}{i}.jpg"} for i in (1, 2)]
    _, progress, _ = fit(wrap(Spoiled(model, guilty)), [(images, targets)], momentum=0.0)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    return {"changed": changed, "skipped": progress.skipped, "lines": lines}


def test_a_skipped_step_changes_nothing_in_a_real_network():
    (line,) = real_step(0)["lines"]
    assert "loss_box_reg not finite; images 01.jpg, 02.jpg" in line
    assert real_step(0)["changed"] == []
    changed = real_step(None)["changed"]
    assert {"search_head.oim.lut", "stem.layer1.0.bn1.running_mean", "stem.layer2.0.conv1.weight"} <= set(changed)


def spoiled_worker(rank: int) -> dict:
    return real_step(1, DistributedDataParallel)


def test_a_fault_of_one_process_is_skipped_by_all_and_named_by_all(tmp_path):
    for result in in_two_processes(spoiled_worker, tmp_path):
        assert result["changed"] == [] and result["skipped"] == 1
        assert "loss_box_reg not finite; images 11.jpg, 12.jpg" in result["lines"][0]
