"""The three loaders on small trees: what they read, which galleries they give, and how they answer broken files."""

import re

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat
from trees import NAMES, PROTOCOLS, gallery_and_query, rewrite, scene, small_tree, with_images, write_subsets

from datasets import SPLITS, DatasetError, build_dataset, dataset_root, writers
from datasets.annotation_file import numbers, records, text
from datasets.cuhk_sysu import CUHKSubset
from datasets.writers import cell, image_folder, struct, write_annotations


def by_name(annotations):
    return {annotation["img_name"]: annotation for annotation in annotations}


def assert_equal(read, written, pids):
    """Annotations as written, whose people have got the numbers `pids`."""
    read = by_name(read)
    assert sorted(read) == sorted(item["img_name"] for item in written)
    for item in written:
        annotation = read[item["img_name"]]
        np.testing.assert_array_equal(annotation["boxes"], item["boxes"])
        assert annotation["pids"].tolist() == [pids[pid] for pid in item["pids"].tolist()]
        assert annotation["boxes"].dtype == annotation["pids"].dtype == np.int32


def test_what_was_written_is_read(fmt, tmp_path):
    train, gallery, queries = small_tree(fmt, tmp_path)
    train_set, gallery_set, query_set = (build_dataset(NAMES[fmt], tmp_path, split) for split in SPLITS)
    # MovieNet-CS trains on the images that show an identity, the other two on all.
    kept = [item for item in train if fmt != "movienet_cs" or (item["pids"] > 0).any()]
    assert_equal(train_set.annotations, kept, {2: 1, 5: 2, 9: 3, -1: -1})
    pids = {20: 20, 30: 30, -1: -1} if fmt == "prw" else {30: 1, 20: 2, -1: -1}  # query i is identity i + 1
    assert_equal(gallery_set.annotations, gallery, pids)
    asked = [{"img_name": q["img_name"], "boxes": [q["box"]], "pids": np.array([q["pid"]])} for q in queries]
    assert_equal(query_set.annotations, asked, pids)
    assert [annotation["pids"][0] for annotation in query_set.annotations] == [pids[30], pids[20]]
    assert (train_set.num_identities, gallery_set.num_identities) == (3, 2)
    for annotation in train_set.annotations:
        assert annotation["img_path"] == str(image_folder(fmt, tmp_path) / annotation["img_name"])
        assert annotation.get("cam_id") == (1 if fmt == "prw" else None)


def test_galleries(fmt, tmp_path):
    _, gallery, queries = small_tree(fmt, tmp_path)
    gallery_set, query_set = gallery_and_query(fmt, tmp_path)
    names = [annotation["img_name"] for annotation in gallery_set.annotations]
    for size in (None, -1):
        for query, found in zip(queries, query_set.galleries(gallery_set, size), strict=True):
            others = [item for item in gallery if item["img_name"] != query["img_name"]]
            boxes = {item["img_name"]: item["boxes"][item["pids"] == query["pid"]].tolist() for item in others}
            holders = {name: box for name, box in boxes.items() if box}
            assert {names[i]: [box.tolist()] for i, box in zip(found.positives, found.boxes, strict=True)} == holders
            assert found.num_present == len(holders)
            # A protocol lists people of other queries' images only where they are not the person asked for.
            assert sorted(names[image] for image in found.images) == sorted(boxes)


def test_prw_galleries_of_other_cameras(tmp_path):
    _, gallery, _ = small_tree("prw", tmp_path)
    gallery_set, query_set = gallery_and_query("prw", tmp_path)
    expected = [item["img_name"] for item in gallery if item["cam_id"] == 2]
    for found in query_set.galleries(gallery_set, cross_camera=True):
        assert [gallery_set.annotations[image]["img_name"] for image in found.images] == expected
        assert found.num_present == 1
    with pytest.raises(ValueError, match="no gallery size 100"):
        query_set.galleries(gallery_set, 100)


@pytest.mark.parametrize(("fmt", "sizes"), [("cuhk_sysu", "50, 100"), ("movienet_cs", "2000")])
def test_gallery_sizes(fmt, sizes, tmp_path):
    _, gallery, _ = small_tree(fmt, tmp_path, num_others=120)
    gallery_set, query_set = gallery_and_query(fmt, tmp_path)
    with pytest.raises(ValueError, match=f"no gallery size 77.* has {sizes} "):
        query_set.galleries(gallery_set, 77)
    with pytest.raises(ValueError, match="does not know its cameras"):
        query_set.galleries(gallery_set, cross_camera=True)
    every = len(gallery) - 1
    for size, count in {50: 50, None: 100, -1: every}.items() if fmt == "cuhk_sysu" else [(None, every), (-1, every)]:
        assert [len(found.images) for found in query_set.galleries(gallery_set, size)] == [count, count]


