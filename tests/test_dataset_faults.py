"""Bad annotations: loaders refuse them with one clear message each, and the check of a dataset finds them."""

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
    SIZE,
    TRAIN_FILES,
    boxes_file,
    change_box,
    cut_off,
    of_kind,
    read,
    rewrite,
    small_tree,
    with_images,
)

from datasets import annotation_file, build_dataset, findings
from datasets.base import check_name
from datasets.check import check_dataset
from datasets.check.annotations import Part, read_part
from datasets.matlab import MalformedError
from datasets.matlab_write import cell
from datasets.writers import image_folder, image_name


@pytest.mark.parametrize(
    ("xywh", "kind", "problem"),
    [
        ([300.0, np.nan, 30, 90], findings.BOX_NOT_FINITE, "finite"),
        ([np.inf, 20, 30, 90], findings.BOX_NOT_FINITE, "finite"),
        ([300, 20, 1e30, 90], findings.BOX_NOT_FINITE, "(usual size|too large)"),
        ([300, 20, -30, 90], findings.BOX_REVERSED, "x 300, y 20, w -30, h 90 has a negative side"),
        ([300, 110, 30, -90], findings.BOX_REVERSED, "negative side"),
    ],
)
def test_boxes_that_are_none_are_refused_and_found(fmt, xywh, kind, problem, tmp_path):
    small_tree(fmt, tmp_path)
    change_box(fmt, tmp_path, xywh)
    record = "row 2" if fmt == "prw" else f"{image_name(fmt, 1, 1)}, box 2"
    message = rf"annotation file .*{boxes_file(fmt, tmp_path, 1).name}, {record}: .*{problem}.*; correct the record"
    with pytest.raises(findings.DatasetError, match=message):
        build_dataset(NAMES[fmt], tmp_path, "train")
    (finding,) = of_kind(read(fmt, tmp_path, "train"), kind)
    assert (finding.image, finding.record) == (image_name(fmt, 1, 1), record)


def test_boxes_without_area_are_left_out_and_counted(fmt, tmp_path, caplog):
    small_tree(fmt, tmp_path)
    change_box(fmt, tmp_path, [300, 20, 0, 90])
    dataset = build_dataset(NAMES[fmt], tmp_path, "train")
    assert re.search(
        r"train split: .*mat: 1 boxes without area, the first: .*has no area; they are left out", caplog.text
    )
    assert len(dataset.annotations[0]["boxes"]) == 1
    part = read_part(Part(NAMES[fmt], str(tmp_path), {}, split="train"), lambda _: None)
    assert len(of_kind(part.found, findings.BOX_EMPTY)) == 1
    assert part.counts["boxes"] == 6  # counted as the file holds them


@pytest.mark.parametrize("spoil", [os.unlink, cut_off], ids=["missing", "cut off"])
@pytest.mark.parametrize(
    ("fmt", "name", "split"),
    [(fmt, "annotation/Images.mat", "train") for fmt in CUHK_LIKE]
    + [(fmt, f"{PROTOCOLS}/{TRAIN_FILES[fmt]}", "train") for fmt in CUHK_LIKE]
    + [(fmt, f"{PROTOCOLS}/{QUERY_FILES[fmt]}", "query") for fmt in CUHK_LIKE]
    + [("cuhk_sysu", "annotation/pool.mat", "gallery"), ("movienet_cs", "annotation/pool_2000.mat", "gallery")]
    + [("prw", "frame_test.mat", "gallery"), ("prw", "annotations/c1s1_000002.jpg.mat", "train")],
)
def test_annotation_files_missing_or_cut_off(fmt, name, split, spoil, tmp_path):
    small_tree(fmt, tmp_path)
    spoil(tmp_path / name)
    kind, error, advice = (
        (findings.MISSING_FILE, FileNotFoundError, "is missing: (check the dataset's folder|choose)")
        if spoil is os.unlink
        else (findings.UNREADABLE_FILE, findings.DatasetError, r"cannot be read \(.*\): copy or download it again")
    )
    with pytest.raises(error, match=f"annotation file {tmp_path / name} {advice}"):
        build_dataset(NAMES[fmt], tmp_path, split)
    if name == "annotation/pool_2000.mat" and spoil is os.unlink:
        return
    found = read(fmt, tmp_path, split)
    assert [finding.file for finding in of_kind(found, kind)] == [f"annotation file {tmp_path / name}"]
    # One damaged frame of PRW leaves the others.
    assert bool(of_kind(found, findings.NO_BOXES)) == (name.startswith("annotations/"))


