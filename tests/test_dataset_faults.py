"""Bad annotations: loaders refuse or log each with one clear message, and the check of a dataset finds it."""

import os
import re

import numpy as np
import pytest
from scipy.io import savemat
from trees import (
    CUHK_LIKE,
    NAMES,
    PROTOCOLS,
    QUERY_FILES,
    TRAIN_FILES,
    annotation_faults,
    boxes_file,
    cut_off,
    gallery_and_query,
    load,
    rewrite,
    small_tree,
)

from datasets import DatasetError, build_dataset
from datasets.faults import ERROR, WARNING
from datasets.writers import cell, image_name

IMAGES, POOLS = "annotation/Images.mat", {"cuhk_sysu": "annotation/pool.mat", "movienet_cs": "annotation/pool_2000.mat"}
FRAME = "annotations/c1s1_000001.jpg.mat"
TRAVERSALS = ["../s1.jpg", "/etc/passwd", "a/../../s1.jpg", "..\\s1.jpg", "C:s1.jpg", "."]
LEADS_OUT = r"image name .* leads out of the image folder; correct"


def assert_found(fmt, root, split, message, severity=ERROR, caplog=None):
    """The loader raises (an error) or logs (a warning) `message`, and the check finds it once."""
    if severity == ERROR:
        with pytest.raises(DatasetError, match=message):
            load(fmt, root, split)
    else:
        load(fmt, root, split)
        assert re.search(message, caplog.text)
    found = [fault for fault in annotation_faults(fmt, root) if re.search(message, str(fault))]
    assert {fault.severity for fault in found} == {severity}
    assert all(str(fault).isprintable() for fault in found)


