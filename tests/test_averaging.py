"""The exponential moving average of the weights: what moves, what is copied, and where it is used."""

import copy

import torch
from test_training import training_run
from tiny import picture, target, tiny_cfg, tiny_model
from training_process import assert_same

from engine import run as run_module
from engine.averaging import WeightAverage
from engine.solver import build_optimizer


def trained_states(steps: int) -> tuple[list[dict], list[dict], tuple[str, ...]]:
    """States of a tiny network before and after each step, those of its average, and its identity tables."""
    model, decay = tiny_model(), 0.3
    average, optimizer = WeightAverage(model, decay), build_optimizer(tiny_cfg(SOLVER__BASE_LR=0.01), model)
    snapshot = lambda network: copy.deepcopy(dict(network.state_dict()))  # noqa: E731
    states, averages = [snapshot(model)], [snapshot(average.model)]
    for step in range(steps):
        images = [picture(96, 130, seed=2 * step + i) for i in (0, 1)]
        targets = [target(([10.0, 10, 50, 80], 1 + step), ([60.0, 20, 110, 90], -1)) for _ in images]
        sum(model(images, targets).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(step + 1)
        states.append(snapshot(model))
        averages.append(snapshot(average.model))
    return states, averages, model.identity_memory


def test_weights_and_batch_norms_move_and_the_rest_is_copied():
    states, averages, tables = trained_states(2)
    assert_same(averages[0], states[0])
    for step in (1, 2):
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in states[step].items():
            if name in tables or not value.is_floating_point():
                assert torch.equal(averages[step][name], value), name
            else:
                expected = decay * averages[step - 1][name] + (1 - decay) * value
                torch.testing.assert_close(averages[step][name], expected, msg=name)
    last, average = states[-1], averages[-1]
    assert torch.equal(average["stem.conv1.weight"], states[0]["stem.conv1.weight"]), "frozen"
    assert last["search_head.oim.lut"].any() and int(average["stem.bn1.num_batches_tracked"]) == 2
    for name in ("stem.layer2.0.conv1.weight", "stem.bn1.running_mean"):
        assert not torch.equal(average[name], last[name]), name


def test_a_run_evaluates_and_stores_the_average_and_goes_on_from_the_weights(cuhk, tmp_path, monkeypatch):
    searched, plain = [], run_module.Searcher
    monkeypatch.setattr(
        run_module, "Searcher", lambda model, *args, **how: searched.append(model) or plain(model, *args, **how)
    )
    run = training_run(cuhk, tmp_path, SOLVER__MAX_EPOCHS=1, SOLVER__MILESTONES="[]", SOLVER__EMA=0.9)
    run.train()
    assert searched == [run.average.model]
    for name in ("best.pth", "last.pth"):
        stored = torch.load(tmp_path / name, weights_only=True)
        assert_same(stored["model"], run.average.model.state_dict())
        assert_same(stored["trained"], run.model.state_dict())
    without = training_run(cuhk, tmp_path, resume=True, SOLVER__MAX_EPOCHS=1, SOLVER__MILESTONES="[]")
    assert_same(without.model.state_dict(), run.model.state_dict())
