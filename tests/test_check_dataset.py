"""Every kind of bad input: loaders refuse it with one clear message, the check of a dataset finds all of it."""

import json
import multiprocessing
import os
import re
import signal
import struct as binary
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from trees import NAMES, PROTOCOLS, SIZE, rewrite, small_tree, with_images

from datasets import annotation_file, build_dataset, cuhk_files, findings
from datasets.base import check_name
from datasets.check import check_dataset, children, run
from datasets.check.annotations import Part, read_part
from datasets.check.children import Died, Raised, in_children
from datasets.cuhk_sysu import CUHKSYSU
from datasets.matlab import MalformedError
from datasets.matlab_write import cell, struct
from datasets.writers import FORMATS, image_folder, image_name
from tools import check_dataset as tool
from tools.common import run_program
from utils.images import ImageReader

CUHK_LIKE = ["cuhk_sysu", "movienet_cs"]
TRAIN_FILES = {"cuhk_sysu": "Train.mat", "movienet_cs": "Train_app70.mat"}
QUERY_FILES = {"cuhk_sysu": "TestG50.mat", "movienet_cs": "TestG2000.mat"}


@pytest.fixture(params=FORMATS)
def fmt(request) -> str:
    return request.param


def read(fmt, root, split):
    """The findings of a split, as the check reads it, in this process."""
    return read_part(Part(NAMES[fmt], str(root), {}, split=split), lambda _: None).found


def of_kind(found, kind):
    return [finding for finding in found if finding.kind == kind]


def boxes_file(fmt, root, number, camera=1):
    """The file that holds the boxes of image `number`."""
    return root / ("annotation/Images.mat" if fmt != "prw" else f"annotations/{image_name(fmt, number, camera)}.mat")


def change_box(fmt, root, xywh):
    """Give the second box of the first training image, somebody without identity, other numbers."""

    def change(value):
        if fmt == "prw":
            value[1, 1:] = xywh
        else:
            value[0, 0]["box"][0, 1]["idlocate"] = np.array([xywh])

    rewrite(boxes_file(fmt, root, 1), change)


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


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


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


def bomb(path):
    """A PNG of a few bytes that claims 60000 x 60000 pixels."""
    Image.new("RGB", (20, 10)).save(path, format="PNG")
    content = path.read_bytes()
    start, header = content.index(b"IHDR"), b"IHDR" + binary.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(content[:start] + header + binary.pack(">I", zlib.crc32(header)) + content[start + 21 :])


def stored(image, fmt="PNG", **options):
    """Save `image` whatever the suffix says."""
    return lambda path: image.save(path, format=fmt, **options)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


IMAGE_FAULTS = {
    "IMAGE_MISSING": os.unlink,
    "IMAGE_DAMAGED": cut_off,
    "IMAGE_EMPTY": lambda path: path.write_bytes(b""),
    "IMAGE_OTHER": lambda path: path.write_text("<html>not found</html>"),
    "IMAGE_GREY": stored(Image.new("L", SIZE, 90), "JPEG"),
    "IMAGE_PALETTE": stored(Image.new("P", SIZE)),
    "IMAGE_CMYK": stored(Image.new("CMYK", SIZE), "JPEG"),
    "IMAGE_WIDE": stored(Image.fromarray(np.zeros(SIZE[::-1], np.uint16))),
    "IMAGE_ALPHA": stored(Image.new("RGBA", SIZE)),
    "IMAGE_TURNED": stored(Image.new("RGB", SIZE), "JPEG", exif=turned()),
    "IMAGE_FLOAT": stored(Image.fromarray(np.zeros(SIZE[::-1], np.float32)), "TIFF"),
    "IMAGE_LARGE": bomb,
    "BOX_CLIPPED": stored(Image.new("RGB", (SIZE[0], 100))),
    "BOX_OUTSIDE": stored(Image.new("RGB", (SIZE[0], 15))),
}


