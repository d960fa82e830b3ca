"""Images on their way into a network, and results on their way out."""

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from models.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from models.results import SearchResult, Thresholds, keep_best, to_cpu

SIZES = [(90, 160), (120, 100), (75, 240), (96, 96)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_and_boxes_are_those_of_torchvision(dtype):
    pixels = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in SIZES]
    floats = [image.float() / 255 for image in pixels]
    boxes = [torch.tensor([[3.0, 5, 60, 70], [0, 0, width, height]]) for height, width in SIZES]
    transform = GeneralizedRCNNTransform(96, 160, IMAGENET_MEAN, IMAGENET_STD)
    expected, targets = transform(floats, [{"boxes": image_boxes} for image_boxes in boxes])
    batch = Preprocess(96, 160)(pixels if dtype is torch.uint8 else floats)
    torch.testing.assert_close(batch.tensors, expected.tensors, atol=1e-5, rtol=0)
    assert (batch.sizes, batch.original_sizes) == (expected.image_sizes, SIZES)
    for found, given, back, wanted in zip(
        batch.resize_boxes(boxes), boxes, batch.restore_boxes(batch.resize_boxes(boxes)), targets, strict=True
    ):
        torch.testing.assert_close(found, wanted["boxes"])
        torch.testing.assert_close(back, given)


def test_pixels_of_caffe_are_blue_green_red_less_a_mean():
    image = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)
    expected = image.flip(0) - torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    batch = Preprocess(96, 160, pixels="bgr")([image])
    torch.testing.assert_close(batch.tensors[0], expected, atol=1e-3, rtol=0)


def test_scales_are_factors_on_the_limits_of_each_image():
    images, scales = [torch.rand(3, 90, 160) for _ in range(3)], [0.5, 1.0, 1.3333]
    batch = Preprocess(96, 150)(images, scales)
    assert batch.sizes == [Preprocess(*limits).resized_size(90, 160) for limits in ((48, 75), (96, 150), (128, 200))]


def test_sizes_are_known_before_an_image_is_resized_and_nothing_is_saved():
    preprocess = Preprocess(96, 160)
    for size in SIZES:
        batch = preprocess([torch.zeros(3, *size)])
        assert batch.sizes == [preprocess.resized_size(*size)]
        assert batch.tensors.shape[2:] == preprocess.padded_size(*size)
    assert not preprocess.state_dict()
    with pytest.raises(ValueError, match="3 x H x W"):
        preprocess([torch.zeros(96, 160)])


def result(boxes: int, queries: int) -> SearchResult:
    corners = torch.rand(boxes + queries, 2) * 50
    both = torch.cat([corners, corners + 20], dim=1)
    vectors = torch.nn.functional.normalize(torch.randn(boxes + queries, 8))
    return SearchResult(
        both[:boxes], torch.rand(boxes), vectors[:boxes].bfloat16(), both[boxes:], vectors[boxes:],
        Thresholds(0.2, 0.5, 5),
    )  # fmt: skip


def test_a_batch_of_results_goes_to_the_cpu_in_one_piece(monkeypatch):
    results, copies, to_host = [result(7, 2), result(0, 0), result(3, 1)], [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: (copies.append(1), to_host(self))[1])
    for found, original in zip(to_cpu(results), results, strict=True):
        for name in ("boxes", "scores", "embeddings", "query_boxes", "query_embeddings"):
            assert torch.equal(getattr(found, name), getattr(original, name).float())
        assert found.thresholds == original.thresholds
    assert len(copies) == 1
    assert to_cpu([]) == []


def test_thresholds_are_exclusive_and_the_best_come_first():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 50, 50], [70, 70, 70, 90], [90, 0, 95, 9]])
    scores = torch.tensor([0.6, 0.9, 0.7, 0.8, 0.5])
    assert keep_best(boxes, scores, Thresholds(0.5, 0.5, 9)).tolist() == [1, 2]
    assert keep_best(boxes, scores, Thresholds(0.0, 0.9, 3)).tolist() == [1, 2, 0]


def test_a_query_suppresses_its_duplicates_and_is_never_suppressed():
    found = result(6, 2)
    found.boxes[0] = found.query_boxes[1]
    context = found.query()["context"]
    assert torch.equal(context["boxes"][:2], found.query_boxes) and context["scores"][:2].tolist() == [1, 1]
    norms = context["embeddings"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=0.01, rtol=0)  # not weighted by scores
    assert not (context["boxes"][2:] == found.boxes[0]).all(1).any()
    assert len(context["boxes"]) <= 5
    one = found.query(1)
    assert torch.equal(one["embeddings"], found.query_embeddings[1:])
    assert torch.equal(one["context"]["boxes"][:1], found.query_boxes[1:])