@pytest.mark.parametrize("damage", [MemoryError(), UnboundLocalError("x"), ZeroDivisionError("x"), SystemError("x")])
def test_whatever_the_reader_raises_is_told_of_the_file(damage, tmp_path, monkeypatch):
    small_tree("cuhk_sysu", tmp_path)

    def loadmat(*_, **__):
        raise damage

    monkeypatch.setattr(annotation_file, "loadmat", loadmat)
    with pytest.raises(findings.DatasetError, match=r"Images.mat cannot be read \((x|MemoryError)\): copy"):
        build_dataset("CUHK-SYSU", tmp_path, "train")


@pytest.mark.parametrize("fmt", CUHK_LIKE)
@pytest.mark.parametrize("bad", ["../s1.jpg", "/etc/passwd", "a/../../s1.jpg", "..\\s1.jpg", "C:\\s1.jpg", ""])
def test_names_that_lead_out(fmt, bad, tmp_path):
    small_tree(fmt, tmp_path)

    def change(protocol):
        protocol[0, 1]["Query"][0, 0]["imname"] = np.array([bad])

    rewrite(tmp_path / PROTOCOLS / QUERY_FILES[fmt], change)
    with pytest.raises(
        findings.DatasetError, match=rf"{QUERY_FILES[fmt]}, query 2: (image name .* leads out|expected)"
    ):
        build_dataset(NAMES[fmt], tmp_path, "query")
    assert len(of_kind(read(fmt, tmp_path, "query"), findings.BAD_NAME)) == (bad != "")


@pytest.mark.parametrize("bad", ["../../s1.jpg", "/etc/passwd"])
def test_training_names_that_lead_out(bad, tmp_path):
    small_tree("cuhk_sysu", tmp_path)

    def change(identities):
        identities[1, 0]["scene"][0, 0][0, 0]["imname"] = np.array([bad])

    rewrite(tmp_path / PROTOCOLS / "Train.mat", change)
    with pytest.raises(findings.DatasetError, match=r"Train.mat, identity 2, scene 1: image name .* leads out"):
        build_dataset("CUHK-SYSU", tmp_path, "train")
    assert len(of_kind(read("cuhk_sysu", tmp_path, "train"), findings.BAD_NAME)) == 1


def test_a_name_with_a_zero_byte_is_none(tmp_path):
    with pytest.raises(MalformedError, match="leads out"):
        check_name("a\0b.jpg", tmp_path)


@pytest.mark.parametrize("bad", ["../c1s1_000001", "/c1s1_000001", "c1s1/../../../c1s1_000001", "..\\c1s1_000001"])
def test_frame_names_that_lead_out_are_not_opened(bad, tmp_path):
    small_tree("prw", tmp_path)
    opened = []
    rewrite(tmp_path / "frame_train.mat", lambda names: cell([*names.flat, np.array([bad])], (-1, 1)))
    with (tmp_path / "query_info.txt").open("a") as file:
        file.write(f"20 1 2 3 4 {bad}\n")
    for split, record in (("train", "name 6"), ("query", "line 3")):
        with pytest.raises(findings.DatasetError, match=rf"{record}: image name .* leads out of .*frames; correct"):
            build_dataset("PRW", tmp_path, split)
        part = Part("PRW", str(tmp_path), {}, split=split)
        assert len(of_kind(read_part(part, opened.append).found, findings.BAD_NAME)) == 1
    assert len(opened) == 7  # two lists and five frames


