"""Annotation writers, read back with plain SciPy: the layout on disk is what is tested."""

import numpy as np
import pytest
from scipy.io import loadmat

from datasets.writers import image_name, write_annotations
from utils.errors import UserError


def scene(name, people, cam_id=1):
    """An image dict; `people` maps a pid (or -1) to an offset of its box."""
    boxes = [[10 + x, 20, 10 + x + 30, 20 + 90] for x in people.values()]
    return {
        "img_name": name,
        "boxes": np.array(boxes, dtype=np.int32).reshape(-1, 4),
        "pids": np.array(list(people), dtype=np.int32),
        "cam_id": cam_id,
    }


def small_set(fmt, num_empty=120):
    """Training images of identities 1 and 2, a gallery in which 7 is seen four times and 9 twice, queries for both."""
    name = lambda number: image_name(fmt, number, 1)  # noqa: E731
    train = [scene(name(1), {1: 0, -1: 300}), scene(name(2), {1: 0}), scene(name(3), {2: 40}), scene(name(4), {-1: 5})]
    gallery = [scene(name(10), {7: 0, 9: 250}), scene(name(11), {7: 3}), scene(name(12), {7: 6, -1: 90})]
    gallery += [scene(name(13), {7: 9}), scene(name(14), {9: 40})]
    gallery += [scene(name(20 + k), {}) for k in range(num_empty)]
    queries = [
        {"img_name": name(10), "box": gallery[0]["boxes"][1], "pid": 9},
        {"img_name": name(11), "box": gallery[1]["boxes"][0], "pid": 7},
    ]
    return train, gallery, queries


def gallery_of(item):
    return [(str(row["imname"][0]), row["idlocate"].ravel().tolist()) for row in item["Gallery"].ravel()]


def test_cuhk_images_pool_and_identities(tmp_path):
    train, gallery, queries = small_set("cuhk_sysu")
    write_annotations("cuhk_sysu", tmp_path, train, gallery, queries)
    images = loadmat(tmp_path / "annotation/Images.mat")["Img"]
    assert images.shape == (1, len(train) + len(gallery))
    assert images.dtype.names == ("imname", "nAppear", "box")
    first, empty = images[0, 0], images[0, -1]
    assert (first["imname"][0], first["nAppear"].item(), first["box"].shape) == ("s1.jpg", 2, (1, 2))
    assert first["box"].dtype.names == ("idlocate", "ishard")
    assert [b["idlocate"].tolist() for b in first["box"][0]] == [[[10, 20, 30, 90]], [[310, 20, 30, 90]]]
    assert [b["idlocate"].dtype for b in first["box"][0]] == [np.uint8, np.uint16]
    assert (empty["nAppear"].item(), empty["box"].size) == (0, 0)
    pool = loadmat(tmp_path / "annotation/pool.mat")["pool"]
    assert pool.shape == (len(gallery), 1)
    assert [str(cell[0]) for cell in pool[:, 0]] == [item["img_name"] for item in gallery]
    identities = loadmat(tmp_path / "annotation/test/train_test/Train.mat")["Train"]
    assert identities.shape == (2, 1)
    one, two = identities[0, 0], identities[1, 0]
    assert one.shape == two.shape == (1, 1)
    assert (one[0, 0]["idname"][0], one[0, 0]["nAppear"].item()) == ("p1", 2)
    assert [str(s["imname"][0]) for s in one[0, 0]["scene"][0]] == ["s1.jpg", "s2.jpg"]
    assert two[0, 0]["scene"].shape == (1, 1)
    assert two[0, 0]["scene"][0, 0]["idlocate"].tolist() == [[50, 20, 30, 90]]


