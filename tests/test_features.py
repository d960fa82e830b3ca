"""Files of features: what was written comes back, and what does not fit is refused in one sentence."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from engine.feature_parts import FeatureParts
from engine.features import Features, load_features, save_features

GALLERY, QUERIES = ["a.jpg", "b.jpg", "c.jpg"], ["a.jpg 1", "b.jpg 2"]
ROWS = (1, 0, 2)
D = 4


@pytest.fixture
def features() -> Features:
    draw = np.random.default_rng(0)
    dets, feats, truth = (
        [draw.random((n, columns), dtype=np.float32) for n in ROWS] for columns in (5, D, D)
    )  # fmt: skip
    query_feats = [draw.random(D, dtype=np.float32) for _ in QUERIES]
    context = [(draw.random((n, 5), dtype=np.float32), draw.random((n, D), dtype=np.float32)) for n in (2, 1)]
    return Features(dets, feats, truth, query_feats, context)


@pytest.fixture
def path(features, tmp_path) -> Path:
    save_features(tmp_path / "f.npz", features, GALLERY, QUERIES)
    return tmp_path / "f.npz"


def test_what_was_written_comes_back(features, path):
    found = load_features(path, GALLERY, QUERIES)
    for name in ("gallery_dets", "gallery_feats", "truth_feats", "query_feats"):
        ours, theirs = getattr(found, name), getattr(features, name)
        assert all(map(np.array_equal, filter(len, ours), filter(len, theirs))), name
        assert list(map(len, ours)) == list(map(len, theirs))
    for ours, theirs in zip(found.query_context, features.query_context, strict=True):
        assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])


def test_a_gallery_where_nobody_was_found_comes_back(tmp_path):
    nothing = [np.zeros((0, 5), np.float32)] * 3, [np.zeros((0, D), np.float32)] * 3
    save_features(tmp_path / "f.npz", Features(*nothing, None, [np.ones(D, np.float32)] * 2, None), GALLERY, QUERIES)
    found = load_features(tmp_path / "f.npz", GALLERY, QUERIES)
    assert [len(dets) for dets in found.gallery_dets] == [0, 0, 0] and len(found.query_feats) == 2
    save_features(tmp_path / "f.npz", Features([], [], None, [], None), [], [])
    assert load_features(tmp_path / "f.npz", [], []) == Features([], [], None, [], None)


def test_features_of_other_images_are_refused(path):
    for names in ((GALLERY[::-1], QUERIES), (GALLERY, QUERIES[:1])):
        with pytest.raises(ValueError, match=r"f.npz holds features of other images"):
            load_features(path, *names)


NAN = np.full((3, D), np.nan, np.float32)
WRONG = {
    "counts beyond the rows": ({"gallery_dets_counts": np.array([1, 0, 200])}, "tells of 201 rows, but .* has 3"),
    "counts short of the rows": ({"gallery_dets_counts": np.array([1, 0, 1])}, "tells of 2 rows, but .* has 3"),
    "negative counts": ({"gallery_dets_counts": np.array([4, -1, 0])}, "gallery_dets_counts tells of"),
    "counts whose sum overflows": (
        {"gallery_dets_counts": np.array([2**62, 2**62, 2**63 + 3], np.uint64)},
        "gallery_dets_counts tells of",
    ),
    "too few counts": ({"gallery_dets_counts": np.array([3])}, "gallery_dets_counts has 1 counts, not the 3"),
    "too many counts": (
        {f"gallery_{kind}_counts": np.array([1, 0, 1, 1]) for kind in ("dets", "feats")},
        "4 counts, not the 3 of the names",
    ),
    "float counts": ({"gallery_dets_counts": np.array([1.0, 0, 2])}, "gallery_dets_counts is not a list of whole"),
    "text counts": ({"truth_feats_counts": np.array(["1", "0", "2"])}, "truth_feats_counts is not a list of whole"),
    "a number for counts": ({"gallery_dets_counts": np.array(3)}, "gallery_dets_counts is not a list of whole"),
    "other counts of embeddings": ({"gallery_feats_counts": np.array([2, 0, 1])}, "gallery_feats are not as many"),
    "other counts of contexts": ({"context_feats_counts": np.array([1, 2])}, "context_feats are not as many"),
    "text": ({"gallery_dets": np.array([["x"] * 5] * 3)}, "gallery_dets is not a table of finite"),
    "whole numbers": ({"gallery_feats": np.ones((3, D), int)}, "gallery_feats is not a table of finite"),
    "a single number": ({"gallery_dets": np.array(1.0)}, "gallery_dets_counts is not a list of whole"),
    "flat rows": ({"gallery_feats": np.ones(3)}, "gallery_feats is not a table"),
    "boxes without score": ({"gallery_dets": np.ones((3, 4))}, "gallery_dets has 4 columns, not the 5"),
    "contexts without score": ({"context_dets": np.ones((3, 4))}, "context_dets has 4 columns, not the 5"),
    "nan": ({"gallery_feats": NAN}, "gallery_feats is not a table of finite"),
    "nan in the truth": ({"truth_feats": NAN}, "truth_feats is not a table of finite"),
    "infinite queries": ({"query_feats": np.full((2, D), np.inf)}, "query_feats is not a table of finite"),
    "a single query number": ({"query_feats": np.array(3.0)}, "query_feats is not a table"),
    "fewer queries": ({"query_feats": np.ones((1, D))}, "query_feats has 1 rows, but there are 2 queries"),
    "queries of another width": ({"query_feats": np.ones((2, 7))}, "numbers of dimensions: .*'query_feats': 7"),
    "truth of another width": ({"truth_feats": np.ones((3, 7))}, "different numbers of dimensions"),
    "a single name": ({"gallery_names": np.array("a.jpg")}, "gallery_names is not a list of texts"),
    "numbers for names": ({"gallery_names": np.arange(3)}, "gallery_names is not a list of texts"),
    "no embeddings": ({"gallery_feats": None}, "it lacks 'gallery_feats'"),
    "contexts without embeddings": ({"context_feats": None}, "it lacks 'context_feats'"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_arrays_that_do_not_fit_each_other_are_refused(change, message, path):
    with np.load(path) as file:
        contents = dict(file) | change
    np.savez(path, **{name: array for name, array in contents.items() if array is not None})
    with pytest.raises(ValueError, match=rf"f.npz is not a whole file of features \(.*({message})") as error:
        load_features(path, GALLERY, QUERIES)
    assert "name another file to extract them anew" in str(error.value)


def header_of_4_tb(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gallery_dets.npy", header.getvalue())


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flags in the file's two headers
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)


def no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gallery_dets.npy", b"hello")


def plain_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


@pytest.mark.parametrize("spoil", [header_of_4_tb, encrypted, no_array, plain_npy, lambda path: path.write_bytes(b"")])
def test_files_of_other_kinds_are_refused(spoil, path):
    spoil(path)
    with pytest.raises(ValueError, match=r"f.npz is not a whole file of features \(it .*\): name another"):
        load_features(path, GALLERY, QUERIES)


def test_a_file_that_cannot_be_opened_is_not_taken_for_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.npz"):
        load_features(tmp_path / "none.npz", GALLERY, QUERIES)
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        load_features(tmp_path, GALLERY, QUERIES)


def test_a_damaged_file_is_refused_or_its_content_is_whole(path, features):
    whole, draw, refused = path.read_bytes(), np.random.default_rng(0), 0
    for trial in range(300):
        damaged = bytearray(whole)
        if trial % 3 == 0:
            del damaged[draw.integers(len(whole)) :]
        else:
            for place in draw.choice(len(whole), draw.choice([1, 3, 10]), replace=False):
                damaged[place] ^= draw.integers(1, 256)
        path.write_bytes(damaged)
        try:
            found = load_features(path, GALLERY, QUERIES)
        except ValueError as error:
            assert str(path) in str(error) and "to extract them anew" in str(error)
            refused += 1
            continue
        for name in ("gallery_dets", "gallery_feats", "query_feats"):
            ours, theirs = (np.concatenate([*filter(len, getattr(each, name))]) for each in (found, features))
            assert np.array_equal(ours, theirs)
    assert refused > 200


def test_a_part_of_another_kind_is_passed_over(path, tmp_path, caplog):
    for name, spoil in {"0-0.npz": header_of_4_tb, "0-1.npz": plain_npy, "0-2.npz": no_array}.items():
        spoil(tmp_path / name)
    path.unlink()
    FeatureParts(tmp_path).read()
    assert caplog.text.count("is damaged (it ") == 3
