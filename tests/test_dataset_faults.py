"""Bad annotations: loaders refuse or log each with one clear message, and the check of a dataset finds it."""

import os
import re
from functools import partial, reduce
from operator import getitem

import numpy as np
import pytest
from scipy.io import savemat
from trees import CUHK_LIKE, NAMES, PROTOCOLS, annotation_faults, cut_off, load, rewrite, small_tree

from datasets import DatasetError, build_dataset
from datasets.faults import ERROR, WARNING
from datasets.writers import cell, text

IMAGES, LISTED, LINES = "annotation/Images.mat", "frame_train.mat", "query_info.txt"
FRAME = "annotations/c1s1_000001.jpg.mat"
CUHK_TRAIN, G50, G100, G2000 = (f"{PROTOCOLS}/{name}.mat" for name in ("Train", "TestG50", "TestG100", "TestG2000"))
TRAIN = {"cuhk_sysu": CUHK_TRAIN, "movienet_cs": f"{PROTOCOLS}/Train_app70.mat"}
QUERY, USUAL = {"cuhk_sysu": G50, "movienet_cs": G2000}, {"cuhk_sysu": G100, "movienet_cs": G2000}
POOL = {"cuhk_sysu": "annotation/pool.mat", "movienet_cs": "annotation/pool_2000.mat"}
LEADS_OUT = "image name .* leads out of the image folder; correct"
TRAVERSALS = ["../s1.jpg", "/etc/passwd", "a/../../s1.jpg", "..\\s1.jpg", "C:s1.jpg", "."]


def content(change):
    """How a file is spoilt: `change` is made to the variable of a .mat file."""
    return partial(rewrite, change=change)


def fields(find, **values):
    """The fields of the element that `find` takes from the variable of a .mat file get other values."""

    def change(variable):
        for name, value in values.items():
            find(variable)[name] = np.array(value)

    return content(change)


def names(*added):
    return content(lambda held: cell([*held.flat, *map(text, added)]))


def lines(*written):
    return lambda path: path.write_bytes(b"\n".join(written))


def variables(**values):
    return lambda path: savemat(path, values)


def made_a_folder(path):
    path.unlink()
    path.mkdir()


def element(*places):
    """Takes an element out of nested variables, by its indices and fields."""
    return lambda variable: reduce(getitem, places, variable)


FOURTH_IMAGE, FIRST_BOX = element((0, 3)), element((0, 1), "box", (0, 0))
LAST_BOX = element((0, 0), "box", (0, 1))
SCENE = element((1, 0), "scene", (0, 0), (0, 0))
FIRST_QUERY, SECOND_QUERY = (element((0, number), "Query", (0, 0)) for number in (0, 1))
SHOWN = element((0, 1), "Gallery", (0, 3))


def shows_nobody(protocol):
    for image in protocol[0, 1]["Gallery"].flat:
        image["idlocate"] = np.zeros((1, 0))