def test_cuhk_protocols(tmp_path):
    train, gallery, queries = small_set("cuhk_sysu")
    write_annotations("cuhk_sysu", tmp_path, train, gallery, queries, gallery_sizes=[3, 500])
    folder = tmp_path / "annotation/test/train_test"
    protocols = {size: loadmat(folder / f"TestG{size}.mat")[f"TestG{size}"] for size in (3, 50, 100, 500)}
    assert not (folder / "TestG1000.mat").exists()
    for size, protocol in protocols.items():
        assert (protocol.shape, protocol.dtype.names) == ((1, 2), ("Query", "Gallery"))
        query = protocol[0, 1]["Query"]
        assert query.shape == (1, 1)
        assert (query[0, 0]["imname"][0], query[0, 0]["idname"][0]) == ("s11.jpg", "p7")
        assert query[0, 0]["idlocate"].tolist() == [[13, 20, 30, 90]]
        members = gallery_of(protocol[0, 1])
        assert members[:3] == [(f"s{k}.jpg", [x, 20, 30, 90]) for k, x in ((10, 10), (12, 16), (13, 19))]
        assert all(box == [] for _, box in members[3:])
        assert len({name for name, _ in members}) == len(members) == min(size, len(gallery) - 1)
        assert "s11.jpg" not in dict(members)
    assert gallery_of(protocols[50][0, 1]) == gallery_of(protocols[100][0, 1])[:50]
    assert protocols[50][0, 0]["Gallery"][0, -1]["idlocate"].shape == (1, 0)
    write_annotations("cuhk_sysu", tmp_path / "again", train, gallery, queries)
    again = loadmat(tmp_path / "again/annotation/test/train_test/TestG50.mat")["TestG50"]
    assert [gallery_of(item) for item in again[0]] == [gallery_of(item) for item in protocols[50][0]]


def test_movienet_train_is_a_cell_of_at_most_n_appearances(tmp_path):
    train = [scene(image_name("movienet_cs", k, 1), {5: k, 6: 100 + k} if k < 2 else {5: k}) for k in range(14)]
    _, gallery, queries = small_set("movienet_cs")
    for item in gallery + queries:
        item["img_name"] = "g" + item["img_name"]
    write_annotations("movienet_cs", tmp_path, train, gallery, queries)
    folder = tmp_path / "annotation/test/train_test"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["TestG2000.mat", *(f"Train_app{n}.mat" for n in (10, 30, 50, 70, 100))]
    )
    for limit, expected in ((10, 10), (30, 14)):
        cell = loadmat(folder / f"Train_app{limit}.mat")["Train"]
        assert cell.shape == (2, 3)
        name, count, scenes = cell[0]
        assert (name[0], count.item(), scenes.shape) == ("p5", expected, (expected, 3))
        assert scenes[3, 0][0, 0][0] == train[3]["img_name"]
        assert scenes[3, 1].tolist() == [[13], [20], [30], [90]]
        assert cell[1, 2].shape == (2, 3)
    assert loadmat(tmp_path / "annotation/pool_2000.mat")["pool"].shape == (len(gallery), 1)
    protocol = loadmat(folder / "TestG2000.mat")["TestG2000"]
    assert len(gallery_of(protocol[0, 0])) == len(gallery) - 1


def test_prw_files(tmp_path):
    write_annotations("prw", tmp_path, *small_set("prw"))
    frames = loadmat(tmp_path / "frame_train.mat")["img_index_train"]
    assert frames.shape == (4, 1)
    assert frames[0, 0][0] == "c1s1_000001"
    assert loadmat(tmp_path / "frame_test.mat")["img_index_test"].shape == (125, 1)
    boxes = loadmat(tmp_path / "annotations/c1s1_000001.jpg.mat")["box_new"]
    assert boxes.tolist() == [[1, 10, 20, 30, 90], [-2, 310, 20, 30, 90]]
    assert loadmat(tmp_path / "annotations/c1s1_000020.jpg.mat")["box_new"].shape == (0, 5)
    assert (tmp_path / "query_info.txt").read_bytes() == (
        b"9 260.000000 20.000000 30.000000 90.000000 c1s1_000010\r\n"
        b"7 13.000000 20.000000 30.000000 90.000000 c1s1_000011\r\n"
    )


def test_bad_input_is_named(tmp_path):
    with pytest.raises(UserError, match="cameras 1 to 6"):
        image_name("prw", 1, 7)
    train, gallery, queries = small_set("prw")
    for fmt, items, asked, message, sizes in (
        ("coco", train, queries, "unknown format 'coco'", None),
        ("prw", [*train, gallery[0]], queries, "twice: c1s1_000010.jpg", None),
        ("prw", train, [{**queries[0], "pid": 7}], "not an annotated box", None),
        ("prw", train, queries, "gallery_sizes", [50]),
        ("prw", [{**train[0], "cam_id": 2}], queries, "cam_id is 2", None),
        ("prw", [scene("c1s1_000001.jpg", {0: 5})], queries, "pids are 1 and up", None),
        ("cuhk_sysu", [scene("s1.jpg", {1: -11})], queries, "negative value", None),
    ):
        with pytest.raises(UserError, match=message):
            write_annotations(fmt, tmp_path, items, gallery, asked, sizes)
