"""Extraction: batches of one size, parts on disk, and what is found whatever the batches."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import tiny_model
from torchvision.ops import box_iou

from datasets import build_dataset
from engine import extraction, feature_parts
from engine.extraction import extract_features, grouped
from engine.feature_parts import FeatureParts, ImageFeatures, extraction_id
from engine.features import Features
from models.results import SearchResult, Thresholds

OPTIONS = {"device": torch.device("cpu"), "batch_size": 2, "num_workers": 0}


@pytest.fixture(scope="module")
def sets(cuhk):
    return build_dataset("CUHK-SYSU", cuhk, "gallery"), build_dataset("CUHK-SYSU", cuhk, "query")


@pytest.fixture(scope="module")
def model():
    return tiny_model(MODEL__DETECTION_HEAD__SCORE_THRESH=0.3, MODEL__SEARCH_HEAD__SCORE_THRESH=0.3)


def flat(features: Features) -> list[np.ndarray]:
    contexts = [array for pair in features.query_context for array in pair]
    return [*features.gallery_dets, *features.gallery_feats, *features.query_feats, *contexts, *features.truth_feats]


def assert_equal(one: Features, other: Features) -> None:
    for ours, theirs in zip(flat(one), flat(other), strict=True):
        assert ours.shape == theirs.shape or ours.size == theirs.size == 0
        np.testing.assert_array_equal(ours.ravel(), theirs.ravel())


def owner(array: np.ndarray) -> np.ndarray | torch.Tensor:
    """What holds the memory of an array."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("truth", [0, 2])
def test_what_is_kept_of_an_image_does_not_keep_its_batch(weighted, truth):
    batch = torch.rand(50, 8)
    corners = 20 * torch.arange(3 + truth)[:, None].float()
    boxes, nothing = torch.cat([corners, corners, corners + 10, corners + 10], dim=1), torch.zeros(0, 4)
    for detections in (boxes, nothing):
        image = SearchResult(
            boxes=detections,
            scores=torch.rand(len(detections)),
            embeddings=batch[: len(detections)],
            query_boxes=boxes,
            query_embeddings=batch[10 : 10 + len(boxes)],
            thresholds=Thresholds(0.0, 0.5, 10),
            weight_by_score=weighted,
        )
        item = extraction._Decoded(extraction._Job("a.jpg", 0, [0, 1, 2], boxes.numpy()), torch.zeros(3, 4, 4))
        found = extraction._collect(item, image)
        assert len(found.truth) == truth and len(found.queries) == 3
        kept = [*found.gallery, found.truth, *(array for query in found.queries for array in query)]
        for owned in map(owner, kept):
            size = owned.nbytes if isinstance(owned, np.ndarray) else owned.untyped_storage().nbytes()
            assert size < batch.nbytes / 2


def test_items_of_one_key_come_together_and_few_wait():
    numbers = [1, 12, 3, 14, 5, 16, 7]
    assert list(grouped(numbers, lambda n: n > 9, 2, lambda n: 1, 9)) == [[1, 3], [12, 14], [5, 7], [16]]
    taken = []
    one_of_each = grouped((taken.append(n) or n for n in range(10)), lambda n: n, 2, lambda n: 100, 350)
    assert next(one_of_each) == [0]
    assert taken == [0, 1, 2, 3], "as soon as more than 350 wait"
    assert sorted(n for group in one_of_each for n in group) == list(range(1, 10))
    large = grouped([1, 11, 2, 3, 12, 13], lambda n: n > 9, 3, lambda n: 100, 5)
    assert list(large) == [[1, 2, 3], [11, 12, 13]], "a batch may fill whatever it takes"


def test_what_waits_is_bounded_in_bytes(model, sets, monkeypatch):
    bounds = []

    def watched(items, key, size, cost, most_waiting):
        items = list(items)
        bounds.append((sum(map(cost, items)), sum(item.image.nbytes for item in items), most_waiting))
        return grouped(items, key, size, cost, most_waiting)

    monkeypatch.setattr(extraction, "grouped", watched)
    extract_features(model, *sets, **OPTIONS)
    [(told, held, most_waiting)] = bounds
    assert told == held > 0 and most_waiting == 2**28


