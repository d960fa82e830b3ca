"""Annotation writers, read back with plain SciPy: the layout on disk is what is tested."""

import pytest
from scipy.io import loadmat
from trees import PROTOCOLS, scene, small_tree

from datasets import writers
from datasets.writers import write_annotations
from utils.errors import UserError


def stored(root, file, variable=None):
    return loadmat(root / file)[variable or file.rpartition("/")[2].removesuffix(".mat")]


def scenes(records):
    """Image name and box of each record."""
    return [(str(record["imname"][0]), record["idlocate"].ravel().tolist()) for record in records.ravel()]


def names_in(cells):
    assert cells.shape == (len(cells), 1)
    return [str(cell[0]) for cell in cells[:, 0]]


def test_cuhk_sysu(tmp_path):
    train, gallery, _ = small_tree("cuhk_sysu", tmp_path, num_others=120)
    images = stored(tmp_path, "annotation/Images.mat", "Img")
    assert images.shape == (1, len(train) + len(gallery))
    assert images.dtype.names == ("imname", "nAppear", "box")
    first, empty = images[0, 0], images[0, 4]
    assert (first["imname"][0], first["nAppear"].item(), first["box"].shape) == ("s1.jpg", 2, (1, 2))
    assert first["box"].dtype.names == ("idlocate", "ishard")
    assert [box["idlocate"].tolist() for box in first["box"][0]] == [[[10, 20, 30, 90]], [[300, 20, 30, 90]]]
    assert [box["idlocate"].dtype for box in first["box"][0]] == ["uint8", "uint16"]
    assert (empty["nAppear"].item(), empty["box"].size) == (0, 0)
    assert names_in(stored(tmp_path, "annotation/pool.mat")) == [item["img_name"] for item in gallery]
    identities = stored(tmp_path, f"{PROTOCOLS}/Train.mat")
    two, nine = identities[0, 0], identities[2, 0]
    assert (identities.shape, two.shape, nine[0, 0]["scene"].shape) == ((3, 1), (1, 1), (1, 1))
    assert (two[0, 0]["idname"][0], two[0, 0]["nAppear"].item()) == ("p2", 2)
    assert scenes(two[0, 0]["scene"]) == [("s3.jpg", [40, 20, 30, 90]), ("s4.jpg", [45, 20, 30, 90])]
    protocols = {size: stored(tmp_path, f"{PROTOCOLS}/TestG{size}.mat") for size in (50, 100)}
    assert not (tmp_path / PROTOCOLS / "TestG500.mat").exists()
    for size, protocol in protocols.items():
        assert (protocol.shape, protocol.dtype.names) == ((1, 2), ("Query", "Gallery"))
        query, members = protocol[0, 1]["Query"], scenes(protocol[0, 1]["Gallery"])
        assert (query.shape, query[0, 0]["idname"][0]) == ((1, 1), "p20")
        assert scenes(query) == [("s11.jpg", [3, 20, 30, 90])]
        assert members[:2] == [("s10.jpg", [0, 20, 30, 90]), ("s12.jpg", [6, 20, 30, 90])]
        assert all(box == [] for _, box in members[2:])
        assert len(dict(members)) == len(members) == size
        assert "s11.jpg" not in dict(members)
    small, large = (scenes(protocol[0, 1]["Gallery"]) for protocol in protocols.values())
    assert small == large[:50]


def test_movienet_train_is_a_cell_of_at_most_n_appearances(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "MOVIENET_APPEARANCES", (1, 71))
    train, gallery, _ = small_tree("movienet_cs", tmp_path)
    for limit, count in ((1, 1), (71, 2)):
        cell = stored(tmp_path, f"{PROTOCOLS}/Train_app{limit}.mat", "Train")
        name, written, shown = cell[0]
        assert (cell.shape, name[0], written.item(), shown.shape) == ((3, 3), "p2", count, (count, 3))
        assert shown[0, 0][0, 0][0] == train[2]["img_name"]
        assert shown[0, 1].tolist() == [[40], [20], [30], [90]]
    assert len(names_in(stored(tmp_path, "annotation/pool_2000.mat", "pool"))) == len(gallery)
    assert stored(tmp_path, f"{PROTOCOLS}/TestG2000.mat")[0, 0]["Gallery"].shape == (1, len(gallery) - 1)


def test_prw(tmp_path):
    small_tree("prw", tmp_path)
    assert names_in(stored(tmp_path, "frame_train.mat", "img_index_train")) == [f"c1s1_00000{k}" for k in range(1, 6)]
    assert len(names_in(stored(tmp_path, "frame_test.mat", "img_index_test"))) == 8
    boxes = stored(tmp_path, "annotations/c1s1_000001.jpg.mat", "box_new")
    assert boxes.tolist() == [[5, 10, 20, 30, 90], [-2, 300, 20, 30, 90]]
    assert stored(tmp_path, "annotations/c1s1_000005.jpg.mat", "box_new").shape == (0, 5)
    assert (tmp_path / "query_info.txt").read_bytes() == (
        b"30 250.000000 20.000000 30.000000 90.000000 c1s1_000010\r\n"
        b"20 3.000000 20.000000 30.000000 90.000000 c1s1_000011\r\n"
    )


def test_bad_input_is_named(tmp_path):
    train, gallery, queries = small_tree("prw", tmp_path)
    for fmt, items, asked, message in (
        ("coco", train, queries, "unknown format 'coco'"),
        ("prw", [*train, gallery[0]], queries, "twice: c1s1_000010.jpg"),
        ("prw", train, [{**queries[0], "pid": 7}], "not an annotated box"),
        ("prw", [{**train[0], "cam_id": 2}], queries, "cam_id is 2"),
        ("prw", [scene("prw", 1, 1, [(0, 5)])], queries, "pids are 1 and up"),
        ("cuhk_sysu", [scene("cuhk_sysu", 1, 1, [(1, -11)])], queries, "negative value"),
    ):
        with pytest.raises(UserError, match=message):
            write_annotations(fmt, tmp_path, items, gallery, asked)
