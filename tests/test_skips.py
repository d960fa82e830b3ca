"""Steps with a loss or gradient that is not finite change nothing, are told by name, and end training in a row."""

import copy

import pytest
import torch
from test_distributed import in_two_processes
from tiny import picture, target, tiny_cfg, tiny_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.skips import DivergedError
from engine.solver import build_optimizer
from engine.trainer import SMALLEST_SCALE, StepSettings, Trainer, new_scaler
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
        x = self.norm(self.layer(torch.stack([image.flatten() for image in images])))
        losses = {"loss_a": x.square().mean(), "loss_b": x.exp().mean()}
        if batch in self.faults:
            losses["loss_b"] = FAULTS[self.faults[batch]](losses["loss_b"])
        return losses


def batches_of(numbers):
    """Batches of two images, whose content and label follow from their number."""
    return [
        (
            list(torch.randint(0, 255, (2, 1, 2, 2), generator=torch.Generator().manual_seed(n)).to(torch.uint8)),
            [{"boxes": torch.zeros(0, 4), "labels": torch.tensor(n)}] * 2,
        )
        for n in numbers
    ]


def trainer_of(model, seen, **settings) -> Trainer:
    settings = StepSettings(CPU, **{"report_every": 100} | settings)
    optimizer = build_optimizer(tiny_cfg(SOLVER__BASE_LR=0.1), model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    # A scale at which nothing overflows but what is meant to; the usual one is found in the first steps.
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=settings.amp is torch.float16)
    names = lambda batch, process: [f"{process}-{batch}.jpg"]  # noqa: E731 (short)
    return Trainer(model, optimizer, scheduler, scaler, settings, names, lambda *told: seen.append(told))


def fit(numbers, faults=None, **settings):
    """Train on these batches; the network, what was reported, and all that a step can move."""
    model, seen = Watched(faults or {}), []
    trainer = trainer_of(model, seen, **settings)
    for _ in trainer.steps(batches_of(numbers), epoch=0):
        pass
    trainer.report()
    moved = {**model.state_dict(), **{str(i): s for i, s in enumerate(momentum(trainer))}}
    return model, seen, {name: value.clone() for name, value in moved.items()}


def momentum(trainer):
    return [state["momentum_buffer"] for state in trainer.optimizer.state.values()]


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", [0, 2])
def test_a_step_left_out_is_as_if_it_had_not_been(fault, where, amp):
    if fault == "gradient" and amp is torch.float16:
        pytest.skip("the loss scaler's business, see below")
    numbers = [10, 11, 12, 13, 14]
    _, seen, ours = fit(numbers, {numbers[where]: fault}, amp=amp)
    without = numbers[:where] + numbers[where + 1 :]
    _, expected, theirs = fit(without, amp=amp)
    assert_equal(ours, theirs)
    (losses, (skip,)), ((expected_losses, _),) = seen[0], expected
    assert losses == expected_losses
    assert skip.step == where
    assert skip.losses == ([] if fault == "gradient" else ["loss_b"])
    assert skip.images == [f"0-{where}.jpg"]


def test_in_accumulation_the_whole_step_is_left_out_and_the_guilty_pass_is_named():
    _, seen, ours = fit([10, 11, 12, 13, 14], {13: "loss"}, accumulate=2)
    _, _, theirs = fit([10, 11, 14], accumulate=2)
    assert_equal(ours, theirs)
    assert [skip.images for skip in seen[0][1]] == [["0-3.jpg"]]


def test_where_only_the_gradient_is_not_finite_all_images_of_the_step_are_named():
    _, seen, _ = fit([10, 11, 12], {10: "gradient"}, accumulate=2)
    assert seen[0][1][0].images == ["0-0.jpg", "0-1.jpg"]
    assert "the gradient is not finite; images 0-0.jpg, 0-1.jpg" in seen[0][1][0].reason()


def test_a_gradient_that_overflows_float16_is_left_to_the_loss_scaler():
    _, seen, ours = fit([10, 11], {11: "gradient"}, amp=torch.float16)
    _, _, theirs = fit([10], amp=torch.float16)
    parameters = [name for name in ours if "running" not in name and "tracked" not in name]
    assert_equal({name: ours[name] for name in parameters}, {name: theirs[name] for name in parameters})
    assert seen[0][1] == []


def test_a_gradient_that_always_overflows_float16_ends_training():
    model, seen = Watched(dict.fromkeys(range(40), "gradient")), []
    trainer = trainer_of(model, seen, amp=torch.float16)
    for _ in trainer.steps(batches_of(range(40)), epoch=0):
        pass
    assert trainer.scaler.get_scale() < SMALLEST_SCALE
    with pytest.raises(DivergedError, match="overflows float16"):
        trainer.report()