def test_results_do_not_depend_on_batches_workers_or_parts(model, sets, tmp_path):
    expected = extract_features(model, *sets, **OPTIONS | {"batch_size": 1}, with_truth=True)
    assert sum(map(len, expected.gallery_dets)) > 10
    parts = FeatureParts(tmp_path / "parts")
    for changes in ({"batch_size": 3}, {"num_workers": 2}, {"parts": parts}):
        found = extract_features(model, *sets, **OPTIONS | changes, with_truth=True)
        for ours, theirs in zip(flat(found), flat(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert model.training, "the network is left as it was"


def test_an_interrupted_extraction_goes_on_where_it_stopped(model, sets, tmp_path, monkeypatch):
    expected = extract_features(model, *sets, **OPTIONS, with_truth=True)
    search, seen = extraction._search, []

    def stop_at_the_third(searcher, batch, device):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append([item.job.path for item in batch])
        return search(searcher, batch, device)

    monkeypatch.setattr(extraction, "_search", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        extract_features(model, *sets, **OPTIONS, with_truth=True, parts=FeatureParts(tmp_path))
    seen_again = []

    def watch(searcher, batch, device):
        seen_again.extend(item.job.path for item in batch)
        return search(searcher, batch, device)

    monkeypatch.setattr(extraction, "_search", watch)
    parts = FeatureParts(tmp_path)
    resumed = extract_features(model, *sets, **OPTIONS, with_truth=True, parts=parts)
    first = {path for batch in seen for path in batch}
    assert len(first) == 4 and not first & set(seen_again)
    assert_equal(resumed, expected)
    seen_again.clear()
    assert_equal(extract_features(model, *sets, **OPTIONS, with_truth=True, parts=FeatureParts(tmp_path)), expected)
    assert not seen_again, "all was on disk"
    parts.remove()
    assert not tmp_path.exists()


@pytest.mark.parametrize("of_query", [True, False])
def test_a_box_without_area_is_refused_before_the_network_runs(model, sets, of_query, monkeypatch):
    monkeypatch.setattr(extraction, "_search", None)
    both = [SimpleNamespace(annotations=[dict(row) for row in split.annotations]) for split in sets]
    wrong = both[of_query].annotations[3]
    wrong["boxes"] = np.array([[50, 60, 50, 20]], dtype=np.int32)
    message = rf"{wrong['img_path']} has a box without area, \[50.0, 60.0, 50.0, 20.0\]"
    with pytest.raises(ValueError, match=message):
        extract_features(model, *both, **OPTIONS, with_truth=True)


def test_a_gallery_that_repeats_an_image_is_refused(model, sets):
    gallery, query = sets
    again = SimpleNamespace(annotations=[*gallery.annotations, gallery.annotations[4]])
    with pytest.raises(ValueError, match=rf"{gallery.annotations[4]['img_path']} is in the gallery 2 times"):
        extract_features(model, again, query, **OPTIONS)


def test_a_damaged_part_is_passed_over_with_a_warning(tmp_path, caplog):
    rng = np.random.default_rng(0)
    query = (rng.random(4), rng.random((2, 5)), rng.random((2, 4)))
    images = [
        ImageFeatures("a.jpg", (rng.random((3, 5)), rng.random((3, 4))), rng.random((1, 4)), [query, query]),
        ImageFeatures("b.jpg", None, np.zeros((0, 4)), [query]),
        ImageFeatures("c.jpg", (np.zeros((0, 5)), np.zeros((0, 4))), np.zeros((0, 4)), []),
    ]
    for image in images:
        parts = FeatureParts(tmp_path)
        parts.add([image])
        parts.write()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    found, paths = FeatureParts(tmp_path).read()
    back = {image.path: image for image in found}
    assert paths == back.keys()
    assert back.keys() == {"a.jpg", "b.jpg", "c.jpg"}
    assert back["b.jpg"].gallery is None and len(back["a.jpg"].queries) == 2
    np.testing.assert_array_equal(back["a.jpg"].gallery[1], images[0].gallery[1])
    np.testing.assert_array_equal(back["b.jpg"].queries[0][0], query[0])
    assert len(back["c.jpg"].gallery[0]) == 0
    files[0].write_bytes(files[0].read_bytes()[:-30])
    again = FeatureParts(tmp_path)
    found, paths = again.read()
    assert len(found) == len(paths) == again.found_earlier == 2
    assert "is damaged" in caplog.text and files[0].name in caplog.text


@pytest.mark.parametrize("array, value", [("query_counts", [2]), ("query_counts", [0]), ("truth_counts", [9])])
def test_a_part_whose_arrays_do_not_fit_each_other_is_damaged(array, value, tmp_path, caplog):
    query = (np.ones(4), np.ones((2, 5)), np.ones((2, 4)))
    parts = FeatureParts(tmp_path)
    parts.add([ImageFeatures("a.jpg", (np.ones((3, 5)), np.ones((3, 4))), np.ones((1, 4)), [query])])
    parts.write()
    part = tmp_path / "0-0.npz"
    assert len(FeatureParts(tmp_path).read()[0]) == 1
    with np.load(part) as file:
        contents = dict(file)
    np.savez(part, **contents | {array: np.array(value)})
    assert FeatureParts(tmp_path).read() == ([], set())
    assert f"{part} is damaged ({array} tells of {value[0]}" in caplog.text


def test_parts_that_cannot_be_written_are_told_once_and_hide_no_error(model, sets, tmp_path, monkeypatch, caplog):
    expected = extract_features(model, *sets, **OPTIONS, with_truth=True)
    monkeypatch.setattr(feature_parts, "SECONDS_BETWEEN_PARTS", -1.0)
    blocked = tmp_path / "file"
    blocked.write_text("in the way of the folder")
    found = extract_features(model, *sets, **OPTIONS, with_truth=True, parts=FeatureParts(blocked))
    assert_equal(found, expected)
    assert caplog.text.count("cannot be written") == 1
    assert f"{blocked / '0-0.npz'} cannot be written (File exists)" in caplog.text
    search, passes = extraction._search, []

    def stop_at_the_second(searcher, batch, device):
        passes.append(batch)
        if len(passes) == 2:
            raise KeyboardInterrupt
        return search(searcher, batch, device)

    monkeypatch.setattr(extraction, "_search", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        extract_features(model, *sets, **OPTIONS, parts=FeatureParts(blocked))


def test_parts_are_written_when_there_is_room_again(tmp_path, caplog):
    image = ImageFeatures("a.jpg", None, np.zeros((0, 4)), [])
    blocked = tmp_path / "file"
    parts = FeatureParts(blocked)
    for _ in range(2):
        blocked.write_text("in the way of the folder")
        parts.add([image])
        parts.write()
        blocked.unlink()
        parts.write()
        assert parts.read()[1] == {"a.jpg"}
        parts.remove()
    assert caplog.text.count("cannot be written") == 2


def test_an_extraction_is_known_by_weights_boxes_settings_and_version(model, sets, monkeypatch):
    gallery, query = sets
    name = extraction_id(model, gallery, query, "off")
    assert name == extraction_id(model, gallery, query, "off")
    assert name != extraction_id(model, gallery, query, "bf16")
    assert name != extraction_id(model, gallery, gallery, "off")
    other = tiny_model()
    with torch.no_grad():
        other.search_head.embedding.rescaler.bias.add_(1e-3)
    assert name != extraction_id(other, gallery, query, "off")
    rows = [*gallery.annotations, *query.annotations]
    first, second = (
        (SimpleNamespace(annotations=rows[:cut]), SimpleNamespace(annotations=rows[cut:])) for cut in (10, 11)
    )
    assert name == extraction_id(model, *first, "off") != extraction_id(model, *second, "off")
    monkeypatch.setattr(feature_parts, "VERSION", 2)
    assert name != extraction_id(model, gallery, query, "off")


def test_an_extraction_is_known_by_its_image_files(model, tmp_path):
    image = tmp_path / "a.jpg"
    image.write_bytes(b"one")
    os.utime(image, ns=(0, 10**9))
    row = {"img_path": str(image), "boxes": np.zeros((0, 4), np.int32)}
    both = SimpleNamespace(annotations=[row]), SimpleNamespace(annotations=[])
    names = [extraction_id(model, *both)]
    assert names[0] == extraction_id(model, *both)
    os.utime(image, ns=(0, 2 * 10**9))
    names.append(extraction_id(model, *both))
    image.write_bytes(b"longer")
    os.utime(image, ns=(0, 10**9))
    names.append(extraction_id(model, *both))
    image.unlink()
    names.append(extraction_id(model, *both))
    assert len(set(names)) == 4


def test_reduced_precision_changes_little(model, sets):
    exact, reduced = (extract_features(model, *sets, **OPTIONS, amp=amp) for amp in (None, torch.bfloat16))
    similarity = [float(a @ b) for a, b in zip(exact.query_feats, reduced.query_feats, strict=True)]
    assert min(similarity) > 0.98 and min(similarity) < 1 - 1e-9
    found, errors = [], []
    for dets, ours, feats, our_feats in zip(
        exact.gallery_dets, reduced.gallery_dets, exact.gallery_feats, reduced.gallery_feats, strict=True
    ):
        overlap, partner = box_iou(torch.from_numpy(dets[:, :4]), torch.from_numpy(ours[:, :4])).max(1)
        same = overlap.numpy() > 0.95  # a score on the brink may let another box suppress its neighbours
        partner = partner.numpy()[same]
        found.extend(same)
        errors.extend(abs(dets[same, 4] - ours[partner, 4]))
        cosines = (feats[same] * our_feats[partner]).sum(1) / (dets[same, 4] * ours[partner, 4])
        assert cosines.min() > 0.98
    assert np.mean(found) > 0.95
    assert 0 < np.max(errors) < 0.02