def test_links_out_of_the_dataset_are_not_followed(fmt, tmp_path):
    root, elsewhere = tmp_path / "data", tmp_path / "data-elsewhere"
    train, gallery, _ = small_tree(fmt, root)
    with_images(fmt, root, [*train, *gallery])
    images, first = image_folder(fmt, root), image_name(fmt, 1, 1)
    elsewhere.mkdir()
    (images / first).rename(elsewhere / first)
    (images / first).symlink_to(elsewhere / first)
    dataset = build_dataset(NAMES[fmt], root, "train")
    index = dataset.image_index[first]
    message = rf"{first} is, or lies behind, a link to .*{first}, .* not followed: .*INPUT.DATA_ROOT"
    with pytest.raises(ValueError, match=message):
        dataset[index]
    (images / first).unlink()
    (images / first).symlink_to(image_name(fmt, 2, 1))
    assert dataset[index][0].shape == (3, SIZE[1], SIZE[0])  # a link that stays inside
    images.rename(elsewhere / "images")
    images.symlink_to(elsewhere / "images", target_is_directory=True)
    with pytest.raises(ValueError, match=message.replace(f"to .*{first}", "to .*elsewhere/images/.*")):
        dataset[index]
    images.unlink()
    (elsewhere / "images").rename(images)
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    build_dataset(NAMES[fmt], tmp_path / "link", "train")[index]  # the root may be one
    file = boxes_file(fmt, root, 1)
    file.rename(elsewhere / file.name)
    file.symlink_to(elsewhere / file.name)
    with pytest.raises(findings.DatasetError, match=rf"{file.name} is, or lies behind, a link to .*INPUT.DATA_ROOT"):
        build_dataset(NAMES[fmt], root, "train")
    assert len(of_kind(read(fmt, root, "train"), findings.LINKED_FILE)) == 1