def test_so_many_in_a_row_end_training_and_fewer_do_not():
    two = {11: "loss", 12: "loss", 14: "loss", 15: "gradient"}
    _, seen, _ = fit(range(10, 17), two, max_skipped=3)
    assert [skip.step for skip in seen[0][1]] == [1, 2, 4, 5]
    with pytest.raises(DivergedError, match=r"3 steps in a row .* the gradient is not finite; images 0-5.jpg"):
        fit(range(10, 17), {13: "loss", 14: "loss", 15: "gradient"}, max_skipped=3)


def test_what_was_not_reported_survives_a_save_at_any_step():
    numbers, faults = list(range(10, 18)), {11: "loss", 12: "gradient", 15: "loss"}
    _, expected, theirs = fit(numbers, faults, report_every=3, max_skipped=3)
    for stop in range(len(numbers)):
        first, seen = Watched(faults), []
        trainer = trainer_of(first, seen, report_every=3, max_skipped=3)
        for done in trainer.steps(batches_of(numbers), epoch=0):
            if done == stop:
                break
        state = copy.deepcopy({"trainer": trainer.state_dict(), "model": first.state_dict()})
        second = Watched(faults)
        trainer = trainer_of(second, seen, report_every=3, max_skipped=3)
        second.load_state_dict(state["model"])
        trainer.optimizer.load_state_dict(state["trainer"]["optimizer"])
        trainer.load_since_report(state["trainer"]["since_report"])
        for _ in trainer.steps(batches_of(numbers[stop:]), epoch=0, first_step=stop):
            pass
        trainer.report()
        assert seen == expected
        assert_equal(second.state_dict(), {name: theirs[name] for name in second.state_dict()})
        assert trainer.skips.total == 3


def test_a_plain_optimiser_is_refused():
    model = Watched({})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = StepSettings(CPU)
    with pytest.raises(ValueError, match="fused"):
        Trainer(model, optimizer, None, new_scaler(settings), settings, None, None)


class Spoiled(nn.Module):
    """A real network whose box loss is not finite in the second process (or the only one)."""

    def __init__(self, model, guilty):
        super().__init__()
        self.model, self.guilty = model, guilty

    def forward(self, images, targets):
        losses = self.model(images, targets)
        if rank() == self.guilty:
            losses["loss_box_reg"] = losses["loss_box_reg"] * float("nan")
        return losses


def real_step(guilty: int, wrap=lambda network: network) -> dict:
    """One step of a real network that must change nothing, tables of OIM included; what is told of it."""
    model = tiny_model()
    model.search_head.oim.lut.copy_(nn.functional.normalize(torch.ones_like(model.search_head.oim.lut)))
    before = copy.deepcopy(model.state_dict())
    network, seen = wrap(Spoiled(model, guilty)), []
    trainer = trainer_of(network, seen)
    images = [(255 * picture(96, 130, seed=2 * rank() + i)).to(torch.uint8) for i in range(2)]
    targets = [target(([10.0 + rank(), 10, 50, 80], rank() + i)) for i in range(2)]
    for _ in trainer.steps([(images, targets)], epoch=0):
        pass
    trainer.report()
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    ((losses, (skip,)),) = seen
    moved = [bool(buffer.any()) for buffer in momentum(trainer)]
    return {"changed": changed, "moved": any(moved), "losses": losses, "skip": [skip.losses, skip.images]}


def test_a_step_left_out_changes_nothing_in_a_real_network():
    assert real_step(0) == {"changed": [], "moved": False, "losses": {}, "skip": [["loss_box_reg"], ["0-0.jpg"]]}
    assert "search_head.oim.lut" in real_step_changes()


def real_step_changes() -> list[str]:
    """What the same step changes where nothing is wrong: the check above could fail."""
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    trainer = trainer_of(model, [])
    batch = (
        [(255 * picture(96, 130, seed=i)).to(torch.uint8) for i in range(2)],
        [target(([10.0, 10, 50, 80], 1))] * 2,
    )
    for _ in trainer.steps([batch], epoch=0):
        pass
    return [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]


def spoiled_worker(rank: int) -> dict:
    return real_step(1, DistributedDataParallel)


def test_a_fault_of_one_process_is_left_out_by_all_and_named_by_all(tmp_path):
    expected = {"changed": [], "moved": False, "losses": {}, "skip": [["loss_box_reg"], ["1-0.jpg"]]}
    assert in_two_processes(spoiled_worker, tmp_path) == [expected, expected]
