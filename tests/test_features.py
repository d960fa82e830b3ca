"""Features of a dataset: extraction, with interruptions, and files, of which those that do not fit are refused."""

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from disks import damaged_copies
from tiny import tiny_model

from datasets import build_dataset
from engine import feature_files
from engine.feature_files import Features, PartialResults, extraction_id, load_features, save_features
from engine.features import extract_features
from engine.searcher import Searcher, SearchRequest
from utils.errors import UserError

GALLERY, QUERIES = ["a.jpg", "b.jpg", "c.jpg"], ["a.jpg 1", "b.jpg 2"]
D = 4


@pytest.fixture(scope="module")
def sets(cuhk):
    return build_dataset("CUHK-SYSU", cuhk, "gallery"), build_dataset("CUHK-SYSU", cuhk, "query")


@pytest.fixture(scope="module")
def searcher():
    model = tiny_model(MODEL__DETECTION_HEAD__SCORE_THRESH=0.3, MODEL__SEARCH_HEAD__SCORE_THRESH=0.3)
    return Searcher(model, "cpu", batch_size=2)


@pytest.fixture(scope="module")
def expected(searcher, sets):
    return extract_features(searcher, *sets, with_ground_truth=True)


@pytest.fixture
def searched(searcher, monkeypatch) -> list[str]:
    """Paths of the images that are searched."""
    paths, call = [], Searcher.__call__

    def noted(self, requests):
        for index, result in call(self, requests):
            paths.append(requests[index].image)
            yield index, result

    monkeypatch.setattr(Searcher, "__call__", noted)
    return paths


def interrupt(searcher: Searcher, monkeypatch, passes: int) -> None:
    """Have the searcher stop after so many batches."""
    search, done = searcher._search, []

    def stopping(batch):
        if len(done) == passes:
            raise KeyboardInterrupt
        done.append(batch)
        return search(batch)

    monkeypatch.setattr(searcher, "_search", stopping)


def assert_same(one: Features, other: Features, atol: float = 0) -> None:
    for field in fields(Features):
        for a, b in zip(getattr(one, field.name), getattr(other, field.name), strict=True):
            if isinstance(a, str):
                assert a == b
            elif np.size(a) or np.size(b):
                np.testing.assert_allclose(a, b, atol=atol, rtol=0)


def test_features_are_what_the_searcher_finds_in_the_order_of_the_annotations(searcher, sets, expected):
    gallery, query = sets
    asked = [row["img_path"] for row in query.annotations]
    assert len(set(asked)) < len(asked), "several queries are in one image"
    assert sum(map(len, expected.gallery_dets)) > 10
    for index, row in enumerate(gallery.annotations):
        [(_, found)] = searcher([SearchRequest(row["img_path"], row["boxes"])])
        np.testing.assert_allclose(expected.gallery_dets[index], found.rows, atol=1e-4)
        np.testing.assert_allclose(expected.gallery_feats[index], found.embeddings, atol=1e-4)
        np.testing.assert_allclose(expected.ground_truth_feats[index], found.query_embeddings, atol=1e-4)
    for index, row in enumerate(query.annotations):
        [(_, found)] = searcher([SearchRequest(row["img_path"], row["boxes"])])
        np.testing.assert_allclose(expected.query_feats[index], found.query_embeddings, atol=1e-4)
        np.testing.assert_allclose(expected.context_dets[index], found.contexts[0].rows, atol=1e-4)
        np.testing.assert_allclose(expected.context_feats[index], found.contexts[0].embeddings, atol=1e-4)
    assert extract_features(searcher, *sets).ground_truth_feats == []


def test_an_interrupted_extraction_goes_on_where_it_stopped(
    searcher, sets, expected, searched, tmp_path, monkeypatch, caplog
):
    with monkeypatch.context() as patch:
        interrupt(searcher, patch, passes=2)
        with pytest.raises(KeyboardInterrupt):
            extract_features(searcher, *sets, True, PartialResults(tmp_path))
    first = set(searched)
    assert len(first) == 4
    searched.clear()
    caplog.set_level("INFO")
    assert_same(extract_features(searcher, *sets, True, PartialResults(tmp_path)), expected, atol=1e-4)
    assert not first & set(searched) and "resumed with the features of 4 images found earlier" in caplog.text
    searched.clear()
    partial = PartialResults(tmp_path)
    assert_same(extract_features(searcher, *sets, True, partial), expected, atol=1e-4)
    assert not searched and partial.num_found == len({r["img_path"] for each in sets for r in each.annotations})
    damaged = sorted(tmp_path.iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-30])
    assert_same(extract_features(searcher, *sets, True, PartialResults(tmp_path)), expected, atol=1e-4)
    assert set(searched) == first and f"{damaged} is not a valid file" in caplog.text
    partial.remove()
    assert not tmp_path.exists()