def test_all_images_at_fault_are_found_in_one_pass(fmt, tmp_path):
    train, gallery, _ = small_tree(fmt, tmp_path, num_others=8)
    items = [item for item in [*train, *gallery] if len(item["boxes"])]
    with_images(fmt, tmp_path, [*train, *gallery])
    # Backwards: the last hold one box each.
    expected = dict(zip(IMAGE_FAULTS, [item["img_name"] for item in reversed(items)], strict=False))
    assert len(expected) == len(IMAGE_FAULTS)
    for kind, name in expected.items():
        IMAGE_FAULTS[kind](image_folder(fmt, tmp_path) / name)
    check = check_dataset(NAMES[fmt], tmp_path, workers=2)
    for kind, name in expected.items():
        found = of_kind(check.found, getattr(findings, kind))
        assert {finding.image for finding in found} == {name}, kind
        assert all(finding.kind.advice in str(finding) for finding in found)
        assert kind.startswith("BOX") or len(found) == 1
    alone = check_dataset(NAMES[fmt], tmp_path, workers=1)
    assert alone.found == check.found
    sound = {name for kind, name in expected.items() if getattr(findings, kind).severity == "note"}
    dataset = build_dataset(NAMES[fmt], tmp_path, "gallery")
    for index, annotation in enumerate(dataset.annotations):
        if annotation["img_name"] in sound:
            assert dataset[index][0].dtype.itemsize == 1  # what is a note is read
        elif annotation["img_name"] in expected.values() and annotation["img_name"] != expected["BOX_OUTSIDE"]:
            with pytest.raises(ValueError, match=annotation["img_name"]):
                dataset[index]


def check(*arguments) -> int:
    return run_program(tool.main, tool.parse_args([str(word) for word in arguments]))


def test_the_program_tells_counts_and_faults(fmt, tmp_path, capsys):
    train, gallery, _ = small_tree(fmt, tmp_path)
    with_images(fmt, tmp_path, [*train, *gallery])
    call = ["--name", NAMES[fmt], "--root", tmp_path, "--workers", 2, "--json", tmp_path / "report.json"]
    assert check(*call) == 0
    shown, report = capsys.readouterr().out, json.loads((tmp_path / "report.json").read_text())
    identities = {"cuhk_sysu": 5532, "prw": 483, "movienet_cs": 3087}[fmt]
    assert f"3 (published {identities})" in shown
    assert "right for data of your own" in shown
    assert not report["affected"]
    assert report["counts"]["query"]["queries"] == 2
    for item in gallery:
        (image_folder(fmt, tmp_path) / item["img_name"]).unlink()
    assert check(*call) == 1
    captured = capsys.readouterr()
    assert f"error: {len(gallery)} image files missing; check that the dataset was unpacked completely" in captured.out
    assert "... and 3 more" in captured.out
    assert f"error: {len(gallery)} faults of {tmp_path} affect training or evaluation" in captured.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["affected"] and report["kinds"]["image files missing"]["count"] == len(gallery)
    assert {finding["image"] for finding in report["findings"] if finding["severity"] == "error"} == {
        item["img_name"] for item in gallery
    }
    assert check(*call, "--no-images") == 0
    assert check("--name", NAMES[fmt], "--root", tmp_path / "nowhere") == 1
    assert "folders missing; unpack the dataset there, or set INPUT.DATA_ROOT" in capsys.readouterr().out


def test_queries_never_shown_and_images_of_both_splits(fmt, tmp_path):
    small_tree(fmt, tmp_path)
    if fmt == "prw":
        with (tmp_path / "query_info.txt").open("a") as file:
            file.write("99 1 2 30 40 c1s1_000010\n")
        rewrite(tmp_path / "frame_train.mat", lambda names: cell([*names.flat, np.array(["c1s1_000010"])], (-1, 1)))
    else:

        def change(protocol):
            for image in protocol[0, 1]["Gallery"].flat:
                image["idlocate"] = np.zeros((1, 0))

        for path in (tmp_path / PROTOCOLS).glob("TestG*.mat"):
            rewrite(path, change)
    found = check_dataset(NAMES[fmt], tmp_path, with_images=False).found
    records = {finding.record for finding in of_kind(found, findings.NEVER_SHOWN)}
    assert records == {"line 3" if fmt == "prw" else "query 2"}
    assert [f.image for f in of_kind(found, findings.IN_BOTH)] == (["c1s1_000010.jpg"] if fmt == "prw" else [])


def test_each_protocol_is_checked(tmp_path):
    small_tree("cuhk_sysu", tmp_path)
    cut_off(tmp_path / PROTOCOLS / "TestG100.mat")
    found = check_dataset("CUHK-SYSU", tmp_path, with_images=False).found
    assert [Path(f.file).name for f in of_kind(found, findings.UNREADABLE_FILE)] == ["TestG100.mat"]
    small_tree("cuhk_sysu", tmp_path)
    rewrite(tmp_path / PROTOCOLS / "TestG100.mat", lambda protocol: protocol[:, ::-1])
    found = check_dataset("CUHK-SYSU", tmp_path, with_images=False).found
    assert [f.record for f in of_kind(found, findings.PROTOCOLS_DIFFER)] == ["query 1"]


