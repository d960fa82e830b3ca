"""Crops and colour jitter of training images: which people stay, where, and with which pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_loaders import Numbered
from tiny import picture, tiny_cfg

from datasets.augmentation import Augmentation, RandomCrops, cut, focused_window, jitter_colours, padded, safe_window
from datasets.build import build_augmentation
from datasets.training import build_train_loader
from utils.boxes import box_areas
from utils.errors import UserError


def drawn(rng, height: int, width: int) -> np.ndarray:
    """One to six boxes in an image, whole pixels."""
    corners = rng.integers(0, [width, height], (rng.integers(1, 7), 2, 2))
    low, high = corners.min(axis=1), corners.max(axis=1)
    return np.concatenate([low, np.maximum(high, low + 1)], axis=1)


SIZES = [(90, 160), (200, 60), (300, 400)]
"""Heights and widths: smaller than the border makes them, and larger."""


@pytest.mark.parametrize("height, width", SIZES)
def test_a_focused_crop_contains_its_person_and_stays_in_the_canvas(height, width):
    rng, canvas, starts = np.random.default_rng(1), padded(height, width, 3 * 64), set()
    for _ in range(100):
        box = drawn(rng, height, width)[0]
        window = focused_window(box, canvas, 64, rng)
        assert (window[:2] <= box[:2]).all() and (box[2:] <= window[2:]).all()
        side = max(64, *(box[2:] - box[:2]))
        assert (window[2:] - window[:2] == side).all()
        fits = side <= canvas[2:] - canvas[:2]  # a long box needs a square larger than a flat canvas
        assert ((canvas[:2] <= window[:2]) & (window[2:] <= canvas[2:]))[fits].all()
        starts.add(tuple(window[:2]))
    box = np.array([20, 30, 40, 60])
    found = np.array([focused_window(box, canvas, 64, rng)[:2] for _ in range(1500)])
    first, last = np.maximum(canvas[:2], box[2:] - 64), np.minimum(canvas[2:] - 64, box[:2])
    assert (found.min(axis=0) == first).all() and (found.max(axis=0) == last).all(), "all places that are allowed"


@pytest.mark.parametrize("height, width", SIZES)
def test_a_safe_crop_keeps_all_people(height, width):
    rng, canvas = np.random.default_rng(2), padded(height, width, 3 * 64)
    for _ in range(100):
        boxes = drawn(rng, height, width)
        window = safe_window(boxes, canvas, rng)
        assert (canvas[:2] <= window[:2]).all() and (window[2:] <= canvas[2:]).all()
        corners = np.maximum(boxes[:, :2], window[:2]), np.minimum(boxes[:, 2:], window[2:])
        assert (box_areas(np.concatenate(corners, axis=1)) >= 0.64 * box_areas(boxes)).all()


def test_the_border_is_the_same_on_both_sides_and_makes_up_what_is_missing():
    assert padded(90, 160, 192).tolist() == [-16, -51, 176, 141]
    assert padded(300, 400, 192).tolist() == [0, 0, 400, 300]
    assert padded(201, 100, 200).tolist() == [-50, 0, 150, 201]


IMAGE = (255 * picture(50, 80)).to(torch.uint8)
BOXES = torch.tensor([[10.0, 5, 30, 45], [0, 0, 20, 10], [0, 20, 15, 30], [60, 10, 80, 50]])


def test_a_window_without_scaling_is_a_slice_and_black_outside():
    target = {"boxes": BOXES, "labels": torch.tensor([7, -1, 3, 4]), "img_name": "a.jpg"}
    part, kept = cut(IMAGE, target, np.array([6, -4, 46, 36]), 40)
    assert torch.equal(part[:, 4:], IMAGE[:, :36, 6:46]) and not part[:, :4].any()
    # Of the first 31 of 40 rows are inside, of the second 14 of 20 columns, of the third 9 of 15: exactly 60 %.
    assert kept["boxes"].tolist() == [[4, 9, 24, 40], [0, 4, 14, 14], [0, 24, 9, 34]]
    assert kept["labels"].tolist() == [7, -1, 3] and kept["img_name"] == "a.jpg" and len(target["boxes"]) == 4
    fewer = cut(IMAGE, target, np.array([7, -4, 47, 36]), 40)[1]
    assert fewer["labels"].tolist() == [7, -1], "under 60 %"
    assert part.is_contiguous() and part.untyped_storage().nbytes() == part.numel(), "not a view of the whole image"


def test_a_window_is_scaled_as_the_network_scales_images_and_boxes_with_it():
    part, kept = cut(IMAGE, {"boxes": BOXES, "labels": torch.tensor([1, 2, 3, 4])}, np.array([0, 0, 80, 50]), 60)
    expected = F.interpolate(IMAGE[None].float(), (60, 60), mode="bilinear")[0]
    assert (part - expected).abs().max() < 1.01
    torch.testing.assert_close(kept["boxes"], BOXES * torch.tensor([60 / 80, 60 / 50, 60 / 80, 60 / 50]))


def test_both_kinds_of_crops_come_and_the_seed_decides():
    crops, target = RandomCrops(32, 50, 80), {"boxes": BOXES, "labels": torch.tensor([-1, -1, -1, 4])}
    found = [crops(IMAGE, target, 1.0, seed) for seed in range(120)]
    again = [crops(IMAGE, target, 1.0, seed) for seed in range(120)]
    for (image, one), (same, other) in zip(found, again, strict=True):
        assert image.shape == (3, 32, 32)
        assert torch.equal(image, same) and torch.equal(one["boxes"], other["boxes"])
        assert 4 in one["labels"], "the person with identity"
        assert (one["boxes"] >= 0).all() and (one["boxes"] <= 32).all()
    everybody = sum(len(one["labels"]) == 4 for _, one in found)
    assert 40 < everybody < 80, "a safe crop in one of two"


@pytest.mark.parametrize("labels", [[-1], []])
def test_crops_without_known_people_show_some_of_the_image(labels):
    target = {"boxes": torch.tensor([[30.0, 10, 50, 50]])[: len(labels)], "labels": torch.tensor(labels)}
    for seed in range(100):
        image, kept = RandomCrops(16, 50, 80)(IMAGE + 1, target, 1.0, seed)
        assert image.any() and len(kept["boxes"]) == len(kept["labels"]) <= len(labels)


def test_images_twice_as_large_give_crops_of_half_the_view():
    """The same people, whatever the resolution of the file: crops are those of the resized image."""
    target = {"boxes": torch.tensor([[30.0, 15, 40, 30]]), "labels": torch.tensor([1])}
    large = F.interpolate(IMAGE[None].float(), scale_factor=2)[0].to(torch.uint8)
    double = {**target, "boxes": 2 * target["boxes"]}
    for scale in (1.0, 1.5):
        sizes = [
            {tuple((kept["boxes"][0, 2:] - kept["boxes"][0, :2]).tolist()) for _, kept in crops}
            for crops in (
                [RandomCrops(24, 50, 80)(IMAGE, target, scale, seed) for seed in range(40)],
                [RandomCrops(24, 50, 80)(large, double, scale, seed) for seed in range(40)],
            )
        ]
        focused = (10 * scale, 15 * scale)
        assert focused in sizes[0] and focused in sizes[1]


def test_colour_jitter_is_torchvisions_and_moves_no_random_state():
    state = torch.get_rng_state()
    first, again, other = (jitter_colours(IMAGE, [0.4, 0.4, 0.4, 0.1], seed) for seed in (5, 5, 6))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, again) and not torch.equal(first, other) and first.dtype == torch.uint8
    assert torch.equal(jitter_colours(IMAGE, [0.0] * 4, 5), IMAGE)


def test_batches_hold_crops_or_whole_images_in_the_share_asked_for():
    how = Augmentation(crops=RandomCrops(4, 8, 100), whole_share=0.4, scales=(1.0, 2.0))
    loader, whole = build_train_loader(Numbered(60), 3, 0, seed=1, augmentation=how), []
    for epoch in range(5):
        loader.batch_sampler.set_epoch(epoch)
        for images, targets in loader:
            heights = {image.shape[1] for image in images}
            assert heights in ({2}, {4})
            whole.append(heights == {2})
            assert {target["scale"] for target in targets} <= ({0.5, 1.0} if whole[-1] else {0.5})
    assert np.mean(whole) == pytest.approx(0.4, abs=0.12)


def test_options_become_an_augmentation_or_are_refused():
    assert build_augmentation(tiny_cfg()).crop_share == 0.0
    cfg = tiny_cfg(INPUT__AUGMENTATION="crops", INPUT__CROP_SIZE=64, INPUT__WHOLE_SHARE=0.25)
    assert build_augmentation(cfg).crops == RandomCrops(64, 96, 160) and build_augmentation(cfg).crop_share == 0.75
    wrong = {
        "AUGMENTATION": ("rrc2", "'rrc2' is not one of flip, crops"),
        "TRAIN_SCALES": ("[1.0, 0.0]", r"is \[1.0, 0.0\]: give one or more positive factors"),
        "COLOUR_JITTER": ("[0, 0, 0, 0.6]", r"is \[0.0, 0.0, 0.0, 0.6\]: give four numbers"),
    }
    for name, (value, message) in wrong.items():
        with pytest.raises(UserError, match=f"INPUT.{name} {message}"):
            build_augmentation(tiny_cfg(**{f"INPUT__{name}": value}))
