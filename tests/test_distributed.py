"""Two processes on the CPU (gloo): tables, parameters and results are those of one."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from test_train import real_step
from tiny import picture, target, tiny_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from training_process import in_two_processes

from datasets import build_dataset
from engine.feature_files import Features, PartialResults
from engine.features import extract_features
from engine.searcher import Searcher
from engine.skipped_samples import SkippedSamples
from models.oim import OIMLoss
from models.two_stage.person_search import PersonSearch
from utils.distributed import any_process, from_main, gather_counts, gather_rows, rank, share_buffers
from utils.errors import UserError

ROWS = (3, 7)
"""People that each of the two processes sees."""

pytestmark = pytest.mark.slow


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
    rows = gather_rows(labels, gather_counts(len(labels), labels.device))
    return {"loss": loss.detach(), "grad": features.grad, "rows": rows, **dict(oim.named_buffers())}


def shares(step: int) -> list[tuple[list, list]]:
    """Two images with targets for each of the two processes, in one step."""
    images = [picture(96, 130, seed=4 * step + i) for i in range(4)]
    targets = [target(([10.0 + 9 * i, 10, 50 + 9 * i, 80], i + 1), ([60.0, 20, 110, 90], -1)) for i in range(4)]
    return [(images[i : i + 2], targets[i : i + 2]) for i in (0, 2)]


def train_steps(network: nn.Module, model: PersonSearch, batches: list[tuple[list, list]]) -> dict:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9)
    for step, (images, targets) in enumerate(batches):
        torch.manual_seed(10 * step + rank())
        sum(network(images, targets).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    share_buffers(model)
    return {"parameters": dict(model.named_parameters()), "buffers": dict(model.named_buffers())}


JOINT = {
    # All anchors and RoIs are sampled, as many in every image, so that nothing is drawn and the means have one size.
    "MODEL__RPN__BATCH_SIZE": 10**6,
    "MODEL__RPN__NEGATIVE_IOU": 0.7,
    "MODEL__RPN__POST_NMS_TRAIN": 10,
    "MODEL__DETECTION_HEAD__BATCH_SIZE": 1000,
    "MODEL__SEARCH_HEAD__BATCH_SIZE": 1000,
}


def model_without_batch_statistics() -> PersonSearch:
    """The joint batch of two processes is defined but for batch norm, which sees its own process's images."""
    model = tiny_model(**JOINT)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    return model


def model_worker(number: int, model: PersonSearch) -> dict:
    return train_steps(DistributedDataParallel(model), model, [shares(step)[number] for step in range(2)])


def extract(data: Path, partial: PartialResults | None, passes: int | None = None) -> tuple[Features | None, int]:
    """Features of a dataset, None after an interruption that comes when `passes` are done, and the images searched."""
    searcher, seen = Searcher(tiny_model(), "cpu", batch_size=2), []
    search = searcher._search

    def stopping(batch):
        if len(seen) == passes:
            raise KeyboardInterrupt
        seen.append(len(batch))
        return search(batch)

    searcher._search = stopping
    sets = (build_dataset("CUHK-SYSU", data, split) for split in ("gallery", "query"))
    try:
        return extract_features(searcher, *sets, partial=partial), sum(seen)
    except KeyboardInterrupt:
        return None, sum(seen)


def extraction_worker(data: Path, folder: Path) -> dict:
    """Each process is interrupted after one pass, and continues."""
    stopped, first = extract(data, PartialResults(folder), passes=1)
    assert stopped is None
    dist.barrier()
    found, done = PartialResults(folder).read()
    features, second = extract(data, PartialResults(folder))
    rows = [] if features is None else [*features.gallery_feats, *features.query_feats]
    return {
        "searched": [first, second],
        "read": [len(found.gallery_names), len(done)],
        "rows": [torch.from_numpy(np.array(row)) for row in rows],
    }


