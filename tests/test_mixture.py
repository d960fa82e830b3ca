"""Training on several datasets at once: identities, shares, options."""

from collections import Counter

import numpy as np
import pytest
import torch
from tiny import draw, tiny_cfg

from datasets import build_dataset
from datasets.build import open_training
from datasets.mixture import Mixture
from datasets.training import TrainBatchSampler, build_train_loader
from utils.errors import UserError


@pytest.fixture(scope="module")
def prw(tmp_path_factory):
    """A small synthetic dataset in PRW's format."""
    return draw(tmp_path_factory.mktemp("data") / "prw", "prw")


@pytest.fixture(scope="module")
def parts(cuhk, prw):
    return [build_dataset("CUHK-SYSU", cuhk, "train"), build_dataset("PRW", prw, "train")]


def test_images_are_those_of_the_parts_and_identities_stay_apart(parts):
    mixture, (first, second) = Mixture(parts, [0.5, 0.5]), parts
    assert (len(mixture), mixture.num_identities) == (16, 12)
    seen = set()
    for index in range(16):
        part, own_index, before = (first, index, 0) if index < 8 else (second, index - 8, first.num_identities)
        (image, target), (expected, truth) = mixture[index], part[own_index]
        assert torch.equal(image, expected) and torch.equal(target["boxes"], truth["boxes"])
        assert target["labels"].tolist() == [pid + before if pid > 0 else -1 for pid in truth["labels"].tolist()]
        assert target["img_name"] == truth["img_name"] and mixture.is_wide(index)
        seen |= set(target["labels"].tolist())
    assert seen == {-1, *range(1, 13)}, "each row of the lookup table has a person"


def images_of(epochs: int, start_batch: int = 0, **how) -> list[list[int]]:
    """The images of each epoch of a sampler."""
    sampler, found = TrainBatchSampler(**{"batch_size": 2, "seed": 3} | how), []
    for epoch in range(epochs):
        sampler.set_epoch(epoch, start_batch)
        batches = list(sampler)
        assert len(batches) == len(sampler) - start_batch
        found.append([key.index for batch in batches for key in batch])
    return found


def test_an_epoch_shows_the_first_part_once_and_the_others_in_their_shares():
    # Half of an epoch are the first 6 images; 4 of the second part's 30; and twice the only one of the third.
    frequencies = [1.0] * 6 + [4 / 30] * 30 + [2.0]
    taken = images_of(40, groups=[False] * 37, frequencies=frequencies)
    for epoch in taken:
        counts = Counter(epoch)
        assert all(counts[index] == 1 for index in range(6)) and counts[36] == 2 and len(epoch) == 12
        assert max(counts[index] for index in range(6, 36)) == 1
    shown = Counter(index for epoch in taken for index in epoch)
    assert all(shown[index] for index in range(37)), "all images have their turn"


def test_the_number_of_batches_does_not_depend_on_the_epoch_and_processes_share_them():
    groups, frequencies = [index % 3 == 0 for index in range(40)], [1.0] * 10 + [0.37] * 30
    whole = images_of(5, batch_size=4, groups=groups, frequencies=frequencies)
    shares = [images_of(5, groups=groups, frequencies=frequencies, rank=rank, world_size=2) for rank in (0, 1)]
    for joint, *ours in zip(whole, *shares, strict=True):
        assert sorted(joint) == sorted(sum(ours, []))
        assert all(len({groups[index] for index in joint[i : i + 4]}) == 1 for i in range(0, len(joint), 4))
    late = images_of(5, start_batch=2, batch_size=4, groups=groups, frequencies=frequencies)
    assert late == [epoch[8:] for epoch in whole]


def test_an_image_that_comes_twice_is_changed_differently():
    sampler = TrainBatchSampler([False] * 4, 4, seed=1, frequencies=[25.0] * 4)
    keys = [key for batch in sampler for key in batch]
    assert len({key.seed for key in keys}) == 100
    assert {key.flip for key in keys if key.index == 0} == {True, False}


def test_options_name_datasets_with_shares_and_folders(cuhk, prw):
    options = {"INPUT__DATASET": "CUHK-SYSU", "INPUT__DATA_ROOT": str(cuhk)}
    assert open_training(tiny_cfg(**options)).frequencies == [1.0] * 8
    mixture = open_training(tiny_cfg(**options, INPUT__EXTRA_DATASETS=f"['PRW 0.2 {prw}']"))
    assert mixture.frequencies == pytest.approx([1.0] * 8 + [0.25] * 8)
    loader = build_train_loader(mixture, 2, 0, seed=1)
    names = [target["img_name"] for _, targets in loader for target in targets]
    assert len(names) == 10 and np.mean([name.startswith("c") for name in names]) == 0.2
    wrong = {
        "PRW": "EXTRA_DATASETS 'PRW': give \"NAME SHARE FOLDER\"",
        f"PRW 1.5 {prw}": "the share of an epoch between 0 and 1",
        f"PRW 0.995 {prw}": "leaves 0.005 of an epoch to INPUT.DATASET: leave it 0.01",
        f"prw 0.5 {prw}": "unknown dataset 'prw': choose among",
        f"CUHK-SYSU 0.5 {cuhk}": "a folder comes twice",
        "PRW 0.5 nowhere/at all": "nowhere/at all is no folder",
    }
    for entry, message in wrong.items():
        with pytest.raises(UserError, match=message):
            open_training(tiny_cfg(**options, INPUT__EXTRA_DATASETS=[entry]))