@pytest.mark.parametrize("fmt", CUHK_LIKE)
def test_names_without_annotations(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    pool = tmp_path / "annotation" / ("pool.mat" if fmt == "cuhk_sysu" else "pool_2000.mat")
    rewrite(pool, lambda names: cell([*names.flat, np.array(["x.jpg"]), np.array(["y.jpg"])], (-1, 1)))
    with pytest.raises(findings.DatasetError, match=rf"{pool.name}, x.jpg: the pool's x.jpg is not in .*; correct"):
        build_dataset(NAMES[fmt], tmp_path, "gallery")
    assert [f.image for f in of_kind(read(fmt, tmp_path, "gallery"), findings.UNKNOWN_IMAGE)] == ["x.jpg", "y.jpg"]

    def change(protocol):
        protocol[0, 1]["Gallery"][0, 3]["imname"] = np.array(["z.jpg"])

    rewrite(tmp_path / PROTOCOLS / QUERY_FILES[fmt], change)
    size = 50 if fmt == "cuhk_sysu" else 2000
    found = read_part(Part(NAMES[fmt], str(tmp_path), {}, size=size), lambda _: None).found
    (finding,) = of_kind(found, findings.UNKNOWN_IMAGE)
    assert (finding.image, finding.record) == ("z.jpg", "query 2")


@pytest.mark.parametrize("fmt", CUHK_LIKE)
def test_queries_of_unknown_images_are_refused_before_work(fmt, tmp_path):
    small_tree(fmt, tmp_path)

    def change(protocol):
        protocol[0, 1]["Query"][0, 0]["imname"] = np.array(["x.jpg"])

    for path in (tmp_path / PROTOCOLS).glob("TestG*.mat"):
        rewrite(path, change)
    gallery_set, query_set = (build_dataset(NAMES[fmt], tmp_path, split) for split in ("gallery", "query"))
    message = rf"{QUERY_FILES[fmt]}, query 2: the query's image x.jpg is not in Images.mat"
    with pytest.raises(findings.DatasetError, match=message):
        query_set.galleries(gallery_set)
    found = check_dataset(NAMES[fmt], tmp_path, with_images=False).found
    assert [(f.record, f.image) for f in of_kind(found, findings.UNKNOWN_IMAGE)] == [("query 2", "x.jpg")]


@pytest.mark.parametrize("split", ["train", "gallery"])
def test_images_of_the_other_split_are_told_from_unknown_ones(split, tmp_path):
    train, gallery, _ = small_tree("cuhk_sysu", tmp_path)
    moved = train[1] if split == "train" else gallery[3]

    def change(names):
        named = {names.flat[k][0] for k in range(names.size)} ^ {moved["img_name"]}
        return cell([np.array([name]) for name in sorted(named)], (-1, 1))

    rewrite(tmp_path / "annotation/pool.mat", change)
    (finding,) = of_kind(read("cuhk_sysu", tmp_path, split), findings.OTHER_SPLIT)
    assert moved["img_name"] in finding.problem
    assert ("is in the pool" if split == "train" else "is not in the pool") in finding.problem
    assert not of_kind(read("cuhk_sysu", tmp_path, split), findings.UNMATCHED)


def test_queries_at_fault_do_not_shift_the_others(tmp_path):
    small_tree("cuhk_sysu", tmp_path)

    def change(protocol):
        protocol[0, 0]["Query"][0, 0]["idlocate"] = np.array([[1, 2, 3]])

    for name, kept in (("TestG50.mat", 1), ("TestG100.mat", 2)):
        small_tree("cuhk_sysu", tmp_path)
        rewrite(tmp_path / PROTOCOLS / name, change)
        result = check_dataset("CUHK-SYSU", tmp_path, with_images=False)
        assert not of_kind(result.found, findings.PROTOCOLS_DIFFER)
        assert result.counts["query"]["queries"] == kept
        assert [f.record for f in result.found if f.kind.severity == "error"] == ["query 1"]


def test_protocols_of_other_lengths(tmp_path):
    small_tree("cuhk_sysu", tmp_path)
    rewrite(tmp_path / PROTOCOLS / "TestG50.mat", lambda protocol: protocol[:, :1])
    found = check_dataset("CUHK-SYSU", tmp_path, with_images=False).found
    assert [f.problem for f in of_kind(found, findings.PROTOCOLS_DIFFER)] == ["has 2 queries against 1 in TestG50.mat"]


def test_a_folder_where_a_file_belongs_is_not_missing(tmp_path):
    small_tree("cuhk_sysu", tmp_path)
    (tmp_path / PROTOCOLS / "Train.mat").unlink()
    (tmp_path / PROTOCOLS / "Train.mat").mkdir()
    with pytest.raises(findings.DatasetError, match=r"Train.mat is not a file: copy"):
        build_dataset("CUHK-SYSU", tmp_path, "train")


def test_names_in_findings_do_not_steer_the_terminal(tmp_path):
    small_tree("cuhk_sysu", tmp_path)

    def change(identities):
        identities[0, 0]["scene"][0, 0][0, 0]["imname"] = np.array(["\x1b[31ma\nerror: é.jpg"])

    rewrite(tmp_path / PROTOCOLS / "Train.mat", change)
    (finding,) = of_kind(read("cuhk_sysu", tmp_path, "train"), findings.UNKNOWN_SCENE)
    assert finding.fact.endswith(r"Images.mat does not hold \x1b[31ma\nerror: é.jpg")
    assert str(finding).isprintable()


def test_training_names_without_annotations_are_found(tmp_path, caplog):
    small_tree("cuhk_sysu", tmp_path)

    def change(identities):
        identities[1, 0]["scene"][0, 0][0, 0]["imname"] = np.array(["x.jpg"])

    rewrite(tmp_path / PROTOCOLS / "Train.mat", change)
    (finding,) = of_kind(read("cuhk_sysu", tmp_path, "train"), findings.UNKNOWN_SCENE)
    assert (finding.record, finding.image, finding.kind.severity) == ("identity 2", "x.jpg", "error")
    build_dataset("CUHK-SYSU", tmp_path, "train")
    assert "Train.mat: 1 appearances in images without annotations" in caplog.text


@pytest.mark.parametrize("fmt", CUHK_LIKE)
def test_garbled_records_leave_the_others(fmt, tmp_path):
    train, _, _ = small_tree(fmt, tmp_path)

    def change(images):
        images[0, 3]["imname"] = np.array([[7]])
        images[0, 1]["box"][0, 0]["idlocate"] = np.array([[1, 2, 3]])

    rewrite(tmp_path / "annotation/Images.mat", change)
    with pytest.raises(findings.DatasetError, match=r"Images.mat, \S+, box 1: the box has the numbers \[1, 2, 3\]"):
        build_dataset(NAMES[fmt], tmp_path, "train")
    found = read(fmt, tmp_path, "train")
    assert [finding.record for finding in of_kind(found, findings.BAD_RECORD)] == ["image 4"]
    assert len(of_kind(found, findings.BOX_NOT_FINITE)) == 1


def test_no_queries_and_empty_splits(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    if fmt == "prw":
        (tmp_path / "query_info.txt").write_text("\r\n")
    else:
        rewrite(tmp_path / PROTOCOLS / QUERY_FILES[fmt], lambda protocol: protocol[:, :0])
    with pytest.raises(findings.DatasetError, match=rf"{NAMES[fmt]} in {tmp_path} has an empty query split: check"):
        build_dataset(NAMES[fmt], tmp_path, "query")
    assert len(of_kind(read(fmt, tmp_path, "query"), findings.EMPTY_SPLIT)) == 1


def test_query_lines_and_ids(tmp_path):
    small_tree("prw", tmp_path)
    lines = ["0 1 2 3 4 c1s1_000010", "-2 1 2 3 4 c1s1_000010", "20 1 nan 3 4 c1s1_000010", "20 1 2 0 4 c1s1_000010"]
    lines += ["20 1 2 3 c1s1_000010", "20 1 2 3 4 other", "20 -2 2 30 40 c1s1_000010"]
    (tmp_path / "query_info.txt").write_text("\n".join(lines))
    found = read("prw", tmp_path, "query")
    kinds = [findings.BAD_ID] * 2 + [findings.BOX_NOT_FINITE, findings.QUERY_BOX_EMPTY] + [findings.BAD_RECORD] * 2
    assert [(finding.kind, finding.record) for finding in found] == [
        (kind, f"line {number}") for number, kind in enumerate([*kinds, findings.BOX_CLIPPED], start=1)
    ]
    (tmp_path / "query_info.txt").write_bytes(b"20 1 2 30 40 c1s1_000010\n\xff\xfe\x00 binary\n")
    with pytest.raises(findings.DatasetError, match="query_info.txt, line 2: expected pid x y w h name"):
        build_dataset("PRW", tmp_path, "query")
    savemat(
        tmp_path / "annotations/c1s1_000001.jpg.mat", {"box_new": np.array([[1.5, 1, 2, 3, 4], [5, 10, 20, 30, 90]])}
    )
    found = read("prw", tmp_path, "train")
    assert [(f.record, f.problem[:6]) for f in of_kind(found, findings.BAD_ID)] == [("row 1", "id 1.5")]


def test_notes_and_duplicates(fmt, tmp_path, caplog):
    train, gallery, _ = small_tree(fmt, tmp_path)
    found = read(fmt, tmp_path, "train")
    assert [f.image for f in of_kind(found, findings.SEEN_ONCE)] == [train[2]["img_name"]]
    empty = [] if fmt == "movienet_cs" else [train[4]["img_name"]]
    assert [f.image for f in of_kind(found, findings.NO_BOXES)] == empty
    if fmt == "prw":
        twice = tmp_path / "frame_test.mat"
        rewrite(twice, lambda names: np.concatenate([names, names[:1]]))
    else:
        twice = boxes_file(fmt, tmp_path, 1)
        rewrite(twice, lambda images: np.concatenate([images, images[:, -1:]], axis=1))
    build_dataset(NAMES[fmt], tmp_path, "gallery")
    assert f"{twice.name}: 1 images listed twice" in caplog.text
    (finding,) = of_kind(read(fmt, tmp_path, "gallery"), findings.LISTED_TWICE)
    assert finding.image.removesuffix(".jpg") in {item["img_name"].removesuffix(".jpg") for item in gallery}


def test_training_sets_without_identities(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    if fmt == "prw":
        for path in (tmp_path / "annotations").glob("*.mat"):
            rewrite(path, lambda table: np.concatenate([np.full((len(table), 1), -2.0), table[:, 1:]], axis=1))
    elif fmt == "cuhk_sysu":
        savemat(tmp_path / PROTOCOLS / "Train.mat", {"Train": cell([], (0, 1))})
    else:
        savemat(tmp_path / PROTOCOLS / "Train_app70.mat", {"Train": cell([], (0, 3))})
    kind = findings.EMPTY_SPLIT if fmt == "movienet_cs" else findings.NO_IDENTITIES
    assert len(of_kind(read(fmt, tmp_path, "train"), kind)) == 1
