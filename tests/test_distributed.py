"""Two processes on the CPU (gloo): tables, parameters and results are those of one."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from tiny import picture, target, tiny_model, words
from torch.nn.parallel import DistributedDataParallel

from engine.damaged import DamagedImages
from models.oim import OIMLoss
from utils.distributed import gather_variable

ROOT = Path(__file__).resolve().parents[1]
ROWS = (3, 7)
"""People that each of the two processes sees."""


def batch(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    labels = torch.randint(-1, 5, (ROWS[rank],), generator=generator)
    return F.normalize(torch.randn(ROWS[rank], 8, generator=generator)), labels


def run_oim(features: torch.Tensor, labels: torch.Tensor) -> dict:
    oim = OIMLoss(8, 4, 3)
    oim.lut.copy_(F.normalize(torch.eye(4, 8) + 0.1))
    features = features.clone().requires_grad_()
    loss = oim(features, labels)
    loss.backward()
    return {"loss": loss.detach(), "grad": features.grad, **dict(oim.named_buffers())}


def oim_worker(rank: int) -> dict:
    features, labels = batch(rank)
    return run_oim(features, labels) | {"rows": gather_variable(labels)}


def model_worker(rank: int) -> dict:
    model = tiny_model()
    network = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(2):
        torch.manual_seed(10 * step + rank)
        images = [picture(96, 130, seed=4 * step + 2 * rank + i) for i in range(2)]
        targets = [target(([10.0 + rank, 10, 50, 80], rank + i)) for i in range(2)]
        sum(network(images, targets).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    tables = dict(model.search_head.oim.named_buffers())
    return {"parameters": dict(model.named_parameters()), "tables": tables}


def damaged_worker(rank: int) -> dict:
    """What each process logs: both meet a.jpg, the second alone b.jpg."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("train").addHandler(handler)
    damaged = DamagedImages()
    targets = [{"damaged": ["a.jpg"]}, {"damaged": ["a.jpg", "b.jpg"]} if rank else {}]
    assert len(list(damaged.watch([([], targets)]))) == 1
    damaged.tell("epoch 1")
    damaged.tell("epoch 2")
    return {"lines": lines}


def _enter(rank: int, worker, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.save(worker(rank), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def in_two_processes(worker, folder: Path) -> list[dict]:
    mp.spawn(_enter, (worker, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_oim_of_two_processes_is_that_of_their_joint_batch(tmp_path):
    ours = in_two_processes(oim_worker, tmp_path)
    features, labels = (torch.cat(parts) for parts in zip(batch(0), batch(1), strict=True))
    joint = run_oim(features, labels)
    for result in ours:
        for name in ("lut", "cq", "header"):
            torch.testing.assert_close(result[name], joint[name])
        assert torch.equal(result["rows"], labels)
    # DistributedDataParallel averages over processes, so the mean of losses and of gradients is what counts.
    torch.testing.assert_close((ours[0]["loss"] + ours[1]["loss"]) / 2, joint["loss"])
    torch.testing.assert_close(torch.cat([result["grad"] for result in ours]) / 2, joint["grad"])


def test_networks_and_tables_of_two_processes_stay_equal(tmp_path):
    one, other = in_two_processes(model_worker, tmp_path)
    for part in ("parameters", "tables"):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), name
    assert one["tables"]["lut"].any()


def test_the_main_process_names_and_counts_damaged_images_of_all(tmp_path):
    first, second = (result["lines"] for result in in_two_processes(damaged_worker, tmp_path))
    named = [f"left out of training: {name}" for name in ("a.jpg", "b.jpg")]
    assert first == [*named, "epoch 1: 3 images replaced, 2 files could not be read so far"]
    assert second == named


def test_torchrun_trains_and_scores_once(cuhk, tmp_path):
    options = words(cuhk, tmp_path, SOLVER__MAX_EPOCHS=1, SOLVER__MILESTONES="[]")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tools.train"]
    done = subprocess.run(
        [sys.executable, *command, "--cfg", "configs/cuhk_sysu.yaml", *options],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "log.txt").read_text()
    assert "2 processes on cpu" in log
    assert log.count("epoch 1: mAP") == 1
    assert json.loads((tmp_path / "metrics.json").read_text())["epoch"] == 1