def test_the_subsets_of_cuhk_sysu_have_queries_and_galleries_of_their_own(tmp_path):
    _, gallery, queries = small_tree("cuhk_sysu", tmp_path)
    write_subsets(tmp_path)
    gallery_set = build_dataset("CUHK-SYSU", tmp_path, "gallery")
    others = [(gallery[3], 0, {0: gallery[0]["boxes"][1]}), (gallery[0], 0, {1: gallery[1]["boxes"][0]})]
    others[1][2][2] = gallery[2]["boxes"][0]
    asked = [(next(item for item in gallery if item["img_name"] == q["img_name"]), q["box"]) for q in queries]
    shown = [{3: gallery[3]["boxes"][0]}, {0: gallery[0]["boxes"][0], 2: gallery[2]["boxes"][0]}]
    expected = {
        "occlusion": [(*query, boxes) for query, boxes in zip(asked, shown, strict=True)],
        "low resolution": [(item, item["boxes"][place], boxes) for item, place, boxes in others],
    }
    for subset, people in expected.items():
        query_set = CUHKSubset(tmp_path, subset)
        found = list(query_set.galleries(gallery_set))
        assert len(query_set) == len(found) == len(people)
        for query, own, (item, box, boxes) in zip(query_set.annotations, found, people, strict=True):
            assert query["img_name"] == item["img_name"] and query["boxes"].tolist() == [box.tolist()]
            names = [gallery_set.annotations[image]["img_name"] for image in own.positives]
            of_names = dict(zip(names, own.boxes.tolist(), strict=True))
            assert of_names == {gallery[image]["img_name"]: box.tolist() for image, box in boxes.items()}
            assert len(own.images) == len(gallery) - 1 and own.num_present == len(boxes)


def test_movienet_training_sets_and_pools(tmp_path, monkeypatch):
    monkeypatch.setitem(writers.SIZES, "movienet_cs", (5, 2000))
    fmt = "movienet_cs"
    train = [scene(fmt, number, 1, [(4, number)]) for number in range(1, 41)]
    gallery = [scene(fmt, number, 2, [(7, 5)] if number < 43 else []) for number in range(41, 52)]
    query = {"img_name": gallery[0]["img_name"], "box": gallery[0]["boxes"][0], "pid": 7}
    write_annotations(fmt, tmp_path, train, gallery, [query])
    for appearances, count in ((10, 10), (30, 30), (70, 40)):
        dataset = build_dataset("MovieNet-CS", tmp_path, "train", train_appearances=appearances)
        assert len(dataset) == count
    assert len(build_dataset("MovieNet-CS", tmp_path, "gallery")) == len(gallery)
    gallery_set, query_set = gallery_and_query("movienet_cs", tmp_path)
    assert len(next(query_set.galleries(gallery_set, 5)).images) == 4
    with pytest.raises(DatasetError, match=r"Train_app20.mat is missing; .* 10, 30, 50, 70, 100"):
        build_dataset("MovieNet-CS", tmp_path, "train", train_appearances=20)


def test_numbers_of_one_byte_do_not_wrap_around_and_people_of_no_box_are_left_out(tmp_path):
    small_tree("cuhk_sysu", tmp_path)
    other = struct([(np.array([[200, 10, 100, 250]], np.uint8), 0)], ("idlocate", "ishard"))
    rewrite(tmp_path / "annotation/Images.mat", lambda images: images[0, 0].__setitem__("box", other))
    dataset = build_dataset("CUHK-SYSU", tmp_path, "train")
    annotation = by_name(dataset.annotations)["s1.jpg"]
    assert (annotation["boxes"].tolist(), annotation["pids"].tolist()) == ([[200, 10, 300, 260]], [-1])
    assert dataset.num_identities == 3  # identities keep their numbers


@pytest.mark.parametrize(
    ("fmt", "file", "axis"), [("prw", "frame_test.mat", 0), ("cuhk_sysu", "annotation/Images.mat", 1)]
)
def test_images_listed_twice_count_once(fmt, file, axis, tmp_path):
    small_tree(fmt, tmp_path)
    rewrite(tmp_path / file, lambda listed: np.concatenate([listed, listed], axis))
    assert len(build_dataset(NAMES[fmt], tmp_path, "gallery")) == 8