def damaged_worker(rank: int) -> dict:
    """What each process logs: both meet a.jpg, the second alone b.jpg."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("engine").addHandler(handler)
    samples = SkippedSamples()
    targets = [{"damaged": ["a.jpg"]}, {"damaged": ["a.jpg", "b.jpg"]} if rank else {}]
    assert len(list(samples.counted([([], targets)]))) == 1
    for epoch in (1, 2):
        samples.finish_epoch(epoch)
    return {"lines": lines, "shared": from_main(lambda: f"read by {rank}")} | refused()


def refused() -> dict:
    """What each process raises where the main one cannot read a file; the other has a whole one of that name."""

    def read():
        raise UserError("last.pth is damaged")

    try:
        from_main(read)
    except UserError as error:
        return {"error": str(error), "any": any_process(rank() == 1, False)}
    return {}


def worker(number: int, data: Path, folder: Path) -> dict:
    """What one of two processes gives to the tests; each start of processes takes seconds."""
    return {
        "oim": run_oim(*batch(number)),
        "training": model_worker(number, tiny_model()),
        "training without batch statistics": model_worker(number, model_without_batch_statistics()),
        "spoiled step": real_step(1, DistributedDataParallel),
        "extraction": extraction_worker(data, folder),
        "damaged": damaged_worker(number),
    }


@pytest.fixture(scope="module")
def results(cuhk, tmp_path_factory) -> Callable[[str], list[dict]]:
    """What the two processes give under one of the names in `worker`."""
    folder = tmp_path_factory.mktemp("processes")
    both = in_two_processes(partial(worker, data=cuhk, folder=folder / "parts"), folder)
    return lambda name: [each[name] for each in both]


def test_oim_of_two_processes_is_that_of_their_joint_batch(results):
    ours = results("oim")
    features, labels = (torch.cat(parts) for parts in zip(batch(0), batch(1), strict=True))
    joint = run_oim(features, labels)
    for result in ours:
        for name in ("lut", "cq", "header"):
            torch.testing.assert_close(result[name], joint[name])
        assert torch.equal(result["rows"], labels)
    # DistributedDataParallel averages over processes, so the mean of losses and of gradients is what counts.
    torch.testing.assert_close((ours[0]["loss"] + ours[1]["loss"]) / 2, joint["loss"])
    torch.testing.assert_close(torch.cat([result["grad"] for result in ours]) / 2, joint["grad"])


def test_parameters_batch_norms_and_tables_of_two_processes_stay_equal(results):
    one, other = results("training")
    for part in ("parameters", "buffers"):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), name
    assert one["buffers"]["search_head.oim.lut"].any()
    assert one["buffers"]["stem.layer1.0.bn1.running_mean"].any()


def test_a_fault_of_one_of_two_processes_changes_nothing_in_a_real_network_and_is_named_by_both(results):
    for result in results("spoiled step"):
        assert result["changed"] == [] and result["skipped"] == 1
        assert "loss_box_reg not finite; images 11.jpg, 12.jpg" in result["lines"][0]
    changed = real_step(None)["changed"]
    assert {"search_head.oim.lut", "stem.layer1.0.bn1.running_mean", "stem.layer2.0.conv1.weight"} <= set(changed)


def test_two_processes_learn_what_one_does_from_the_joint_batch(results):
    ours = results("training without batch statistics")
    model = model_without_batch_statistics()
    before = {name: value.clone() for name, value in model.named_parameters()}
    joint = [[sum(halves, []) for halves in zip(*shares(step), strict=True)] for step in range(2)]
    expected = train_steps(model, model, joint)
    for part, values in expected.items():
        for name, value in values.items():
            torch.testing.assert_close(
                ours[0][part][name], value, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
            )
    changes = [(value - before[name]).abs().max().item() for name, value in expected["parameters"].items()]
    assert max(changes) > 1e-2, "far more than the tolerance, to which rounding grows in two steps"


def test_an_interrupted_extraction_continues_in_two_processes(cuhk, results):
    main, other = results("extraction")
    features, total = extract(cuhk, None)
    expected = [*features.gallery_feats, *features.query_feats]
    assert main["searched"][0] == other["searched"][0] == 2
    assert main["searched"][1] + other["searched"][1] == total - 4
    assert main["read"] == [4, 4] and other["read"] == [0, 4], "the others need the paths alone"
    assert not other["rows"]
    for ours, theirs in zip(main["rows"], expected, strict=True):
        np.testing.assert_allclose(ours.numpy().reshape(theirs.shape), theirs, atol=1e-4)


def test_skipped_images_of_all_processes_are_counted_and_what_the_main_one_reads_is_shared(results):
    for result in results("damaged"):
        assert result["shared"] == "read by 0"
        assert result["error"] == "last.pth is damaged" and result["any"] == [True, False]
        assert sorted(result["lines"][:2]) == ["skipped: a.jpg", "skipped: b.jpg"]
        assert result["lines"][2:] == ["epoch 1: skipped 4 images that cannot be read"]
