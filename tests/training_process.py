"""Processes that tests start: trainings that are interrupted, and two processes that work together.

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
import torch.distributed as dist
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tiny import CFG, ROOT, call

from engine import run as run_module
from engine import train as loop
from engine.run_folder import RunFolder
from tools import train
from utils.distributed import leave_processes, rank


def run(words: list[str]) -> int:
    """Train; the exit code. After so short a training nobody is found: scores are made up from the embeddings."""
    with patch.object(run_module, "score_search", _made_up_scores):
        code = call(train, "--cfg", CFG, *words)
    logging.basicConfig(force=True)  # or other libraries would go on writing to its log
    return code


def _made_up_scores(features, *_) -> dict[str, float]:
    values = np.concatenate([values.ravel() for values in features.gallery_feats]).astype(np.float64)
    return {"mAP": float(np.abs(values).sum() % 1), "top1": float(values.sum() % 1)}


PLACES = {"set-up": "build_train_loader", "evaluation": "extract_features"}
"""Functions that training calls where the other processes will wait for this one."""


def sabotage(action: str, process: int, place: int | str) -> None:
    """Have the process of a rank do one of the `ACTIONS`: before its nth step (from 0), or at one of the `PLACES`."""
    owner, name = (run_module, PLACES[place]) if place in PLACES else (loop, "set_learning_rate")
    number = 0 if place in PLACES else int(place)
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


def start_process(function, *args) -> multiprocessing.Process:
    """A process that soon runs the function: the libraries are imported once for all."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_process"])
    process = context.Process(target=function, args=args)
    process.start()
    return process


def start(
    words: list[str], screen: Path, sabotaged: tuple | None = None, environment: dict | None = None
) -> multiprocessing.Process:
    """A process that trains; its exit code is the program's."""
    return start_process(_train, words, str(screen), sabotaged, environment or {})


def _train(words: list[str], screen: str, sabotaged: tuple | None, environment: dict) -> None:
    os.setsid()  # a group of its own, with the processes that read images, as from a shell or torchrun
    multiprocessing.set_start_method(None, force=True)  # for the loaders: as the system has it
    os.environ.update(environment)
    torch.set_num_threads(1)
    if sabotaged:
        sabotage(*sabotaged)
    with open(screen, "a") as file, redirect_stdout(file), redirect_stderr(file):  # noqa: PTH123 (same)
        code = run(words)
    sys.exit(code)


def start_two(words: list[str], folder: Path, sabotaged: tuple | None = None) -> list[multiprocessing.Process]:
    """Two processes that train together on the CPU."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        start(words, folder / f"screen{i}", sabotaged, common | {"RANK": str(i), "LOCAL_RANK": str(i)}) for i in (0, 1)
    ]


def in_two_processes(worker, folder: Path) -> list[dict]:
    """What `worker(rank)` gives in each of two processes that work together on the CPU."""
    processes = [start_process(_work, i, worker, str(folder)) for i in range(2)]
    assert [ended(process, 120) for process in processes] == [0, 0]
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(2)]


def _work(number: int, worker, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    torch.save(worker(number), f"{folder}/{number}.pt")
    leave_processes()


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
    files = {path.name for path in folder.iterdir() if path.is_file()}
    log = (folder / "log.txt").read_text()
    return {
        "checkpoints": checkpoints,
        "metrics": (folder / "metrics.json").read_text(),
        "config": (folder / "config.yaml").read_text().replace(str(folder), "FOLDER"),
        "log": sorted(set(re.findall(r"(?:epoch \d+.* lr |epoch \d+: |skipped: ).*", log))),
        "events": events(folder),
        "files": sorted(name for name in files if not name.startswith("screen")),
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