def test_a_sound_dataset_has_no_faults(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    assert annotation_faults(fmt, tmp_path) == []


@pytest.mark.parametrize(
    ("xywh", "problem", "severity"),
    [
        ([300.0, np.nan, 30, 90], "is not four finite", ERROR),
        ([300, 20, 1e30, 90], "of a usual size", ERROR),
        ([300, 20, -30, 90], "x 300, y 20, w -30, h 90 has a negative side", ERROR),
        ([300, 20, 0, 90], "x 300, y 20, w 0, h 90 has no area and is left out", WARNING),
    ],
)
def test_boxes(fmt, xywh, problem, severity, tmp_path, caplog):
    small_tree(fmt, tmp_path)

    def change(value):
        if fmt == "prw":
            value[1, 1:] = xywh
        else:
            value[0, 0]["box"][0, 1]["idlocate"] = np.array([xywh])

    rewrite(boxes_file(fmt, tmp_path, 1), change)
    record = "row 2" if fmt == "prw" else f"{image_name(fmt, 1, 1)}, box 2"
    message = rf"{boxes_file(fmt, tmp_path, 1)}, {record}: .*{problem}.*; correct the record"
    assert_found(fmt, tmp_path, "train", message, severity, caplog)
    if severity == WARNING:
        assert "train split: 1 faults" in caplog.text
        assert len(load(fmt, tmp_path, "train")[0]["boxes"]) == 1


FILES = [("cuhk_sysu", IMAGES, "train"), ("movienet_cs", IMAGES, "gallery"), ("prw", FRAME, "train")]
FILES += [(fmt, f"{PROTOCOLS}/{TRAIN_FILES[fmt]}", "train") for fmt in CUHK_LIKE]
FILES += [(fmt, f"{PROTOCOLS}/{QUERY_FILES[fmt]}", "query") for fmt in CUHK_LIKE]
FILES += [(fmt, POOLS[fmt], "gallery") for fmt in CUHK_LIKE] + [("prw", "frame_test.mat", "gallery")]
FILES += [("cuhk_sysu", f"{PROTOCOLS}/TestG100.mat", "galleries")]


@pytest.mark.parametrize("spoil", [os.unlink, cut_off], ids=["missing", "cut off"])
@pytest.mark.parametrize(("fmt", "name", "split"), FILES)
def test_files_missing_or_cut_off(fmt, name, split, spoil, tmp_path):
    small_tree(fmt, tmp_path)
    spoil(tmp_path / name)
    problem = "is missing; (check|choose)" if spoil is os.unlink else r"cannot be read \(.*\); copy or download"
    assert_found(fmt, tmp_path, split, f"{tmp_path / name} {problem}")


def test_other_files(tmp_path):
    small_tree("prw", tmp_path)
    for content, problem in (
        ({"box_new": np.ones((2, 4))}, "does not hold n x 5 numbers"),
        ({"other": 1}, "has no variable box_new or anno_file or anno_previous"),
    ):
        savemat(tmp_path / FRAME, content)
        assert_found("prw", tmp_path, "train", rf"{FRAME} {problem}")
    (tmp_path / FRAME).unlink()
    (tmp_path / FRAME).mkdir()
    assert_found("prw", tmp_path, "train", f"{FRAME} is not a file; check")
    (tmp_path / "query_info.txt").write_bytes(b"20 1 2 30 40 c1s1_000010\n\xff\xfe\x00 binary\n")
    assert_found("prw", tmp_path, "query", "query_info.txt, line 2: expected pid x y w h name")
    (tmp_path / "query_info.txt").unlink()
    assert_found("prw", tmp_path, "query", "query_info.txt is missing")
    with pytest.raises(DatasetError, match=r"nowhere is no folder; .*DATA_ROOT"):
        build_dataset("PRW", tmp_path / "nowhere", "train")


# Elements of the files of CUHK-SYSU, and of its protocols in both formats.
IMAGE = ("cuhk_sysu", "train", IMAGES, lambda images: images[0, 3])
FIRST_BOX = ("cuhk_sysu", "train", IMAGES, lambda images: images[0, 1]["box"][0, 0])
SCENE = ("cuhk_sysu", "train", f"{PROTOCOLS}/Train.mat", lambda train: train[1, 0]["scene"][0, 0][0, 0])
QUERY, SHOWN = (
    [(fmt, split, f"{PROTOCOLS}/{QUERY_FILES[fmt]}", element) for fmt in CUHK_LIKE]
    for split, element in (
        ("query", lambda protocol: protocol[0, 1]["Query"][0, 0]),
        ("gallery", lambda protocol: protocol[0, 1]["Gallery"][0, 3]),
    )
)
OUTSIDE = {"imname": np.array(["../s1.jpg"])}
CHANGES = [
    (IMAGE, {"imname": np.array([[7]])}, r"Images.mat, image 4: expected a name, found 7", ERROR),
    (IMAGE, OUTSIDE, f"Images.mat, image 4: {LEADS_OUT}", ERROR),
    (FIRST_BOX, {"idlocate": np.array([[1, 2, 3]])}, r"s2.jpg, box 1: the box has the numbers \[1, 2, 3\]", ERROR),
    (FIRST_BOX, {"idlocate": np.array(["abcd"])}, r"s2.jpg, box 1: expected numbers, found", ERROR),
    (SCENE, OUTSIDE, f"Train.mat, identity 2, scene 1: {LEADS_OUT}", ERROR),
    (SCENE, {"imname": np.array(["\x1b[31ma\n"])}, r"in \\x1b\[31ma\\n: left", WARNING),
    (SCENE, {"idlocate": np.array([[9, 9, 9, 9]])}, r"2: this split has no box \[9, 9, 18, 18\] .* in s1.jpg", WARNING),
    *((query, OUTSIDE, f"{query[2]}, query 2: {LEADS_OUT}", ERROR) for query in QUERY),
    *((query, {"idlocate": np.array([[5, 5, 0, 9]])}, "query 2: the box .* has no area", ERROR) for query in QUERY),
    *((shown, OUTSIDE, f"query 2, gallery image 4: {LEADS_OUT}", ERROR) for shown in SHOWN),
    *((shown, {"idlocate": np.array([[1, 2, np.nan, 4]])}, "image 4: .* y 2, w nan", ERROR) for shown in SHOWN),
]


@pytest.mark.parametrize(("element", "values", "message", "severity"), CHANGES)
def test_records(element, values, message, severity, tmp_path, caplog):
    fmt, split, file, find = element
    small_tree(fmt, tmp_path)

    def change(content):
        for field, value in values.items():
            find(content)[field] = value

    rewrite(tmp_path / file, change)
    assert_found(fmt, tmp_path, split, message, severity, caplog)


def append(path, *names):
    rewrite(path, lambda held: cell([*held.flat, *(np.array([name]) for name in names)]))


@pytest.mark.parametrize("bad", TRAVERSALS)
def test_names_in_lists_and_lines_are_not_opened(bad, tmp_path):
    for fmt in ("cuhk_sysu", "prw"):
        small_tree(fmt, tmp_path)
    append(tmp_path / POOLS["cuhk_sysu"], bad)
    append(tmp_path / "frame_train.mat", bad)
    (tmp_path / "query_info.txt").write_text(f"20 1 2 3 4 {bad}\n")
    assert_found("cuhk_sysu", tmp_path, "gallery", f"pool.mat, name 9: {LEADS_OUT}")
    assert_found("prw", tmp_path, "train", f"frame_train.mat, name 6: {LEADS_OUT}")
    if bad != ".":
        assert_found("prw", tmp_path, "query", f"query_info.txt, line 1: {LEADS_OUT}")


@pytest.mark.parametrize("fmt", CUHK_LIKE)
def test_names_without_annotations(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    append(tmp_path / POOLS[fmt], "x.jpg", "y.jpg")
    assert_found(fmt, tmp_path, "gallery", r"pool\w*.mat, x.jpg: the pool's x.jpg is not in Images.mat; correct")
    assert [fault.image for fault in annotation_faults(fmt, tmp_path)] == ["x.jpg", "y.jpg"]
    small_tree(fmt, tmp_path)
    for path in (tmp_path / PROTOCOLS).glob("TestG*.mat"):
        rewrite(path, lambda protocol: protocol[0, 1]["Gallery"][0, 3].__setitem__("imname", np.array(["x.jpg"])))
    assert_found(fmt, tmp_path, "galleries", "query 2: x.jpg is not in the gallery split")


def test_protocols_that_contradict_each_other(tmp_path):
    path = tmp_path / PROTOCOLS / "TestG100.mat"
    for change, message in (
        (lambda protocol: protocol[:, ::-1], "TestG100.mat, query 1: asks for another person than TestG50.mat"),
        (lambda protocol: protocol[:, 1:], "TestG100.mat, its queries: has 1 queries against 2 in TestG50.mat"),
        (lambda protocol: protocol["Query"], "TestG100.mat, TestG100: expected the fields"),
    ):
        small_tree("cuhk_sysu", tmp_path)
        rewrite(path, change)
        assert_found("cuhk_sysu", tmp_path, "galleries", message)
        gallery_set, query_set = gallery_and_query("cuhk_sysu", tmp_path)
        assert len(list(query_set.galleries(gallery_set, 50))) == 2


@pytest.mark.parametrize("name", ["TestG50.mat", "TestG100.mat"])
def test_a_query_at_fault_does_not_shift_the_others(name, tmp_path):
    small_tree("cuhk_sysu", tmp_path)
    box = np.array([[1, 2, 3]])
    rewrite(tmp_path / PROTOCOLS / name, lambda p: p[0, 0]["Query"][0, 0].__setitem__("idlocate", box))
    errors = [fault for fault in annotation_faults("cuhk_sysu", tmp_path) if fault.severity == ERROR]
    assert [fault.record for fault in errors] == ["query 1"]


def test_empty_splits(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    if fmt == "cuhk_sysu":
        savemat(tmp_path / PROTOCOLS / "Train.mat", {"Train": cell([])})
        (fault,) = annotation_faults("cuhk_sysu", tmp_path)
        assert (fault.severity, fault.problem) == (ERROR, "has no identities")
    if fmt == "prw":
        (tmp_path / "query_info.txt").write_text("\r\n")
    else:
        rewrite(tmp_path / PROTOCOLS / QUERY_FILES[fmt], lambda protocol: protocol[:, :0])
    assert_found(fmt, tmp_path, "query", f"{tmp_path} has an empty query split; check")


def test_rows_and_query_lines_of_prw(tmp_path):
    small_tree("prw", tmp_path)
    lines = {
        "0 1 2 3 4 c1s1_000010": "id 0: ids are",
        "-2 1 2 3 4 c1s1_000010": "asks for somebody without",
        "20 1 2 0 4 c1s1_000010": "the box x 1, y 2, w 0, h 4 has no",
        "20 1 2 3 c1s1_000010": "expected pid x y w h name",
        "20 1 2 3 4 other": "frame name 'other.jpg' has no camera",
    }
    (tmp_path / "query_info.txt").write_text("\n".join(lines))
    savemat(tmp_path / FRAME, {"box_new": np.array([[1.5, 1, 2, 3, 4], [5, 10, 20, 30, 90], [0, 1, 2, 3, 4]])})
    problems = {fault.record: fault.problem for fault in annotation_faults("prw", tmp_path)}
    for number, problem in enumerate(lines.values(), start=1):
        assert problems[f"line {number}"].startswith(problem)
    assert problems["row 1"].startswith("id 1.5: ids are whole numbers")
    assert problems["row 3"].startswith("id 0: ids are whole numbers")


def test_images_listed_twice(fmt, tmp_path, caplog):
    small_tree(fmt, tmp_path)
    if fmt == "prw":
        rewrite(tmp_path / "frame_test.mat", lambda names: np.concatenate([names, names[:1]]))
    else:
        rewrite(tmp_path / IMAGES, lambda images: np.concatenate([images, images[:, -1:]], axis=1))
        assert_found(fmt, tmp_path, "gallery", "is listed again: the last record counts", WARNING, caplog)
    assert len(load(fmt, tmp_path, "gallery")) == 8


def test_queries_never_shown_and_images_of_both_splits(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    if fmt == "prw":
        with (tmp_path / "query_info.txt").open("a") as file:
            file.write("99 1 2 30 40 c1s1_000010\n")
        append(tmp_path / "frame_train.mat", "c1s1_000010")
    else:

        def change(protocol):
            for image in protocol[0, 1]["Gallery"].flat:
                image["idlocate"] = np.zeros((1, 0))

        for path in (tmp_path / PROTOCOLS).glob("TestG*.mat"):
            rewrite(path, change)
    never, *both = sorted(annotation_faults(fmt, tmp_path), key=lambda fault: fault.problem[-6:] != "person")
    assert never.problem.endswith("never shows the person") and never.severity == WARNING
    if fmt == "prw":
        assert never.record.startswith("query 3 ")
        assert [(fault.image, fault.severity) for fault in both] == [("c1s1_000010.jpg", WARNING)]


@pytest.mark.parametrize("fmt", CUHK_LIKE)
def test_one_file_of_no_use_does_not_hide_the_others(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    usual = "TestG100.mat" if fmt == "cuhk_sysu" else "TestG2000.mat"
    (tmp_path / PROTOCOLS / TRAIN_FILES[fmt]).unlink()
    cut_off(tmp_path / IMAGES)
    cut_off(tmp_path / PROTOCOLS / usual)
    found = {os.path.basename(fault.file): fault.problem for fault in annotation_faults(fmt, tmp_path)}  # noqa: PTH119
    assert found.keys() == {"Images.mat", usual, TRAIN_FILES[fmt]}
    assert found[TRAIN_FILES[fmt]] == "is missing"


@pytest.mark.parametrize("seed", range(3))
def test_garbled_files_raise_nothing_but_dataset_errors(seed, tmp_path):
    rng = np.random.default_rng(seed)
    small_tree("cuhk_sysu", tmp_path)
    for path in sorted((tmp_path / "annotation").rglob("*.mat")):
        whole = path.read_bytes()
        for _ in range(15):
            garbled = bytearray(whole)
            for place in rng.integers(128, len(whole), rng.integers(1, 4)):
                garbled[place] = rng.integers(256)
            path.write_bytes(garbled)
            for split in ("train", "query"):
                try:
                    build_dataset(NAMES["cuhk_sysu"], tmp_path, split)
                except DatasetError as error:
                    assert str(tmp_path) in str(error)
        path.write_bytes(whole)