# Format, split whose loading tells of the fault (without one, the check alone does), file, what is done to it, message.
ERRORS = [
    *(("prw", "train", LISTED, names(bad), f"{LISTED}, name 6: {LEADS_OUT}") for bad in TRAVERSALS),
    ("prw", "train", LISTED, os.unlink, f"{LISTED} is missing; check"),
    ("prw", "gallery", "frame_test.mat", cut_off, r"frame_test.mat cannot be read \(.*\); copy or download it again"),
    ("prw", "train", FRAME, os.unlink, f"{FRAME} is missing; check"),
    ("prw", "train", FRAME, cut_off, rf"{FRAME} cannot be read \(.*\); copy or download it again"),
    ("prw", "train", FRAME, made_a_folder, f"{FRAME} is not a file; check"),
    ("prw", "train", FRAME, variables(box_new=np.ones((2, 4))), f"{FRAME} does not hold n x 5 numbers"),
    ("prw", "train", FRAME, variables(other=1), f"{FRAME} has no variable box_new or anno_file or anno_previous"),
    ("prw", "train", FRAME, variables(box_new=[[1.5, 1, 2, 3, 4]]), "row 1: id 1.5: ids are whole numbers"),
    ("prw", "train", FRAME, variables(box_new=[[0, 1, 2, 3, 4]]), "row 1: id 0: ids are whole numbers"),
    ("prw", "query", LINES, os.unlink, f"{LINES} is missing"),
    ("prw", "query", LINES, lines(b"20 1 2 3 4 ../s1"), f"{LINES}, line 1: {LEADS_OUT}"),
    ("prw", "query", LINES, lines(b"20 1 2 9 9 c1s1_000010", b"\xff\x00 bad"), "line 2: expected pid x y w h name"),
    ("prw", "query", LINES, lines(b"0 1 2 3 4 c1s1_000010"), "line 1: id 0: ids are whole"),
    ("prw", "query", LINES, lines(b"-2 1 2 3 4 c1s1_000010"), "line 1: asks for somebody without"),
    ("prw", "query", LINES, lines(b"20 1 2 0 4 c1s1_000010"), "line 1: the box x 1, y 2, w 0, h 4 has no area"),
    ("prw", "query", LINES, lines(b"20 1 2 3 c1s1_000010"), "line 1: expected pid x y w h name"),
    ("prw", "query", LINES, lines(b"20 1 2 3 4 other"), "line 1: frame name 'other.jpg' has no camera"),
    ("prw", "query", LINES, lines(b"\r"), "has an empty query split; check"),
    ("cuhk_sysu", "train", IMAGES, fields(FOURTH_IMAGE, imname=[[7]]), "image 4: expected a name, found 7"),
    ("cuhk_sysu", "train", IMAGES, fields(FOURTH_IMAGE, imname=["../s1.jpg"]), f"image 4: {LEADS_OUT}"),
    (
        "cuhk_sysu",
        "train",
        IMAGES,
        fields(FIRST_BOX, idlocate=[[1, 2, 3]]),
        r"box 1: the box has the numbers \[1, 2, 3\]",
    ),
    ("cuhk_sysu", "train", IMAGES, fields(FIRST_BOX, idlocate=["abcd"]), "s2.jpg, box 1: expected numbers, found"),
    ("cuhk_sysu", "train", CUHK_TRAIN, fields(SCENE, imname=["../s1.jpg"]), f"identity 2, scene 1: {LEADS_OUT}"),
    ("cuhk_sysu", "", CUHK_TRAIN, variables(Train=cell([])), "has no identities"),
    ("cuhk_sysu", "query", G50, fields(FIRST_QUERY, idlocate=[[1, 2, 3]]), "query 1: the box has the"),
    ("cuhk_sysu", "galleries", G100, os.unlink, "TestG100.mat is missing"),
    (
        "cuhk_sysu",
        "galleries",
        G100,
        content(lambda v: v[:, ::-1]),
        "query 1: asks for another person than TestG50.mat",
    ),
    (
        "cuhk_sysu",
        "galleries",
        G100,
        content(lambda v: v[:, 1:]),
        "its queries: has 1 queries against 2 in TestG50.mat",
    ),
    ("cuhk_sysu", "galleries", G100, content(lambda v: v["Query"]), "TestG100.mat, TestG100: expected the fields"),
]
WARNINGS = [
    ("cuhk_sysu", "train", CUHK_TRAIN, fields(SCENE, imname=["\x1b[31ma\n"]), r"in \\x1b\[31ma\\n: left"),
    ("cuhk_sysu", "train", CUHK_TRAIN, fields(SCENE, idlocate=[[9] * 4]), r"has no box \[9, 9, 18, 18\] .* in s1.jpg"),
    ("prw", "", LINES, lines(b"99 1 2 30 40 c1s1_000010"), "query 1 .*never shows the person"),
    ("prw", "", LISTED, names("c1s1_000010"), "c1s1_000010.jpg"),
]
for fmt in CUHK_LIKE:
    for split, file in (("train", IMAGES), ("train", TRAIN[fmt]), ("query", QUERY[fmt]), ("gallery", POOL[fmt])):
        ERRORS += [(fmt, split, file, os.unlink, f"{file} is missing; (check|choose)")]
        ERRORS += [(fmt, split, file, cut_off, rf"{file} cannot be read \(.*\); copy or download")]
    ERRORS += [
        (fmt, "query", QUERY[fmt], fields(SECOND_QUERY, imname=["../s1.jpg"]), f"query 2: {LEADS_OUT}"),
        (fmt, "query", QUERY[fmt], fields(SECOND_QUERY, idlocate=[[5, 5, 0, 9]]), "query 2: the box .* has no area"),
        (fmt, "query", QUERY[fmt], content(lambda protocol: protocol[:, :0]), "has an empty query split; check"),
        (fmt, "gallery", QUERY[fmt], fields(SHOWN, imname=["../s1.jpg"]), f"gallery image 4: {LEADS_OUT}"),
        (fmt, "gallery", QUERY[fmt], fields(SHOWN, idlocate=[[1, 2, np.nan, 4]]), "image 4: .* y 2, w nan"),
        (fmt, "galleries", USUAL[fmt], fields(SHOWN, imname=["x.jpg"]), "2: x.jpg is not in the gallery split"),
        (fmt, "gallery", POOL[fmt], names("../s1.jpg"), f"name 9: {LEADS_OUT}"),
        (fmt, "gallery", POOL[fmt], names("x.jpg"), r"x.jpg: the pool's x.jpg is not in Images.mat; correct"),
    ]
    WARNINGS += [
        (fmt, "", USUAL[fmt], content(shows_nobody), "query 2 .*never shows the person"),
        (fmt, "gallery", IMAGES, content(lambda v: np.concatenate([v, v[:, -1:]], 1)), "listed again: the last"),
    ]