def test_partial_results_that_cannot_be_written_are_reported_once_and_hide_no_error(
    searcher, sets, expected, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(feature_files, "SECONDS_BETWEEN_WRITES", -1.0)
    blocked = tmp_path / "file"
    blocked.write_text("where the folder would be")
    assert_same(extract_features(searcher, *sets, True, PartialResults(blocked)), expected)
    assert caplog.text.count("cannot be written") == 1 and str(blocked / "0-") in caplog.text
    interrupt(searcher, monkeypatch, passes=1)
    partial = PartialResults(blocked)
    with pytest.raises(KeyboardInterrupt):
        extract_features(searcher, *sets, True, partial)
    blocked.unlink()
    partial.write()
    assert len(partial.read()[1]) == 2, "what could not be written is kept for the next time"


def test_wrong_annotations_are_refused_before_anything_is_searched(searcher, sets, searched):
    for changed in (0, 1):
        both = [SimpleNamespace(annotations=[dict(row) for row in split.annotations]) for split in sets]
        wrong = both[changed].annotations[3]
        wrong["boxes"] = np.array([[50, 60, 50, 20]], dtype=np.int32)
        with pytest.raises(UserError, match=rf"{wrong['img_path']} has a box without area, \[50"):
            extract_features(searcher, *both, True)
    again = SimpleNamespace(annotations=[*sets[0].annotations, sets[0].annotations[4]])
    with pytest.raises(UserError, match=rf"{again.annotations[4]['img_name']} is in the gallery 2 times"):
        extract_features(searcher, again, sets[1])
    assert not searched


def test_an_extraction_is_known_by_weights_boxes_settings_files_and_version(searcher, sets, tmp_path, monkeypatch):
    gallery, query = sets
    image = tmp_path / "a.jpg"
    row = {"img_path": str(image), "boxes": np.zeros((0, 4), np.int32)}
    model, rows = searcher.model, [*gallery.annotations, *query.annotations, row]

    def name(model=model, cut=10, setting="off"):
        return extraction_id(
            model, SimpleNamespace(annotations=rows[:cut]), SimpleNamespace(annotations=rows[cut:]), setting
        )

    names = [name()]
    assert name() == names[0]
    names += [name(setting="bf16"), name(cut=11), name(tiny_model())]
    for content, seconds in ((b"one", 1), (b"one", 2), (b"longer", 2)):
        image.write_bytes(content)
        os.utime(image, ns=(0, seconds * 10**9))
        names.append(name())
    rows[0] = rows[0] | {"boxes": rows[0]["boxes"] + 1}
    names.append(name())
    monkeypatch.setattr(feature_files, "VERSION", -1)
    names.append(name())
    assert len(set(names)) == len(names)


@pytest.fixture
def features() -> Features:
    def rows(columns, *counts):
        return [draw.random((count, columns), dtype=np.float32) for count in counts]

    draw = np.random.default_rng(0)
    gallery = rows(5, 1, 0, 2), rows(D, 1, 0, 2), rows(D, 1, 0, 2)
    return Features(*gallery, rows(D, 1, 1), rows(5, 2, 1), rows(D, 2, 1), list(GALLERY), list(QUERIES))


@pytest.fixture
def path(features, tmp_path) -> Path:
    save_features(tmp_path / "f.npz", features)
    return tmp_path / "f.npz"


def test_what_was_written_comes_back(features, path):
    assert_same(load_features(path, GALLERY, QUERIES), features)
    swapped = load_features(path, GALLERY[::-1], QUERIES[1:])
    np.testing.assert_array_equal(swapped.gallery_dets[0], features.gallery_dets[2])
    np.testing.assert_array_equal(swapped.context_feats[0], features.context_feats[1])
    nothing = [np.zeros((0, 5), np.float32)] * 3, [np.zeros((0, D), np.float32)] * 3
    for case in (Features(*nothing, gallery_names=GALLERY), Features()):
        save_features(path, case)
        assert_same(load_features(path, case.gallery_names, []), case)


def header_of_4_tb(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gallery_names.npy", header.getvalue())


SPOILED: dict[str, dict | Callable[[Path], object]] = {
    "counts beyond the rows": {"gallery_dets_counts": np.array([1, 0, 3])},
    "counts of other images": {"gallery_dets_counts": np.array([1, 0, 1, 1])},
    "negative counts": {"gallery_dets_counts": np.array([4, -1, 0])},
    "text counts": {"ground_truth_feats_counts": np.array(["1", "0", "2"])},
    "other counts of embeddings": {"gallery_feats_counts": np.array([2, 0, 1])},
    "a single number": {"gallery_dets": np.array(1.0)},
    "boxes without score": {"gallery_dets": np.ones((3, 4))},
    "nan": {"gallery_feats": np.full((3, D), np.nan, np.float32)},
    "two vectors a query": {"query_feats_counts": np.array([2, 0])},
    "queries of another width": {"query_feats": np.ones((2, 7))},
    "no embeddings": {"gallery_feats": None},
    "header of 4 TB": header_of_4_tb,
    "empty": lambda path: path.write_bytes(b""),
}
"""Arrays instead of those of the file (None: no such array), or what is done to it."""


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_files_of_other_kinds_are_refused(spoil, path):
    if callable(spoil):
        spoil(path)
    else:
        with np.load(path) as file:
            arrays = dict(file) | spoil
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=r"f.npz is not a valid file of features \(.*\): name another"):
        load_features(path, GALLERY, QUERIES)


def test_missing_files_and_other_datasets_are_named(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.npz"):
        load_features(tmp_path / "none.npz", GALLERY, QUERIES)
    for names, missing in (([*GALLERY, "d.jpg"], QUERIES), "d.jpg"), ((GALLERY, ["b.jpg 1"]), "b.jpg 1"):
        with pytest.raises(UserError, match=f"f.npz lacks features of '{missing}'"):
            load_features(path, *names)


def test_a_damaged_file_is_refused_or_its_content_is_whole(path, features):
    refused = 0
    for damaged in damaged_copies(path.read_bytes()):
        path.write_bytes(damaged)
        try:
            assert_same(load_features(path, GALLERY, QUERIES), features)
        except UserError as error:
            assert str(path) in str(error) and "name another" in str(error)
            refused += 1
    assert refused > 60
