"""Which device a process takes, the devices that shell scripts name, and errors of programs as one sentence."""

import argparse
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from tiny import ROOT

from engine.devices import select_device
from tools.common import run_program
from utils import distributed
from utils.errors import DivergedError, UserError


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two CUDA devices, as far as choosing one goes; the numbers of those made current."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return current


@pytest.mark.parametrize(
    "name, local_rank, index", [("auto", None, 0), ("cuda", None, 0), ("cuda:1", None, 1), ("cuda", 1, 1)]
)
def test_the_device_is_made_current_before_anything_is_allocated(name, local_rank, index, two_gpus, monkeypatch):
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert select_device(name) == torch.device("cuda", index)
    assert select_device("cpu") == torch.device("cpu")
    assert two_gpus == [index]


@pytest.mark.parametrize(
    "name, variables, message",
    [
        ("gpu", {}, "DEVICE 'gpu' is not a device: use auto, cpu, cuda or cuda:N"),
        ("cuda:3", {"CUDA_VISIBLE_DEVICES": "5,6"}, "2 CUDA devices here with CUDA_VISIBLE_DEVICES='5,6'; choose"),
        ("cuda", {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}, "3 processes need as many devices: PyTorch"),
        ("cuda:1", {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, "DEVICE cuda:1 is one device for 2 processes"),
    ],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused(name, variables, message, two_gpus, monkeypatch):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=message):
        select_device(name)


@pytest.mark.parametrize(
    "devices, given, visible",
    [
        ("1", None, "1"), ("0,1", None, "0,1"), ("GPU-8f-1b,GPU-0c", None, "GPU-8f-1b,GPU-0c"),
        ("0", "4,7", "4"), ("1,0", "4,7", "7,4"), ("0", "GPU-8f", "GPU-8f"),
    ],
)  # fmt: skip
def test_shell_scripts_start_a_process_for_each_device(devices, given, visible, tmp_path):
    done = launch(devices, given, tmp_path)
    assert done.returncode == 0, done.stderr
    processes = visible.count(",") + 1
    several = f"-m torch.distributed.run --standalone --nproc-per-node {processes} " if processes > 1 else ""
    assert done.stdout == f"{visible} {several}-m tools.train --cfg some.yaml DEVICE cuda SEED 3\n"


@pytest.mark.parametrize(
    "devices, given",
    [("2", "4,7"), *((name, None) for name in ("", ",", "0,1,", "0,00", "GPU-a,GPU-a", "-1", "cpu,0"))],
)
def test_devices_that_are_none_or_named_twice_are_refused(devices, given, tmp_path):
    done = launch(devices, given, tmp_path)
    assert done.returncode == 2
    assert "name the devices first" in done.stderr and (given or "") in done.stderr and not done.stdout


@pytest.mark.parametrize(
    "arguments, passed",
    [("", ""), ("a.pth", "--ckpt a.pth"), ("plain SEED 1", "--ckpt plain SEED 1"), ("SEED 1", "SEED 1")],
)
def test_test_scripts_take_a_checkpoint_or_none(arguments, passed, tmp_path):
    (tmp_path / "plain").touch()
    done = launch("cpu", None, tmp_path, f"launch_test some.yaml cpu {arguments}")
    expected = f" -m tools.test --cfg some.yaml DEVICE cpu --cbgm --gt {passed}"
    assert done.stdout.rstrip() == expected.rstrip(), done.stderr


@pytest.mark.parametrize("short, config", [("cuhk", "cuhk_sysu"), ("prw", "prw"), ("mvn", "movienet_cs")])
def test_each_dataset_has_a_script_for_training_and_one_for_testing(short, config, tmp_path):
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for script, started in ((f"run_{short}.sh", "-m tools.train"), (f"test_{short}.sh", "-m tools.test")):
        shutil.copy(ROOT / script, tmp_path)
        done = launch("", None, tmp_path, f"sh {script} cpu SEED 3")
        assert f"{started} --cfg configs/{config}.yaml DEVICE cpu" in done.stdout and "SEED 3" in done.stdout


def launch(
    devices: str, given: str | None, folder: Path, call: str = 'launch train some.yaml "$1" SEED 3'
) -> subprocess.CompletedProcess:
    """What a script starts, with a Python that prints what it was called with."""
    python = folder / "python3"
    python.write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $@"\n')
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}"} | ({"CUDA_VISIBLE_DEVICES": given} if given else {})
    script = f". {ROOT / 'tools' / 'launch.sh'}; {call}"
    return subprocess.run(
        ["sh", "-c", script, "sh", devices], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_process_that_fails_does_not_wait_for_the_others(monkeypatch):
    calls = []
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: calls.append("joined"))
    monkeypatch.setattr(distributed, "leave_processes", lambda: calls.append("left"))
    with distributed.process_group(torch.device("cpu")):
        pass
    with pytest.raises(UserError), distributed.process_group(torch.device("cpu")):
        raise UserError("an image cannot be read")
    assert calls == ["joined", "left", "joined"]


@pytest.mark.parametrize(
    "error, code, message",
    [
        (UserError("SEED is wrong"), 1, "error: SEED is wrong\n"),
        (OSError(28, "No space left on device", "log.txt"), 1, "error: [Errno 28] No space left on device"),
        (DivergedError("training diverged"), 70, "error: training diverged. Take a lower SOLVER.BASE_LR"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), 1, "INPUT.BATCH_SIZE_TRAIN and raise"),
        (MemoryError(), 1, "INPUT.BATCH_SIZE_TEST"),
    ],
)  # fmt: skip
def test_errors_of_the_user_and_the_machine_are_one_sentence(error, code, message, capsys):
    assert run_program(raising(error), argparse.Namespace(traceback=False)) == code
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="a bug"):
        run_program(raising(ValueError("a bug")), argparse.Namespace(traceback=False))


def raising(error: Exception):
    def main(_):
        raise error

    return main
