"""Protocol files, and the cache of what was read from them."""

import os
import pickle

import numpy as np
import pytest
from scipy.io import loadmat
from trees import PROTOCOLS, cut_off, rewrite, small_tree

from datasets import build_dataset, cache, cuhk_files
from datasets.annotation_file import AnnotationFile
from datasets.cuhk_files import read_protocol


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small dataset whose files are all cached."""
    monkeypatch.setattr(cache, "MIN_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    small_tree("cuhk_sysu", tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def parsed(monkeypatch):
    """The names of the protocol files that SciPy read."""
    names, parse = [], cuhk_files._parse_protocol

    def counting(file):
        names.append(file.path.name)
        return parse(file)

    monkeypatch.setattr(cuhk_files, "_parse_protocol", counting)
    return names


def read(root):
    faults = []
    protocol = read_protocol(AnnotationFile(root / PROTOCOLS / "TestG50.mat", faults), root)
    assert faults == []
    return vars(protocol)


def no_longer_new(cached):
    os.utime(cached.parents[1] / PROTOCOLS / "TestG50.mat", ns=(0, 123))


def of_another_version(cached):
    with np.load(cached, allow_pickle=False) as stored:
        np.savez(cached, **(dict(stored) | {"source": stored["source"] - [1, 0, 0]}))


DAMAGE = {
    "missing": os.unlink,
    "cut off": cut_off,
    "of an older file": no_longer_new,
    "of another version": of_another_version,
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"names": []})),
    "of other arrays": lambda path: np.savez(path, names=np.zeros(3)),
    "with objects": lambda path: np.savez(path, source=np.array([None])),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_protocol_is_parsed_once_and_again_where_its_cache_is_of_no_use(damage, root, parsed):
    whole, cached = read(root), root / ".cache" / "TestG50.npz"
    assert (whole["names"].tolist()[:2], whole["boxes"].tolist()[0]) == (["s13.jpg", "s12.jpg"], [200, 20, 230, 110])
    np.testing.assert_equal(read(root), whole)
    build_dataset("CUHK-SYSU", root, "gallery")
    assert parsed == ["TestG50.mat"]
    with np.load(cached, allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)
    DAMAGE[damage](cached)
    for _ in range(2):
        again = read(root)
        np.testing.assert_equal(again, whole)
        assert [values.dtype for values in again.values()] == [values.dtype for values in whole.values()]
    assert len(parsed) == 2


def test_a_dataset_that_cannot_be_written_is_cached_for_the_user(root, parsed, tmp_path):
    (root / ".cache").write_text("a file, where a folder is needed")
    np.testing.assert_equal(read(root), read(root))
    assert len(parsed) == 1
    (stored,) = (tmp_path / "user" / "person-search").iterdir()
    stored.unlink()
    stored.parent.rmdir()
    stored.parent.write_text("another file")
    np.testing.assert_equal(read(root), read(root))  # without any cache
    assert len(parsed) == 3


def test_warnings_are_kept_and_errors_are_not_cached(root):
    no_area, outside = np.array([[5, 5, 0, 9]]), np.array(["../a"])
    rewrite(root / "annotation/Images.mat", lambda images: images[0, 0]["box"][0, 1].__setitem__("idlocate", no_area))
    rewrite(root / PROTOCOLS / "TestG50.mat", lambda p: p[0, 0]["Query"][0, 0].__setitem__("imname", outside))
    for _ in range(2):
        left_out, errors = [], []
        dataset = build_dataset("CUHK-SYSU", root, "train", faults=left_out)
        assert dataset.annotations[0]["boxes"].tolist() == [[10, 20, 40, 110]]
        assert [fault.severity for fault in left_out] == ["warning"]
        build_dataset("CUHK-SYSU", root, "query", faults=errors)
        assert [fault.severity for fault in errors] == ["error"]


def test_published_protocol(shared_dir, tmp_path, monkeypatch):
    path = shared_dir / "real" / "cuhk_sysu" / "TestG100.mat"
    content = loadmat(path)["TestG100"]
    monkeypatch.setattr(AnnotationFile, "variable", lambda *_: content)  # reading it once more takes ten seconds
    protocol = read_protocol(AnnotationFile(path, []), tmp_path)
    assert (len(protocol.queries), len(protocol.images), len(protocol.names)) == (2900, 290_000, 6978)
    np.testing.assert_equal(vars(read_protocol(AnnotationFile(path, []), tmp_path)), vars(protocol))
    for number in (0, 1234, 2899):
        scenes = content[0, number]["Gallery"][0]
        mine = protocol.owners == number
        assert protocol.names[protocol.images[mine]].tolist() == [str(scene["imname"][0]) for scene in scenes]
        boxes = protocol.boxes[mine[protocol.positives]]
        expected = [scene["idlocate"][0].astype(int) for scene in scenes if scene["idlocate"].size]
        np.testing.assert_array_equal(np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]), expected)