def test_positives_after_negatives_and_images_listed_twice(tmp_path):
    small_tree("cuhk_sysu", tmp_path)

    def change(protocol):
        for item in protocol.flat:
            item["Gallery"] = np.concatenate([item["Gallery"][:, ::-1], item["Gallery"][:, :1]], axis=1)

    for size in (50, 100):
        rewrite(tmp_path / PROTOCOLS / f"TestG{size}.mat", change)
    gallery_set, query_set = gallery_and_query("cuhk_sysu", tmp_path)
    assert [(gallery_set.annotations[k]["pids"] == 2).sum() for k in range(3)] == [1, 1, 1]
    _, second = query_set.galleries(gallery_set)
    assert second.positives.tolist() == [0, 2]
    assert len(second.images) == 7
    assert second.num_present == 3  # the released evaluation counts the image for each time it is listed


def test_prw_boxes_are_clipped_after_they_have_corners(tmp_path):
    small_tree("prw", tmp_path)
    table = np.array([[5, -10.5, 20, 40.9, 100], [-2, 3, -4, 10, 20]])
    savemat(tmp_path / "annotations/c1s1_000001.jpg.mat", {"anno_file": table})
    annotation = build_dataset("PRW", tmp_path, "train").annotations[0]
    assert annotation["boxes"].tolist() == [[0, 20, 30, 120], [3, 0, 13, 16]]
    assert annotation["pids"].tolist() == [2, -1]
    (tmp_path / "query_info.txt").write_bytes(b"20 -7.25 10.5 50.5 20.75 c2s1_000012\r\n\r\n")
    query = build_dataset("PRW", tmp_path, "query").annotations[0]
    assert query["boxes"].tolist() == [[0, 10, 43, 31]]
    assert (query["img_name"], query["cam_id"], query["pids"].tolist()) == ("c2s1_000012.jpg", 2, [20])


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: cell([v]), lambda v: cell([cell([v])])])
def test_nesting_of_any_depth(wrap, tmp_path):
    fields = ("imname", "idlocate", "ishard")
    row = [np.array(["a.jpg"]), np.array([[1], [2], [3], [4]], np.uint8), 0]
    one, as_struct = cell([wrap(value) for value in row], columns=3), struct([tuple(row)], fields)
    values = {1: [one, wrap(one), as_struct, wrap(as_struct)], 2: [cell([wrap(value) for value in row * 2], columns=3)]}
    values[3] = [cell([part] * 3, columns) for part in (one, as_struct) for columns in (1, 3)]
    for count, value in ((count, value) for count, held in values.items() for value in held):
        savemat(tmp_path / "a.mat", {"x": value})
        read = [(text(name), numbers(box)) for name, box, _ in records(loadmat(tmp_path / "a.mat")["x"], fields)]
        assert read == [("a.jpg", [1, 2, 3, 4])] * count


def test_names_splits_options_and_roots(tmp_path):
    with pytest.raises(ValueError, match="'COCO': choose among CUHK-SYSU, PRW, MovieNet-CS"):
        build_dataset("COCO", tmp_path, "train")
    with pytest.raises(ValueError, match="'val': PRW has train, gallery, query"):
        build_dataset("PRW", tmp_path, "val")
    with pytest.raises(DatasetError, match=r"nowhere is no folder; .*DATA_ROOT"):
        build_dataset("PRW", tmp_path / "nowhere", "train")
    folders = {"CUHK-SYSU": "cuhk_sysu", "PRW": "prw", "MovieNet-CS": "MovieNet-PS"}
    for name, folder in folders.items():
        assert dataset_root(name, tmp_path) == tmp_path / "datasets/ps" / folder
        assert dataset_root(name, tmp_path, "/elsewhere").as_posix() == "/elsewhere"


def test_items(fmt, tmp_path):
    train, *_ = small_tree(fmt, tmp_path)
    with_images(fmt, tmp_path, train[:1], size=(120, 100))
    dataset = build_dataset(NAMES[fmt], tmp_path, "train")
    index = dataset.image_index[train[0]["img_name"]]
    image, target = dataset[index]
    assert (image.shape, image.dtype) == ((3, 100, 120), torch.uint8)
    assert image[:, 50, 60].tolist() == pytest.approx([90, 120, 60], abs=3)
    # The first box is cut to the image, the second lies outside and is of no use in training.
    assert target["boxes"].tolist() == [[10, 20, 40, 100]]
    assert target["labels"].tolist() == [2]
    assert re.search(r"\S+: \[300, 20, 330, 110\] \(.*\) lies outside the 120 x 100 pixels", *target["outside"])
    assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
    assert (target["img_name"], target["index"]) == (train[0]["img_name"], index)
    target["boxes"] += 1
    assert dataset.annotations[index]["boxes"].tolist() == [[10, 20, 40, 110], [300, 20, 330, 110]]
