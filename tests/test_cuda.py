"""Training and searching on CUDA devices as on the CPU; skipped where there is none."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_distributed import JOINT
from test_faults import small
from test_train import Board
from tiny import picture, target, tiny_cfg, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from training_process import ROOT, assert_same, ended, left_by, start

from engine.solver import build_optimizer
from engine.train import Progress, TrainSettings, train_one_epoch
from models.fast import accelerate, prepare_for_inference

DEVICES = torch.cuda.device_count()
needs_cuda = pytest.mark.skipif(DEVICES < 1, reason="no CUDA device")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PRECISIONS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Convolutions without TF32, whose rounding is that of float16."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def batches(count: int) -> list[tuple[list, list]]:
    """Batches of two images as the loader gives them."""
    images = [(255 * picture(96, 130, seed=i)).to(torch.uint8) for i in range(2 * count)]
    targets = [
        target(([10.0 + 9 * (i % 4), 10, 50 + 9 * (i % 4), 80], i % 4 + 1), ([60.0, 20, 110, 90], -1))
        | {"img_name": f"{i}.jpg"}
        for i in range(2 * count)
    ]
    return [(images[i : i + 2], targets[i : i + 2]) for i in range(0, 2 * count, 2)]


def trained(device: torch.device, amp: torch.dtype | None = None, accumulate: int = 1) -> tuple[dict, dict]:
    """Losses of each step and weights after three; nothing is drawn at random, as all anchors and RoIs are sampled."""
    model, board = accelerate(tiny_model(**JOINT).to(device)), Board()
    settings = TrainSettings(device, amp, accumulate, log_every=1)
    optimizer = build_optimizer(tiny_cfg(SOLVER__BASE_LR=0.001), model)
    scaler = torch.amp.GradScaler(device.type, init_scale=1.0, enabled=amp is torch.float16)
    progress = Progress(3)
    train_one_epoch(model, batches(3 * accumulate), optimizer, lambda _: 1.0, scaler, progress, settings, board)
    assert progress.skipped == 0
    losses = {name: [value for value, _ in steps] for name, steps in board.drawn.items()}
    return losses, {name: value.detach().cpu() for name, value in model.state_dict().items()}


@needs_cuda
@pytest.mark.parametrize("amp, accumulate", [("off", 1), ("off", 2), ("bf16", 1), ("fp16", 1)])
def test_training_steps_are_those_of_the_cpu(amp, accumulate):
    compare_training(CUDA, PRECISIONS[amp], accumulate)


def compare_training(device: torch.device, amp: torch.dtype | None, accumulate: int) -> None:
    """Against float32 on the CPU; in reduced precision without the heads' losses, as other proposals come first."""
    expected_losses, expected = trained(CPU, None, accumulate)
    losses, weights = trained(device, amp, accumulate)
    for name, values in losses.items():
        if amp is None or "rpn" in name:
            assert values == pytest.approx(expected_losses[name], rel=0.05 if amp else 2e-3), name
    for name, value in weights.items():
        assert value.isfinite().all(), name
        if amp is None:
            torch.testing.assert_close(value, expected[name], rtol=2e-3, atol=2e-3, msg=name)


@needs_cuda
@pytest.mark.parametrize("amp", PRECISIONS)
def test_people_found_are_those_of_the_cpu(amp):
    compare_search(CUDA, PRECISIONS[amp])


def compare_search(device: torch.device, amp: torch.dtype | None) -> None:
    """Embeddings of given boxes and scores; numbers of detections hang on rounding."""
    images = [picture(96, 130, seed=1), picture(80, 100, seed=2)]
    boxes = [torch.tensor([[10.0, 10, 50, 80], [60, 20, 110, 90]]), torch.tensor([[20.0, 5, 60, 70]])]
    options = {"MODEL__CONTEXT__GROUP": "none"}  # which would depend on how many people are detected
    plain, fast = tiny_model(**options).eval(), prepare_for_inference(tiny_model(**options).to(device), amp)
    expected = plain.query(images, boxes)
    found = fast.query([image.to(device) for image in images], [given.to(device) for given in boxes])
    for ours, theirs in zip(found, expected, strict=True):
        similarity = (ours["embeddings"].float().cpu() * theirs["embeddings"]).sum(1)
        torch.testing.assert_close(similarity, torch.ones(len(similarity)), rtol=0, atol=2e-2 if amp else 1e-4)


class Watch(TorchDispatchMode):
    """Finds reads of the device between `forbid` and `allow`: by CUDA's own check, on the CPU by names of operators.

    On the CPU tensors that are made of Python numbers are found too: on another device each would be a copy.
    """

    READS = ("nonzero", "_local_scalar_dense", "masked_select", "unique", "equal", "lift_fresh")

    def __init__(self, device: torch.device):
        super().__init__()
        self.on_cuda, self.watching, self.found = device.type == "cuda", False, []

    def forbid(self) -> None:
        self.watching = True
        if self.on_cuda:
            torch.cuda.set_sync_debug_mode("error")

    def allow(self) -> None:
        self.watching = False
        if self.on_cuda:
            torch.cuda.set_sync_debug_mode("default")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for i in (args[1] if isinstance(args[1], list) else ())
        )
        if self.watching and not self.on_cuda and (by_mask or name in self.READS):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def around(owner: object, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have a method call `before` and `after`."""
    plain = getattr(owner, name)

    def wrapped(*args, **kwargs):
        before()
        result = plain(*args, **kwargs)
        after()
        return result

    setattr(owner, name, wrapped)


@pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=needs_cuda)], ids=str)
def test_nothing_between_the_last_sampler_and_the_optimiser_waits_for_the_device(device):
    """But for the OIM loss, which reads the labels of all processes once, and the loop, which reads the losses."""
    model = tiny_model().to(device)  # the plain network, as on CUDA
    watch = Watch(device)
    around(model.search_head, "encode", watch.forbid, lambda: None)
    around(model.search_head.oim, "forward", watch.allow, watch.forbid)
    images, targets = batches(1)[0]
    targets = [{name: t[name].to(device) for name in ("boxes", "labels")} for t in targets]
    with watch:
        for _ in range(2):  # in the first step CUDA's libraries set up what may wait
            watch.found.clear()
            loss = sum(model([image.to(device) for image in images], targets).values())
            loss.backward()
            watch.allow()
    assert not watch.found


@needs_cuda
def test_a_run_killed_on_cuda_and_resumed_ends_as_one_never_stopped(cuhk, tmp_path):
    compare_resumed("cuda", cuhk, tmp_path)


def compare_resumed(device: str, data: Path, folder: Path) -> None:
    whole, broken = folder / "whole", folder / "broken"
    for out in (whole, broken):
        out.mkdir()
    options = {"DEVICE": device, "DETERMINISTIC": True, "CKPT_MINUTES": 1e-6}
    assert ended(start(small(data, whole, **options), whole / "screen"), 300) == 0
    killed = start(small(data, broken, **options), broken / "screen", ("kill", 0, 5))
    assert ended(killed, 300) == -signal.SIGKILL
    assert ended(start(["--resume", *small(data, broken, **options)], broken / "screen"), 300) == 0
    assert_same(left_by(broken), left_by(whole))


@pytest.mark.skipif(DEVICES < 2, reason="fewer than two CUDA devices")
def test_two_devices_train_together(cuhk, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = ["sh", str(ROOT / "run_cuhk.sh"), "0,1", *small(cuhk, tmp_path, SOLVER__MAX_EPOCHS=1, DEVICE="cuda")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 processes on cuda:0" in (tmp_path / "log.txt").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["epoch"] == 1
