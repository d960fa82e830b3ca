"""Trainings that are killed, stopped, out of disk space, or have a process that fails. What is left is compared with
what an uninterrupted training leaves, to the last bit."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from disks import fill_disk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import draw, interrupt_before_step, words
from training_process import ROOT, assert_same, ended, left_by, run, start, start_two

from engine import run as run_module
from engine.run_folder import RunFolder
from tools.common import FAILED, INTERRUPTED

LONGEST_LIFE = 1.5
"""Seconds after which a training is killed at the latest; an uninterrupted one takes two to three."""
STOPPED = 75
SMALL = {
    "MODEL__DETECTION_HEAD__SCORE_THRESH": 0.0,
    "MODEL__SEARCH_HEAD__SCORE_THRESH": 0.0,
    "SOLVER__ACCUMULATE": 1,
    "DISP_PERIOD": 3,
}


def small(data: Path, out: Path, **options) -> list[str]:
    """Options of a training of seconds, saving after every step unless told otherwise."""
    return words(data, out, **SMALL | {"CKPT_MINUTES": 1e-6} | options)


@pytest.fixture(scope="module")
def unbroken(cuhk, tmp_path_factory) -> Path:
    """The folder of a training that nothing interrupted, and which saved whole epochs alone."""
    out = tmp_path_factory.mktemp("unbroken")
    assert run(small(cuhk, out, CKPT_MINUTES=0)) == 0
    assert json.loads((out / "metrics.json").read_text())["mAP"] > 0
    return out


def assert_ends_as(unbroken: Path, ours: Path) -> None:
    """All but the checkpoints before the newest, which lie closer together where every step is saved."""
    left = [left_by(folder) for folder in (ours, unbroken)]
    for each in left:
        del each["checkpoints"]["last.1.pth"]
        each["config"] = re.sub("(CKPT_MINUTES|NUM_WORKERS): .*", "", each["config"])
    assert_same(*left)


@pytest.mark.slow
@pytest.mark.parametrize("total", [3, 20])
def test_a_training_killed_at_random_moments_ends_as_one_never_stopped(total, unbroken, cuhk, tmp_path):
    draw, kills, trainings = random.Random(3), 0, 0
    while kills < total:
        trainings += 1
        out = tmp_path / str(trainings)
        out.mkdir()
        options = small(cuhk, out)
        code = None
        while code != 0:
            process = start(["--resume", *options], out / "screen")
            process.join(draw.uniform(0, LONGEST_LIFE) if kills < total else None)
            if process.exitcode is None:
                process.kill()
                kills += 1
            code = ended(process)
            assert code in (0, -signal.SIGKILL), (out / "screen").read_text()
        assert_ends_as(unbroken, out)
        shutil.rmtree(out)


RECIPE = {
    "SOLVER__OPTIMIZER": "adamw",
    "SOLVER__SCHEDULE": "cosine",
    "SOLVER__EMA": 0.5,
    "INPUT__AUGMENTATION": "crops",
    "INPUT__CROP_SIZE": 64,
    "INPUT__WHOLE_SHARE": 0.5,
    "INPUT__COLOUR_JITTER": "[0.2, 0.2, 0.2, 0.05]",
}


@pytest.mark.slow
def test_a_recipe_of_everything_else_continues_as_exactly(cuhk, tmp_path, monkeypatch):
    other = draw(tmp_path / "prw", "prw")
    options = {"SOLVER__BASE_LR": 1e-3, "SOLVER__MAX_EPOCHS": 1, "SOLVER__MILESTONES": "[]"} | RECIPE
    options |= {"INPUT__EXTRA_DATASETS": f"['PRW 0.2 {other}']"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(small(cuhk, whole, CKPT_MINUTES=0, **options)) == 0
    interrupt_before_step(3, monkeypatch)
    assert run(small(cuhk, broken, **options)) == INTERRUPTED
    assert run(["--resume", *small(cuhk, broken, **options)]) == 0
    assert_ends_as(whole, broken)
    monkeypatch.undo()
    assert run(["--resume", *small(cuhk, broken, **options | {"SOLVER__OPTIMIZER": "sgd"})]) == FAILED


@pytest.mark.parametrize("action, step, workers", [("interrupt", 0, 0), ("terminate all", 5, 2), ("terminate", 7, 0)])
def test_a_signal_stops_after_the_step_with_a_code_of_its_own(action, step, workers, unbroken, cuhk, tmp_path):
    options = small(cuhk, tmp_path, CKPT_MINUTES=0, INPUT__NUM_WORKERS=workers)
    assert ended(start(options, tmp_path / "screen", (action, 0, step))) == STOPPED
    assert "--resume continues" in (tmp_path / "screen").read_text()
    state = torch.load(tmp_path / "last.pth", weights_only=True)
    assert (state["epoch"], state["step"]) == divmod(step + 1, 4) if step < 7 else (1, 4)
    assert ended(start(["--resume", *options], tmp_path / "screen")) == 0
    assert_ends_as(unbroken, tmp_path)


def test_a_signal_stops_an_evaluation_at_once(unbroken, cuhk, tmp_path, monkeypatch):
    options = small(cuhk, tmp_path, CKPT_MINUTES=0, CKPT_PERIOD=5)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "extract_features", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        assert run(options) == STOPPED
    state = torch.load(tmp_path / "last.pth", weights_only=True)
    assert (state["epoch"], state["step"], state["evaluated"]) == (1, 0, 0)
    assert run(["--resume", *small(cuhk, tmp_path, CKPT_MINUTES=0)]) == 0
    assert (tmp_path / "metrics.json").read_text() == (unbroken / "metrics.json").read_text()


def test_a_second_signal_ends_at_once(unbroken, cuhk, tmp_path):
    options = small(cuhk, tmp_path, CKPT_MINUTES=0)
    process = start(options, tmp_path / "screen", ("hang", 0, 5))
    wait_for(tmp_path / "saving", process)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == -signal.SIGINT
    (tmp_path / "saving").unlink()
    assert run(["--resume", *options]) == 0
    assert_ends_as(unbroken, tmp_path)


def wait_for(file: Path, process, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not file.exists():
        assert process.is_alive() and time.monotonic() < end, f"{file.name} does not appear"
        time.sleep(0.02)


@pytest.mark.slow
def test_damaged_checkpoints_are_passed_over_and_training_ends_the_same(unbroken, cuhk, tmp_path):
    options = small(cuhk, tmp_path, CKPT_MINUTES=0, CKPT_KEEP=9)
    assert run(options) == 0
    for name in ("last.pth", "last.1.pth"):  # the second epoch, with and without its evaluation
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert run(["--resume", *options]) == 0
    log = (tmp_path / "log.txt").read_text()
    assert log.count("last.pth is damaged") == log.count("last.1.pth is damaged") == 1 and "resumed from" in log
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss_total")
    assert [event.step for event in shown] == [3, 4, 7, 8], "what is trained again is shown once"
    ours, theirs = left_by(tmp_path), left_by(unbroken)
    for name in ("last.pth", "best.pth"):
        assert_same(ours["checkpoints"][name], theirs["checkpoints"][name])
    assert ours["metrics"] == theirs["metrics"] and ours["events"] == theirs["events"]


@pytest.mark.slow
def test_a_run_whose_disk_was_full_at_each_write_in_turn_ends_the_same(unbroken, cuhk, tmp_path, monkeypatch, capsys):
    options = small(cuhk, tmp_path, CKPT_MINUTES=0)
    for name in ("config.yaml", "last.pth", "metrics.json", "best.pth", "last.pth"):
        with monkeypatch.context() as patch:
            fill_disk(patch, 100, name)
            assert run(["--resume", *options]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(rf"No space left on device: .*{name}", error)
    assert run(["--resume", *options]) == 0
    assert_ends_as(unbroken, tmp_path)


def test_epochs_of_another_length_are_refused_and_nothing_is_touched(unbroken, cuhk, tmp_path, capsys):
    """At the end of an epoch too: the learning rate's milestones would shift."""
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(["--resume", *small(cuhk, tmp_path, INPUT__BATCH_SIZE_TRAIN=4)]) == 1
    assert "after 0 of 4 steps of an epoch, which now has 2" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_steps_that_are_not_finite_end_training_with_a_code_of_its_own(cuhk, tmp_path, capsys):
    options = small(cuhk, tmp_path, SOLVER__MAX_SKIPPED=3, SOLVER__BASE_LR=1e30, SOLVER__WARMUP_EPOCHS=0.0)
    assert run(options) == 70
    assert "3 steps in a row were skipped" in capsys.readouterr().err
    log = (tmp_path / "log.txt").read_text()
    assert "skipped (1 so far)" in log and "; images s" in log
    weights = RunFolder(tmp_path, keep=2).newest()[0]["model"]
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(cuhk, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    options = {"CKPT_MINUTES": 0, "SOLVER__EMA": 0.5}
    assert [ended(process) for process in start_two(small(cuhk, whole, **options), whole)] == [0, 0]
    log = (whole / "log.txt").read_text()
    assert "2 processes on cpu" in log and log.count("epoch 2: mAP") == 1
    options = small(cuhk, broken, **options)
    stopped = start_two(options, broken, ("terminate", 1, 2))
    assert [ended(process) for process in stopped] == [STOPPED, STOPPED]
    state = torch.load(broken / "last.pth", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 1)
    assert [ended(process) for process in start_two(["--resume", *options], broken)] == [0, 0]
    assert_ends_as(whole, broken)


@pytest.mark.slow
@pytest.mark.parametrize(
    "action, place, done",
    [
        ("fail", "evaluation", (1, 0)),
        ("fail", "set-up", None),
        ("kill", "2", (1, 0)),
    ],
)
def test_a_process_that_fails_ends_the_others_with_its_message(action, place, done, cuhk, tmp_path):
    options = small(cuhk, tmp_path, SOLVER__MAX_EPOCHS=200)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "tests/training_process.py"]
    ended = subprocess.run(
        [sys.executable, *command, action, "1", place, *options],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.returncode != 0
    assert {"kill": "Signal 9", "fail": "the sabotaged process fails"}[action] in ended.stderr
    if done is None:
        assert not list(tmp_path.glob("*.pth"))
    else:
        state = RunFolder(tmp_path, keep=2).newest()[0]
        assert (state["epoch"], state["step"]) == done  # of two steps an epoch