@pytest.mark.parametrize("fmt", CUHK_LIKE)
def test_one_file_of_no_use_does_not_hide_the_others(fmt, tmp_path, capsys):
    train, gallery, _ = small_tree(fmt, tmp_path)
    usual = "TestG100.mat" if fmt == "cuhk_sysu" else "TestG2000.mat"
    (tmp_path / PROTOCOLS / TRAIN_FILES[fmt]).unlink()
    cut_off(tmp_path / "annotation/Images.mat")
    cut_off(tmp_path / PROTOCOLS / usual)
    result = check_dataset(NAMES[fmt], tmp_path)
    told = {Path(f.file).name: f.kind for f in result.found if f.file.startswith("annotation file")}
    unreadable = dict.fromkeys(["Images.mat", usual], findings.UNREADABLE_FILE)
    assert told == unreadable | {TRAIN_FILES[fmt]: findings.MISSING_FILE}
    # Pools and protocols name the gallery's images.
    missing = {finding.image for finding in of_kind(result.found, findings.IMAGE_MISSING)}
    assert missing == {item["img_name"] for item in gallery}
    assert result.counts["train"] == result.counts["gallery"] == {}
    assert not [f for f in of_kind(result.found, findings.COUNTS_DIFFER) if "query" not in f.file]
    check("--name", NAMES[fmt], "--root", tmp_path, "--no-images")
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("train") and "0" in line]


@pytest.mark.parametrize("fmt", CUHK_LIKE)
def test_boxes_are_held_against_images_though_identities_are_missing(fmt, tmp_path):
    train, gallery, _ = small_tree(fmt, tmp_path)
    with_images(fmt, tmp_path, [*train, *gallery])
    change_box(fmt, tmp_path, [900, 20, 30, 90])
    (tmp_path / PROTOCOLS / TRAIN_FILES[fmt]).unlink()
    (finding,) = of_kind(check_dataset(NAMES[fmt], tmp_path).found, findings.BOX_OUTSIDE)
    assert finding.image == image_name(fmt, 1, 1)


@pytest.mark.parametrize("fmt", CUHK_LIKE)
def test_the_usual_protocols_must_be_there(fmt, tmp_path, capsys):
    small_tree(fmt, tmp_path)
    usual = "TestG100.mat" if fmt == "cuhk_sysu" else "TestG2000.mat"
    (tmp_path / PROTOCOLS / usual).unlink()
    found = check_dataset(NAMES[fmt], tmp_path, with_images=False).found
    assert [Path(f.file).name for f in of_kind(found, findings.MISSING_FILE)] == [usual]
    if fmt == "cuhk_sysu":
        gallery_set, query_set = (build_dataset(NAMES[fmt], tmp_path, split) for split in ("gallery", "query"))
        with pytest.raises(FileNotFoundError, match="TestG100.mat is missing"):
            query_set.galleries(gallery_set)


def test_images_at_fault_name_their_record(fmt, tmp_path):
    train, gallery, queries = small_tree(fmt, tmp_path)
    with_images(fmt, tmp_path, [*train, *gallery[1:]])
    (finding,) = of_kind(check_dataset(NAMES[fmt], tmp_path).found, findings.IMAGE_MISSING)
    name = gallery[0]["img_name"]
    record = f"named by {boxes_file(fmt, tmp_path, 10)}, {name} and 1 more"  # a query too
    assert (finding.image, finding.record) == (name, record)
    assert f"{name}, {record}: is missing; check that the dataset" in str(finding)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gallery-size", -1], "--gallery-size -1: .* leave the option out"),
        (["--gallery-size", 999], "--gallery-size 999: .* leave the option out"),
        (["--show", -1], "--show must be 0 or more, not -1"),
        (["--workers", 0], "--workers must be 1 or more, not 0"),
    ],
)
def test_options_are_refused_before_work(fmt, words, message, tmp_path, capsys, monkeypatch):
    small_tree(fmt, tmp_path)
    monkeypatch.setattr(run, "read_parts", lambda *_: pytest.fail("work began"))
    assert check("--name", NAMES[fmt], "--root", tmp_path, *words) == 1
    captured = capsys.readouterr()
    assert re.search(f"^error: {message}", captured.err)
    assert not captured.out


def test_what_was_found_is_shown_though_the_report_cannot_be_written(tmp_path, capsys):
    small_tree("cuhk_sysu", tmp_path)
    assert check("--name", "CUHK-SYSU", "--root", tmp_path, "--no-images", "--json", tmp_path) == 1
    assert "counts other than the published ones" in capsys.readouterr().out


