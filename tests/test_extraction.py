"""Extraction: batches of one size, parts on disk, and what is found whatever the batches."""

import numpy as np
import pytest
import torch
from tiny import tiny_model

from datasets import build_dataset
from engine import extraction
from engine.extraction import extract_features, grouped
from engine.feature_parts import FeatureParts, ImageFeatures, extraction_id
from engine.features import Features

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


def test_items_of_one_key_come_together_and_few_wait():
    assert list(grouped([1, 12, 3, 14, 5, 16, 7], lambda n: n > 9, 2, 9)) == [[1, 3], [12, 14], [5, 7], [16]]
    one_of_each = list(grouped(range(10), lambda n: n, 2, 3))
    assert sorted(n for group in one_of_each for n in group) == list(range(10))
    assert one_of_each[0] == [0], "as soon as more wait than may"


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
    back = {image.path: image for image in FeatureParts(tmp_path).read()}
    assert back.keys() == {"a.jpg", "b.jpg", "c.jpg"}
    assert back["b.jpg"].gallery is None and len(back["a.jpg"].queries) == 2
    np.testing.assert_array_equal(back["a.jpg"].gallery[1], images[0].gallery[1])
    np.testing.assert_array_equal(back["b.jpg"].queries[0][0], query[0])
    assert len(back["c.jpg"].gallery[0]) == 0
    files[0].write_bytes(files[0].read_bytes()[:-30])
    assert len(FeatureParts(tmp_path).read()) == 2
    assert "is damaged" in caplog.text and files[0].name in caplog.text


def test_an_extraction_is_known_by_weights_boxes_and_settings(model, sets):
    gallery, query = sets
    name = extraction_id(model, gallery, query, "off")
    assert name == extraction_id(model, gallery, query, "off")
    assert name != extraction_id(model, gallery, query, "bf16")
    assert name != extraction_id(model, gallery, gallery, "off")
    other = tiny_model()
    with torch.no_grad():
        other.search_head.embedding.rescaler.bias.add_(1e-3)
    assert name != extraction_id(other, gallery, query, "off")


def test_reduced_precision_changes_little(model, sets):
    exact, reduced = (extract_features(model, *sets, **OPTIONS, amp=amp) for amp in (None, torch.bfloat16))
    similarity = [float(a @ b) for a, b in zip(exact.query_feats, reduced.query_feats, strict=True)]
    assert min(similarity) > 0.98 and min(similarity) < 1 - 1e-9
