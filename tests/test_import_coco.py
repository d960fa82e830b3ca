"""COCO-style annotations with person ids become datasets in PRW's format."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat
from tiny import call

from datasets import build_dataset
from tools import check_dataset
from tools.import_coco import __main__ as program

WIDTH, HEIGHT = 64, 48


def image(key, name, **fields):
    return {"id": key, "file_name": name, "width": WIDTH, "height": HEIGHT} | fields


def person(image_id, who, left=10, **fields):
    return {"image_id": image_id, "bbox": [left, 5, 12, 30], "category_id": 1, "person_id": who} | fields


def write(folder, name, images, annotations, **others):
    """A file of annotations, and a grey picture for each of its images."""
    for record in images:
        path = folder / record["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(path)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]} | others
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder / name


@pytest.fixture
def street(tmp_path):
    """Files of training and gallery, named as PRW's, of two cameras. Numbers begin with 0, as in AlignPS's files."""
    train = [image(7, "c1s1_000001.jpg"), image(8, "c2s1_000001.jpg")]
    people = [person(7, 0), person(7, 3, left=30), person(8, 0), person(8, -1, left=30)]
    write(tmp_path, "train.json", train, people)
    gallery = [image(key, f"c{camera}s1_00010{key}.jpg") for key, camera in enumerate([1, 1, 2, 2])]
    people = [person(0, 5), person(1, 5), person(2, 5, left=20), person(3, 9), person(0, 6, left=30), person(1, -2)]
    write(tmp_path, "test.json", gallery, [*people, person(3, 6)])
    return tmp_path


def import_coco(folder, *options, out="out"):
    files = ["--train", folder / "train.json", "--gallery", folder / "test.json"]
    return call(program, *files, "--out", folder / out, *options)


def read(folder, split):
    return build_dataset("PRW", folder / "out", split).annotations


def test_splits_queries_and_cameras_are_prws(street, capsys):
    assert import_coco(street) == 0
    told = "2 training images with 2 identities, 4 gallery images, 4 queries (4 of them for somebody who is seen"
    assert told in capsys.readouterr().out
    train = read(street, "train")
    assert [item["img_name"] for item in train] == ["c1s1_000001.jpg", "c2s1_000001.jpg"]
    assert [item["pids"].tolist() for item in train] == [[1, 2], [1, -1]]
    assert train[0]["boxes"].tolist() == [[10, 5, 22, 35], [30, 5, 42, 35]]
    gallery = read(street, "gallery")
    assert [item["pids"].tolist() for item in gallery] == [[5, 6], [5, -1], [5], [9, 6]]
    # The first box of each identity in each camera; 9 is in one image only.
    asked = [(item["pids"][0], item["img_name"], item["boxes"][0, 0]) for item in read(street, "query")]
    names = ["c1s1_000100.jpg", "c2s1_000102.jpg", "c1s1_000100.jpg", "c2s1_000103.jpg"]
    assert asked == list(zip([5, 5, 6, 6], names, [10, 20, 30, 10], strict=True))
    assert call(check_dataset, "--name", "PRW", "--root", street / "out", "--workers", 1) == 0
    assert import_coco(street) == 1
    assert "already holds images" in capsys.readouterr().err


def test_numbers_that_readers_of_a_dataset_do_not_take_are_replaced(tmp_path):
    for split, name in (("train", "1.jpg"), ("test", "2.jpg")):
        write(tmp_path, f"{split}.json", [image(7, name)], [person(7, 2**32 + 5), person(7, 3, left=30)])
    assert import_coco(tmp_path) == 0
    assert [item["pids"].tolist() for item in read(tmp_path, "gallery")] == [[2, 1]]


def test_names_of_people_and_cameras_are_numbered(tmp_path):
    images = [image("a", "north gate/1.jpg"), image("b", "yard/1.png")]
    people = [
        {"image_id": "a", "bbox": [-4.4, 5.2, 12, 90], "attributes": {"who": "Özge"}},
        {"image_id": "b", "bbox": [10, 5, 12, 30], "attributes": {"who": "Ann"}},
        {"image_id": "b", "bbox": [70, 5, 12, 30], "attributes": {"who": "Ann"}},  # outside
        {"image_id": "b", "bbox": [30, 5, 12, 30], "attributes": {}},
    ]
    write(tmp_path, "train.json", images, people, categories=[])
    images = [image("a", "yard/2.jpg"), image("b", "north gate/2.jpg")]
    write(tmp_path, "test.json", images, [dict(people[0], image_id=key) for key in "ab"], categories=[])
    options = "--person-field", "attributes.who", "--camera-pattern", "([a-z ]+)/"
    assert import_coco(tmp_path, *options) == 0
    train, gallery = read(tmp_path, "train"), read(tmp_path, "gallery")
    assert [item["img_name"] for item in train + gallery] == [
        "c1s1_000001.jpg", "c2s1_000002.jpg", "c2s1_000003.jpg", "c1s1_000004.jpg",
    ]  # fmt: skip
    assert [item["pids"].tolist() for item in train] == [[2], [1, -1]]
    assert train[0]["boxes"].tolist() == [[0, 5, 8, 48]]
    with Image.open(tmp_path / "out/frames/c2s1_000002.jpg") as picture:
        assert picture.format == "JPEG"


def test_fields_of_cameras_and_two_folders_of_images(tmp_path):
    train = [image(1, "1.jpg", place={"camera": 3}), image(2, "2.jpg", place={"camera": 12})]
    write(tmp_path / "old", "train.json", train, [person(1, 4), person(2, 4)])
    write(tmp_path / "new", "test.json", train, [person(1, 4), person(2, 4, category_id=2)])
    for name in ("old/train.json", "new/test.json"):
        (tmp_path / name).rename(tmp_path / name.partition("/")[2])
    folders = "--images", tmp_path / "old", tmp_path / "new"
    assert import_coco(tmp_path, *folders, "--camera-field", "place.camera", "--copy") == 0
    assert [item["cam_id"] for item in read(tmp_path, "gallery")] == [3, 12]
    assert [len(item["pids"]) for item in read(tmp_path, "gallery")] == [1, 0]  # category 2 is something else
    assert not (tmp_path / "out/frames/c3s1_000001.jpg").samefile(tmp_path / "old/1.jpg")


def test_cameras_are_in_names_not_in_folders(tmp_path):
    write(tmp_path, "train.json", [image(1, "c9s/c2s1_000151.jpg"), image(2, "c9s/street.jpg")], [person(1, 1)])
    write(tmp_path, "test.json", [image(1, "frames/c3s1_000151.jpg")], [person(1, 1)])
    assert import_coco(tmp_path) == 0
    assert [item["cam_id"] for item in read(tmp_path, "train") + read(tmp_path, "gallery")] == [2, 1, 3]


@pytest.mark.parametrize("pattern", [r"kamera(\d+)", r"cam(\d+)|north(\d+)", r"cam(\d*)|x"])
def test_an_image_without_the_camera_pattern_is_named(tmp_path, capsys, pattern):
    write(tmp_path, "train.json", [image(1, "cam3/x.jpg"), image(2, "north4/x.jpg")], [person(1, 1)])
    write(tmp_path, "test.json", [image(1, "cam3/y.jpg")], [person(1, 1)])
    assert import_coco(tmp_path, "--camera-pattern", pattern) == 1
    told = capsys.readouterr().err
    assert f"--camera-pattern {pattern!r} finds no camera" in told and re.search("(cam3|north4)/x.jpg", told)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["c1s1_000002.jpg", "foo.jpg"], ["c1s1_000001.jpg", "c1s1_000002.jpg", "c1s1_000003.jpg"]),
        (["a/c1s2_7.jpg", "b/c1s2_7.png"], ["c1s1_000001.jpg", "c1s1_000002.jpg", "c1s1_000003.jpg"]),
        (["a/c1s2_7.jpg", "b/c2s2_7.png"], ["c1s2_7.jpg", "c2s2_7.jpg", "c1s1_000009.jpg"]),
    ],
)
def test_names_are_kept_where_all_can_be(tmp_path, names, expected):
    write(tmp_path, "train.json", [image(key, name) for key, name in enumerate(names)], [person(0, 1)])
    write(tmp_path, "test.json", [image(1, "c1s1_000009.jpg")], [person(1, 1)])
    assert import_coco(tmp_path) == 0
    assert [item["img_name"] for item in read(tmp_path, "train") + read(tmp_path, "gallery")] == expected


FAULTS = {
    "no JSON": ("{", "train.json: is not a JSON file"),
    "a list": ([], "train.json: is not in COCO's format: images is not a list"),
    "no id": ({"images": [{"file_name": "x"}]}, "image 1 of the list: it needs an id and a file_name"),
    "id twice": ({"images": [image(7, "c1s1_000001.jpg")] * 2}, "image 2 of the list: another image has its id, 7"),
    "no file": ({"images": [image(7, "a.jpg")]}, "no image file"),
    "size": ({"images": [image(7, "c1s1_000001.jpg", width=99)]}, "it says 99 x 48, and .* has 64 x 48"),
    "image id": ({"annotations": [person(1, 1)]}, "annotation 1 of the list: no image has the id 1, its image_id"),
    "box": ({"annotations": [person(7, 1, bbox=[1, 2, 3])]}, r"bbox is \[1, 2, 3\], not four numbers"),
    "nan": ({"annotations": [person(7, 1, bbox=[1, 2, 3, np.nan])]}, "bbox is .*nan.*, not four numbers"),
    "area": ({"annotations": [person(7, 1, bbox=[1, 2, 0, 9])]}, r"the box \[1, 2, 0, 9\] has no area"),
    "person": ({"annotations": [person(7, 1.5)]}, "person_id is 1.5, not a whole number or a name"),
    "no field": ({"annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4], "track": 1, "category_id": 1}]},
                 "has the field person_id.*--person-field, of bbox, category_id, image_id, track"),
    "category": ({"categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}]}, "--category, of car, dog"),
    "twice": ({"images": [image(7, "c1s1_000100.jpg")], "annotations": []}, "c1s1_000100.jpg comes twice"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named(street, capsys, fault):
    changed, message = FAULTS[fault]
    file = street / "train.json"
    if isinstance(changed, dict):
        changed = json.loads(file.read_text(encoding="utf-8")) | changed
    file.write_text(changed if isinstance(changed, str) else json.dumps(changed), encoding="utf-8")
    assert import_coco(street) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(message, told), told
    assert not (street / "out").exists()


def test_arguments_that_cannot_be(street, capsys):
    assert import_coco(street, "--camera-field", "camera") == 1
    assert "camera is None, not a number or name of a camera: see --camera-field" in capsys.readouterr().err
    assert import_coco(street, "--images", street, street, street) == 1
    assert "--images names 3 folders" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        import_coco(street, "--camera-pattern", "cam.*")
    assert "has no group in brackets" in capsys.readouterr().err


def test_prw(shared_dir, tmp_path):
    """PRW's own annotations, published in this form: counts, boxes and ids as in the dataset; black pictures."""
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.new("RGB", (1920, 1080)).save(folder / "black.jpg")
    truth = {}
    for split in ("train", "test"):
        content = json.loads((shared_dir / f"real/prw/{split}_pid.json").read_text())
        content["images"] = content["images"][:150]
        kept = {record["id"]: record["file_name"] for record in content["images"]}
        content["annotations"] = [record for record in content["annotations"] if record["image_id"] in kept]
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        for name in kept.values():
            (folder / name).hardlink_to(folder / "black.jpg")
            truth[name] = []
        for record in content["annotations"]:
            shift = split == "train" and record["person_id"] >= 0
            truth[kept[record["image_id"]]].append([record["person_id"] + shift, *record["bbox"]])
    assert import_coco(tmp_path, "--images", folder) == 0
    for name, rows in truth.items():
        table = loadmat(tmp_path / f"out/annotations/{name}.mat")["box_new"]
        rows = np.array(rows).reshape(-1, 5)
        expected = np.where(rows[:, 0] < 0, -2, rows[:, 0])
        assert table[:, 0].tolist() == expected.tolist()
        inside = (rows[:, 1:3] >= 0).all(1) & (rows[:, 1:3] + rows[:, 3:] <= (1920, 1080)).all(1)
        assert np.array_equal(table[inside, 1:], rows[inside, 1:])
