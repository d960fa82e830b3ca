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


def read(root, name="TestG50"):
    faults = []
    protocol = read_protocol(AnnotationFile(root / PROTOCOLS / f"{name}.mat", faults), root)
    assert faults == []
    return protocol


def assert_same(protocol, other):
    for name, values in vars(protocol).items():
        assert values.dtype == getattr(other, name).dtype
        np.testing.assert_array_equal(values, getattr(other, name))


def entry(root, name="TestG50"):
    return root / ".cache" / f"{name}.npz"


def test_the_cache_gives_what_was_read(root, parsed):
    first = read(root)
    assert (first.names.tolist()[:2], first.boxes.tolist()[0]) == (["s13.jpg", "s12.jpg"], [200, 20, 230, 110])
    assert_same(read(root), first)
    for split in ("train", "gallery", "query"):
        for _ in range(2):
            build_dataset("CUHK-SYSU", root, split)
    assert parsed == ["TestG50.mat"]
    with np.load(entry(root), allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)


def no_longer_new(cached):
    os.utime(cached.parents[1] / PROTOCOLS / "TestG50.mat", ns=(0, 123))


def of_another_version(cached):
    with np.load(cached, allow_pickle=False) as stored:
        np.savez(cached, **(dict(stored) | {"source": stored["source"] - [1, 0, 0]}))


@pytest.mark.parametrize(
    "spoil",
    [
        os.unlink,
        cut_off,
        no_longer_new,
        of_another_version,
        lambda path: path.write_bytes(pickle.dumps({"names": []})),
        lambda path: np.savez(path, names=np.zeros(3)),
        lambda path: np.savez(path, source=np.array([None])),  # needs pickle
    ],
)
def test_damaged_stale_and_missing_caches_are_rebuilt(spoil, root, parsed):
    whole = read(root)
    spoil(entry(root))
    assert_same(read(root), whole)
    assert_same(read(root), whole)
    assert len(parsed) == 2


def test_a_dataset_that_cannot_be_written_is_cached_for_the_user(root, parsed, tmp_path):
    (root / ".cache").write_text("a file, where a folder is needed")
    assert_same(read(root), read(root))
    assert len(parsed) == 1
    (stored,) = (tmp_path / "user" / "person-search").iterdir()
    assert stored.name.startswith("TestG50-")
    (stored.parent / stored.name).unlink()
    stored.parent.rmdir()
    stored.parent.write_text("another file")
    assert_same(read(root), read(root))  # without any cache
    assert len(parsed) == 3


def test_warnings_are_kept_and_errors_are_not_cached(root):
    def change(images):
        images[0, 0]["box"][0, 1]["idlocate"] = np.array([[5, 5, 0, 9]])

    rewrite(root / "annotation/Images.mat", change)
    found = []
    for _ in range(2):
        faults = []
        dataset = build_dataset("CUHK-SYSU", root, "train", faults=faults)
        found.append((faults, [annotation["boxes"].tolist() for annotation in dataset.annotations]))
    assert found[0] == found[1]
    assert [fault.severity for fault in found[0][0]] == ["warning"]
    read(root)
    name = np.array(["../a"])
    # The cache of the file as it was is stale now.
    rewrite(root / PROTOCOLS / "TestG50.mat", lambda p: p[0, 0]["Query"][0, 0].__setitem__("imname", name))
    for _ in range(2):
        faults = []
        build_dataset("CUHK-SYSU", root, "query", faults=faults)
        assert [fault.severity for fault in faults] == ["error"]


def test_published_protocol(shared_dir, tmp_path, monkeypatch):
    path = shared_dir / "real" / "cuhk_sysu" / "TestG100.mat"
    content = loadmat(path)["TestG100"]
    monkeypatch.setattr(AnnotationFile, "variable", lambda *_: content)  # reading it once more takes ten seconds
    protocol = read_protocol(AnnotationFile(path, []), tmp_path)
    assert (len(protocol.queries), len(protocol.images), len(protocol.names)) == (2900, 290_000, 6978)
    assert_same(read_protocol(AnnotationFile(path, []), tmp_path), protocol)
    for number in (0, 1234, 2899):
        scenes = content[0, number]["Gallery"][0]
        mine = protocol.owners == number
        assert protocol.names[protocol.images[mine]].tolist() == [str(scene["imname"][0]) for scene in scenes]
        boxes = protocol.boxes[mine[protocol.positives]]
        expected = [scene["idlocate"][0].astype(int) for scene in scenes if scene["idlocate"].size]
        np.testing.assert_array_equal(np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]), expected)
