"""Trainings in processes of their own, which tests interrupt; and what a training leaves, to be compared.

As a program (for torchrun): training_process.py ACTION RANK PLACE [ARGUMENT OF tools.train ...]; see `sabotage`.
"""

import logging
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from engine import run as run_module
from engine import train as loop
from engine.run_folder import RunFolder
from tools import train
from tools.common import run_program
from utils.distributed import rank

ROOT = Path(__file__).resolve().parents[1]
CFG = str(ROOT / "configs" / "cuhk_sysu.yaml")


def run(words: list[str]) -> int:
    """Train; the exit code. What finds nobody after so short a training gets made-up scores that tell its results."""
    with patch.object(run_module, "score_search", _made_up_scores):
        code = run_program(train.main, train.parse_args(["--cfg", CFG, *words]))
    logging.basicConfig(force=True)  # or other libraries would go on writing to its log
    return code


def _made_up_scores(features, *_) -> dict[str, float]:
    values = np.concatenate([values.ravel() for values in features.gallery_feats]).astype(np.float64)
    return {"mAP": float(np.abs(values).sum() % 1), "top1": float(values.sum() % 1)}


def sabotage(action: str, process: int, place: int | str) -> None:
    """Have the process of a rank do one of the `ACTIONS`: before its nth step (from 0), or at one of the `PLACES`."""
    if place in PLACES:
        _sabotage_call(run_module, PLACES[place], action, process, 0)
    else:
        _sabotage_call(loop, "set_learning_rate", action, process, int(place))


def _sabotage_call(owner: object, name: str, action: str, process: int, number: int) -> None:
    """Have it act just before the nth call of a function."""
    plain, calls = getattr(owner, name), []

    def spoiled(*args, **kwargs):
        if rank() == process and len(calls) == number:
            ACTIONS[action]()
        calls.append(None)
        return plain(*args, **kwargs)

    setattr(owner, name, spoiled)


def _fail() -> None:
    raise RuntimeError("the sabotaged process fails")


def _hang_when_saving() -> None:
    def save(self, _):
        (self.path / "saving").touch()
        time.sleep(600)

    RunFolder.save = save
    os.kill(os.getpid(), signal.SIGTERM)


ACTIONS = {
    "fail": _fail,
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminate all": lambda: subprocess.run(["kill", "-TERM", "--", f"-{os.getpgid(0)}"], check=False),
    "hang": _hang_when_saving,
}
PLACES = {"set-up": "build_train_loader", "evaluation": "extract_features"}
"""Functions that training calls where the other processes will wait for this one."""


def start(
    words: list[str], screen: Path, sabotaged: tuple | None = None, environment: dict | None = None
) -> multiprocessing.Process:
    """A process that trains; its exit code is the program's. Soon there: the libraries are imported once for all."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_process"])
    process = context.Process(target=_enter, args=(words, str(screen), sabotaged, environment or {}))
    process.start()
    return process


def start_two(words: list[str], folder: Path, sabotaged: tuple | None = None) -> list[multiprocessing.Process]:
    """Two processes that train together on the CPU."""
    port = _free_port()
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        start(words, folder / f"screen{i}", sabotaged, common | {"RANK": str(i), "LOCAL_RANK": str(i)}) for i in (0, 1)
    ]


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _enter(words: list[str], screen: str, sabotaged: tuple | None, environment: dict) -> None:
    os.setsid()  # a group of its own, with the processes that read images, as from a shell or torchrun
    multiprocessing.set_start_method(None, force=True)  # for the loaders: as the system has it
    os.environ.update(environment)
    torch.set_num_threads(1)
    if sabotaged:
        sabotage(*sabotaged)
    with open(screen, "a") as file, redirect_stdout(file), redirect_stderr(file):  # noqa: PTH123 (same)
        code = run(words)
    sys.exit(code)


def ended(process: multiprocessing.Process, seconds: float = 60) -> int:
    """The exit code of a process that must end by itself; -N where signal N ended it."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"the process still ran after {seconds} seconds")
    return process.exitcode


def left_by(folder: Path) -> dict:
    """All that a training left and that must not depend on interruptions."""
    checkpoints = {path.name: torch.load(path, weights_only=True) for path in folder.glob("*.pth")}
    for checkpoint in checkpoints.values():
        del checkpoint["config"]  # which names the folder
    return {
        "checkpoints": checkpoints,
        "metrics": (folder / "metrics.json").read_text(),
        "config": (folder / "config.yaml").read_text().replace(str(folder), "FOLDER"),
        "log": sorted(
            set(re.findall(r"(?:epoch \d+.* lr |epoch \d+: |skipped: ).*", (folder / "log.txt").read_text()))
        ),
        "events": events(folder),
        "others": sorted(
            path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("screen")
        ),
    }


def events(folder: Path) -> dict[str, str]:
    """What TensorBoard shows, by name and step. A resumed run repeats some values, which must be the same ones."""
    found: dict[str, str] = {}
    for file in (folder / "tensorboard").iterdir():
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                key, content = f"{value.tag} {event.step}", str(value)
                assert found.setdefault(key, content) == content, key
    return found


def assert_same(ours: object, theirs: object, where: str = "") -> None:
    """Equal to the last bit, tensors at any depth included."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    else:
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, where


if __name__ == "__main__":
    sabotage(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    sys.exit(run(sys.argv[4:]))