def test_files_that_crash_the_reader_are_found_and_the_rest_is_checked(fmt, tmp_path, monkeypatch):
    train, gallery, _ = small_tree(fmt, tmp_path)
    crashing = {"prw": "c1s1_000002.jpg.mat", "cuhk_sysu": "TestG100.mat", "movienet_cs": "TestG2000.mat"}[fmt]
    loadmat = annotation_file.loadmat

    def crash(path, **options):
        if path.name == crashing:
            os._exit(139)
        return loadmat(path, **options)

    # Real files that do so are known (uncompressed, with garbled sizes), but not for every version of SciPy.
    monkeypatch.setattr(annotation_file, "loadmat", crash)
    monkeypatch.setattr(cuhk_files, "read_plain_protocol", lambda _: None)  # as of a garbled file
    monkeypatch.setattr(children, "multiprocessing", multiprocessing.get_context("fork"))
    result = check_dataset(NAMES[fmt], tmp_path, workers=2)
    assert {Path(f.file).name for f in of_kind(result.found, findings.CRASHING_FILE)} == {crashing}
    images = {finding.image for finding in of_kind(result.found, findings.IMAGE_MISSING)}
    lost = {"c1s1_000002.jpg"} if fmt == "prw" else set()
    assert images == {item["img_name"] for item in [*train, *gallery]} - lost


def test_a_killed_reader_is_not_the_dataset_s_fault(tmp_path, monkeypatch, capsys):
    """As where memory runs out for a large protocol."""
    train, gallery, _ = small_tree("cuhk_sysu", tmp_path)
    with_images("cuhk_sysu", tmp_path, [*train, *gallery])
    loadmat, inspect = annotation_file.loadmat, ImageReader.inspect

    def kill(path, **options):
        if Path(path).name in ("TestG100.mat", "s13.jpg"):
            os.kill(os.getpid(), signal.SIGKILL)
        return loadmat(path, **options)

    monkeypatch.setattr(annotation_file, "loadmat", kill)
    monkeypatch.setattr(cuhk_files, "read_plain_protocol", lambda _: None)  # as of a garbled file
    monkeypatch.setattr(ImageReader, "inspect", lambda self, path: kill(path) if "s13" in path else inspect(self, path))
    monkeypatch.setattr(children, "multiprocessing", multiprocessing.get_context("fork"))
    result = check_dataset("CUHK-SYSU", tmp_path, workers=2)
    assert {Path(f.file).name for f in of_kind(result.found, findings.KILLED)} == {"TestG100.mat", "s13.jpg"}
    assert (result.num_errors, result.num_unchecked) == (0, 2)
    monkeypatch.setattr(tool, "check_dataset", lambda *_, **__: result)
    assert check("--name", "CUHK-SYSU", "--root", tmp_path) == 1
    assert f"error: 2 files or parts of {tmp_path} not checked: see above" in capsys.readouterr().err


def test_what_the_loader_raises_is_told_of_the_part(tmp_path, monkeypatch):
    small_tree("cuhk_sysu", tmp_path)

    def fail(*_):
        raise ZeroDivisionError("as a bug would")

    monkeypatch.setattr(CUHKSYSU, "galleries", fail)
    monkeypatch.setattr(ImageReader, "inspect", fail)
    monkeypatch.setattr(children, "multiprocessing", multiprocessing.get_context("fork"))
    result = check_dataset("CUHK-SYSU", tmp_path, workers=2)
    told = of_kind(result.found, findings.NOT_READ)
    assert [finding.file for finding in told] == [f"the galleries of {size} images of CUHK-SYSU" for size in (50, 100)]
    assert all("ZeroDivisionError: as a bug would" in finding.problem for finding in told)
    assert not of_kind(result.found, findings.CRASHING_FILE)
    images = of_kind(result.found, findings.IMAGE_DAMAGED)
    assert len(images) == result.images_read
    assert "ZeroDivisionError: as a bug would" in images[0].problem
    assert result.num_unchecked == 2


def double(number, tell):
    tell(f"number {number}")
    if number == 3:
        os._exit(9)
    if number == 4:
        raise KeyError("four")
    return 2 * number


@pytest.mark.parametrize("workers", [1, 3])
def test_children_may_die(workers):
    results = dict(in_children(double, range(6), workers))
    assert results == {0: 0, 1: 2, 2: 4, 3: Died(9, "number 3"), 4: Raised("KeyError: 'four'", "number 4"), 5: 10}
    assert dict(in_children(double, [], workers)) == {}


def test_an_empty_struct_of_boxes_is_no_fault(tmp_path):
    small_tree("cuhk_sysu", tmp_path)

    def change(images):
        images[0, 0]["box"] = struct([], ("idlocate", "ishard"), (0, 0))

    rewrite(tmp_path / "annotation/Images.mat", change)
    found = read("cuhk_sysu", tmp_path, "train")
    assert len(of_kind(found, findings.NO_BOXES)) == 2
    assert not of_kind(found, findings.BAD_RECORD)
