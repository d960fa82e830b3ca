"""The check of a dataset: images at fault, the program, files of no use, and readers that die."""

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
from trees import (
    CUHK_LIKE,
    NAMES,
    PROTOCOLS,
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

from datasets import annotation_file, build_dataset, cuhk_files, findings
from datasets.check import check_dataset, children, run
from datasets.check.children import Died, Raised, in_children
from datasets.cuhk_sysu import CUHKSYSU
from datasets.matlab_write import cell, struct
from datasets.writers import image_folder, image_name
from tools import check_dataset as tool
from tools.common import run_program
from utils.images import ImageReader


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