BAD_BOXES = [
    (ERRORS, [300, np.nan, 30, 90], "is not four finite.*; correct the record"),
    (ERRORS, [300, 20, 1e30, 90], "of a usual size"),
    (ERRORS, [300, 20, -30, 90], "x 300, y 20, w -30, h 90 has a negative side"),
    (WARNINGS, [300, 20, 0, 90], "x 300, y 20, w 0, h 90 has no area and is left out"),
]
for faults, box, message in BAD_BOXES:
    faults.append(("prw", "train", FRAME, variables(box_new=[[5, 9, 9, 9, 9], [-2, *box]]), f"row 2: .*{message}"))
    for fmt in CUHK_LIKE:
        faults.append((fmt, "train", IMAGES, fields(LAST_BOX, idlocate=[box]), f"box 2: .*{message}"))


def found_by_the_check(fmt, root, message):
    found = annotation_faults(fmt, root)
    assert all(str(fault).isprintable() for fault in found)
    return {fault.severity for fault in found if re.search(message, str(fault))}


@pytest.mark.parametrize(("fmt", "split", "file", "spoil", "message"), ERRORS)
def test_errors(fmt, split, file, spoil, message, tmp_path):
    small_tree(fmt, tmp_path)
    spoil(tmp_path / file)
    if split:
        with pytest.raises(DatasetError, match=message) as raised:
            load(fmt, tmp_path, split)
        assert str(tmp_path) in str(raised.value)
    assert found_by_the_check(fmt, tmp_path, message) == {ERROR}


@pytest.mark.parametrize(("fmt", "split", "file", "spoil", "message"), WARNINGS)
def test_warnings(fmt, split, file, spoil, message, tmp_path, caplog):
    small_tree(fmt, tmp_path)
    spoil(tmp_path / file)
    if split:
        load(fmt, tmp_path, split)
        assert re.search(f"{split} split: 1 faults .*{message}", caplog.text)
    assert found_by_the_check(fmt, tmp_path, message) == {WARNING}


def test_a_sound_dataset_has_no_faults(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    assert annotation_faults(fmt, tmp_path) == []


@pytest.mark.parametrize("file", [G50, G100])
def test_a_query_at_fault_does_not_shift_the_others(file, tmp_path):
    small_tree("cuhk_sysu", tmp_path)
    rewrite(tmp_path / file, lambda protocol: FIRST_QUERY(protocol).__setitem__("idlocate", np.array([[1, 2, 3]])))
    errors = [fault for fault in annotation_faults("cuhk_sysu", tmp_path) if fault.severity == ERROR]
    assert [fault.record for fault in errors] == ["query 1"]


@pytest.mark.parametrize("fmt", CUHK_LIKE)
def test_one_file_of_no_use_does_not_hide_the_others(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    for file, spoil in ((TRAIN[fmt], os.unlink), (IMAGES, cut_off), (USUAL[fmt], cut_off)):
        spoil(tmp_path / file)
    found = {fault.file for fault in annotation_faults(fmt, tmp_path)}
    assert found == {str(tmp_path / file) for file in (TRAIN[fmt], IMAGES, USUAL[fmt])}


def test_garbled_files_raise_nothing_but_dataset_errors(tmp_path):
    rng = np.random.default_rng(0)
    small_tree("cuhk_sysu", tmp_path)
    for path in sorted((tmp_path / "annotation").rglob("*.mat")):
        whole = path.read_bytes()
        for _ in range(30):
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
