"""The order of training images, mirroring, and the loader around them."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from datasets import build_dataset
from datasets.augmentation import Augmentation, horizontal_flip
from datasets.training import TrainBatchSampler, build_train_loader
from engine.skipped_samples import SkippedSamples
from utils.images import ImageError


class Numbered(Dataset):
    """Image i is i + 2 pixels wide, its first column is i."""

    def __init__(self, count=11):
        self.count = count
        self.frequencies = [1.0] * count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = torch.zeros(3, 2, index + 2, dtype=torch.uint8)
        image[:, :, 0] = index + 1
        boxes = torch.tensor([[0.0, 0.0, 1.0, 2.0]])
        return image, {"boxes": boxes, "labels": torch.tensor([1]), "img_name": str(index), "index": index}


def batches(loader, epoch=0, start_batch=0):
    """(index, mirrored) of each image of each batch; that image and box agree is checked."""
    loader.batch_sampler.set_epoch(epoch, start_batch)
    found = []
    for images, targets in loader:
        batch = []
        for image, target in zip(images, targets, strict=True):
            mirrored = bool(image[0, 0, -1])
            left = image.shape[-1] - 1 if mirrored else 0
            assert target["boxes"].tolist() == [[left, 0, left + 1, 2]]
            assert image[0, 0, left] == target["index"] + 1
            batch.append((target["index"], mirrored))
        found.append(batch)
    return found


def test_epochs_differ_and_repeat_and_leave_nothing_out():
    loader, other_seed = build_train_loader(Numbered(), 2, 0, seed=3), build_train_loader(Numbered(), 2, 0, seed=4)
    epochs = [batches(loader, epoch) for epoch in range(12)]
    assert len(loader) == len(epochs[0]) == 5
    assert epochs[0] != epochs[1] != batches(other_seed, 1)
    taken = [{index for batch in epoch for index, _ in batch} for epoch in epochs]
    assert {len(images) for images in taken} == {10}
    assert len({frozenset(range(11)) - images for images in taken}) > 3  # another one is left out


def test_workers_change_nothing_and_a_resumed_epoch_continues():
    alone, shared = (build_train_loader(Numbered(), 2, workers, seed=3) for workers in (0, 2))
    random_state = torch.get_rng_state()
    for epoch in range(2):
        assert batches(shared, epoch) == batches(alone, epoch)
    assert torch.equal(torch.get_rng_state(), random_state)  # of the network's training
    assert batches(build_train_loader(Numbered(), 2, 0, seed=3), 1, start_batch=3) == batches(alone, 1)[3:]


def test_processes_share_an_epoch():
    taken = [list(TrainBatchSampler([0] * 23, 2, seed=1, rank=rank, world_size=3)) for rank in range(3)]
    # Together they take what one process with the whole batch takes.
    assert [sum(parts, []) for parts in zip(*taken, strict=True)] == list(TrainBatchSampler([0] * 23, 6, seed=1))
    with pytest.raises(ValueError, match="7 training images do not fill one batch of 4 on 2 processes"):
        TrainBatchSampler([0] * 7, 4, seed=0, world_size=2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_mirrored_images(share):
    sampler = TrainBatchSampler([0] * 5000, 100, seed=2, augmentation=Augmentation(flip_prob=share))
    assert np.mean([key.flip for batch in sampler for key in batch]) == pytest.approx(share, abs=0.03)


class Oriented(Numbered):
    """As Numbered; every third image passes for a wide one."""

    def is_wide(self, index):
        return index % 3 == 0


def scaled_batches(workers, start_batch=0):
    """(index, scale) of each image of each batch of an epoch."""
    how = Augmentation(flip_prob=0.0, scales=(0.5, 1.0, 2.0))
    loader = build_train_loader(Oriented(23), 3, workers, seed=3, same_orientation=True, augmentation=how)
    loader.batch_sampler.set_epoch(4, start_batch)
    assert len(loader) == 8 // 3 + 15 // 3
    return [[(target["index"], target["scale"]) for target in targets] for _, targets in loader]


def test_batches_of_one_orientation_and_several_sizes_are_those_of_the_description():
    rng = np.random.default_rng([3, 4])
    order, _, scales = rng.permutation(23).tolist(), rng.random(23), rng.choice([0.5, 1.0, 2.0], 23).tolist()
    expected = []
    for wide in (True, False):
        images = [index for index in order if (index % 3 == 0) == wide]
        expected += [images[start : start + 3] for start in range(0, len(images) - 2, 3)]
    expected.sort(key=lambda images: order.index(images[-1]))  # a batch comes where its last image stands
    found = scaled_batches(workers=0)
    assert found == [[(index, scales[index]) for index in images] for images in expected]
    assert scaled_batches(workers=2, start_batch=3) == found[3:]


def test_orientation_is_read_from_headers(cuhk):
    train_set = build_dataset("CUHK-SYSU", cuhk, "train")
    assert train_set.is_wide(0)
    train_set.annotations[0]["img_path"] = "missing.jpg"  # its turn comes later
    assert not train_set.is_wide(0)


def test_horizontal_flip_edits_no_target():
    image = torch.arange(3 * 4 * 5).reshape(3, 4, 5)
    target = {"boxes": torch.tensor([[0.0, 1.0, 3.0, 4.0]]), "labels": torch.tensor([7])}
    mirrored, moved = horizontal_flip(image, target)
    assert (moved["boxes"].tolist(), target["boxes"].tolist()) == ([[2, 1, 5, 4]], [[0, 1, 3, 4]])
    assert torch.equal(mirrored[..., 2:5].flip(-1), image[..., 0:3])
    assert horizontal_flip(image, {"boxes": torch.zeros(0, 4)})[1]["boxes"].shape == (0, 4)


class Damaged(Numbered):
    """As Numbered, but the images `bad` cannot be read."""

    def __init__(self, bad, count=11):
        super().__init__(count)
        self.bad = bad

    def __getitem__(self, index):
        if index in self.bad:
            raise ImageError(f"{index}.jpg cannot be read as an image: copy it again")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_ends_training_by_default(workers):
    loader = build_train_loader(Damaged({4, 7}), 2, workers, seed=3)
    with pytest.raises(ImageError, match=r"[47].jpg cannot be read as an image: .*DAMAGED_IMAGES skip"):
        batches(loader)
    with pytest.raises(ValueError, match="INPUT.DAMAGED_IMAGES is 'ignore': choose error or skip"):
        build_train_loader(Numbered(), 2, workers, seed=3, damaged="ignore")


@pytest.mark.slow
def test_a_skipped_image_is_replaced_alike_whatever_the_workers():
    whole = build_train_loader(Numbered(), 2, 0, seed=3)
    alone, shared = (build_train_loader(Damaged({4, 7}), 2, workers, 3, damaged="skip") for workers in (0, 2))
    replacements = set()
    for epoch in range(4):
        expected, found = batches(whole, epoch), batches(alone, epoch)
        assert batches(shared, epoch) == found
        assert batches(alone, epoch, start_batch=2) == found[2:]
        for (index, mirrored), (taken, also) in zip(sum(expected, []), sum(found, []), strict=True):
            assert mirrored == also
            assert taken == index if index not in (4, 7) else taken not in (4, 7)
            replacements |= {(index, taken)} - {(index, index)}
    assert len(replacements) > 4  # another one in each epoch


def test_batches_of_damaged_images_alone_are_filled():
    found = batches(build_train_loader(Damaged(set(range(1, 11))), 2, 0, 3, damaged="skip"))
    assert [[index for index, _ in batch] for batch in found] == [[0, 0]] * 5
    _, targets = next(iter(build_train_loader(Damaged(set(range(1, 11))), 1, 0, 3, damaged="skip")))
    assert targets[0]["damaged"] and all("cannot be read as an image" in line for line in targets[0]["damaged"])
    with pytest.raises(ImageError, match=r"none of the 11 training images can be read, the first: \d+.jpg"):
        batches(build_train_loader(Damaged(set(range(11))), 2, 0, 3, damaged="skip"))


def test_skipped_samples_are_named_once_and_counted_in_each_epoch(caplog):
    skipped = SkippedSamples()
    for epoch in (1, 2):
        list(
            skipped.counted([([], [{"damaged": ["a.jpg"]}]), ([], [{"damaged": ["a.jpg"], "outside": ["b.jpg"]}, {}])])
        )
        skipped.finish_epoch(epoch)
    counts = ["skipped 2 images that cannot be read", "skipped 1 boxes outside their images"]
    expected = [
        "skipped: a.jpg",
        "skipped: b.jpg",
        *(f"epoch {epoch}: {count}" for epoch in (1, 2) for count in counts),
    ]
    assert [record.getMessage() for record in caplog.records] == expected
