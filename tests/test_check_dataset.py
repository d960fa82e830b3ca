"""The check of a dataset: images at fault, the program, and decoders that die."""

import json
import os
import re
import signal

import numpy as np
import pytest
from PIL import Image
from trees import NAMES, SIZE, cut_off, rewrite, small_tree, with_images

from datasets import build_dataset
from datasets.writers import image_folder
from tools import check_dataset as tool
from tools.check_dataset import check_dataset
from tools.common import run_program
from utils.images import ImageError


def stored(image, fmt="PNG"):
    """Save `image` whatever the suffix says."""
    return lambda path: image.save(path, format=fmt)


IMAGE_FAULTS = {
    "no image file .*; check the path": os.unlink,
    r"cannot be read as an image \(.*\); copy it again": cut_off,
    "is an empty file; copy": lambda path: path.write_bytes(b""),
    "is not an image of a known kind; copy": lambda path: path.write_text("<html>not found</html>"),
    "has floating point pixels": stored(Image.fromarray(np.zeros(SIZE[::-1], np.float32)), "TIFF"),
    "is 1000 x 1001, more than 1000000 pixels": stored(Image.new("L", (1000, 1001))),
    r"\(x1, y1, x2, y2\) lies outside the 340 x 15 pixels of .*; correct": stored(Image.new("RGB", (SIZE[0], 15))),
}
FINE = [stored(Image.new(mode, SIZE)) for mode in ("L", "P", "RGBA")] + [stored(Image.new("RGB", (SIZE[0], 100)))]


def test_all_images_at_fault_are_found_in_one_pass(fmt, tmp_path):
    train, gallery, _ = small_tree(fmt, tmp_path, num_others=8)
    with_images(fmt, tmp_path, [*train, *gallery])
    # Backwards: the last hold one box each.
    names = [item["img_name"] for item in reversed([*train, *gallery]) if len(item["boxes"])]
    expected = dict(zip(IMAGE_FAULTS, names, strict=False))
    for spoil, name in zip([*IMAGE_FAULTS.values(), *FINE], names, strict=False):
        spoil(image_folder(fmt, tmp_path) / name)
    result = check_dataset(NAMES[fmt], tmp_path, workers=2, max_pixels=10**6)
    errors = {fault.image: fault for fault in result.faults if fault.severity == "error"}
    assert errors.keys() == set(expected.values())
    dataset = build_dataset(NAMES[fmt], tmp_path, "gallery", max_pixels=10**6)
    for message, name in expected.items():
        assert re.search(message, str(errors[name]))
        assert errors[name].record == name
        if name in dataset.image_index and "outside" not in message:
            with pytest.raises(ImageError, match=name):
                dataset[dataset.image_index[name]]


def run(*arguments):
    return run_program(tool.main, tool.parse_args([str(word) for word in arguments]))


def test_the_program_shows_counts_and_faults(fmt, tmp_path, capsys):
    train, gallery, _ = small_tree(fmt, tmp_path)
    with_images(fmt, tmp_path, [*train, *gallery])
    call = ["--name", NAMES[fmt], "--root", tmp_path, "--workers", 2, "--json", tmp_path / "report.json"]
    assert run(*call) == 0
    shown, report = capsys.readouterr().out, json.loads((tmp_path / "report.json").read_text())
    assert "0 errors, 0 warnings" in shown
    assert "published" not in shown
    assert not report["affected"]
    assert report["counts"]["query"]["queries"] == 2
    assert report["counts"]["train"] == {"images": 5 - (fmt == "movienet_cs"), "boxes": 6, "identities": 3}
    for item in gallery:
        (image_folder(fmt, tmp_path) / item["img_name"]).unlink()
    assert run(*call) == 1
    captured = capsys.readouterr()
    assert f"{len(gallery)} errors: check the path" in captured.out
    assert "... and 3 more" in captured.out
    assert f"error: {len(gallery)} faults of {tmp_path} would affect training or evaluation" in captured.err
    report = json.loads((tmp_path / "report.json").read_text())
    errors = {fault["image"] for fault in report["faults"] if fault["severity"] == "error"}
    assert report["affected"] and errors == {item["img_name"] for item in gallery}
    assert run(*call, "--no-images") == 0
    # What was found is shown though the report cannot be written.
    assert run("--name", NAMES[fmt], "--root", tmp_path / "nowhere", "--json", tmp_path) == 1
    shown = capsys.readouterr().out
    assert "nowhere is no folder" in shown and shown.count("not read") == 3


def test_a_default_folder_that_does_not_exist_is_said_to_come_from_an_option(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "dataset_root", lambda *_: tmp_path / "nowhere")
    assert run("--name", "PRW") == 1
    assert "below SYS_HOME_DIR (option and environment variable)" in capsys.readouterr().err


def test_a_copy_of_the_published_size_is_compared_with_it(fmt, tmp_path, monkeypatch):
    small_tree(fmt, tmp_path)
    what = next(iter(tool.PUBLISHED[NAMES[fmt]]["train"]))
    complete = check_dataset(NAMES[fmt], tmp_path, with_images=False).counts["train"][what]
    for published, warnings in ((complete, 0), (complete + 1, 1), (3 * complete, 0)):
        monkeypatch.setitem(tool.PUBLISHED, NAMES[fmt], {"train": {what: published}})
        check = check_dataset(NAMES[fmt], tmp_path, with_images=False)
        assert len(check.faults) == warnings
    monkeypatch.setitem(tool.PUBLISHED, NAMES[fmt], {"train": {what: complete + 1}})
    assert run("--name", NAMES[fmt], "--root", tmp_path, "--no-images") == 0


def test_options_are_refused_before_work(tmp_path, capsys):
    small_tree("prw", tmp_path)
    refused = [("--gallery-size", -1, "leave the option out"), ("--gallery-size", 999, "leave the option out")]
    refused += [("--show", -1, "must be 0 or more"), ("--workers", 0, "must be 1"), ("--max-pixels", 0, "must be 1")]
    for option, value, message in refused:
        assert run("--name", "PRW", "--root", tmp_path, option, value) == 1
        captured = capsys.readouterr()
        assert re.search(f"^error: {option} .*{message}", captured.err)
        assert not captured.out


def test_boxes_without_area_count_and_only_the_protocols_asked_for_are_read(tmp_path):
    small_tree("cuhk_sysu", tmp_path)
    no_area = np.array([[10, 10, 0, 5]])
    rewrite(tmp_path / "annotation/Images.mat", lambda v: v[0, 0]["box"][0, 1].__setitem__("idlocate", no_area))
    cut_off(tmp_path / "annotation/test/train_test/TestG100.mat")
    for sizes, number in (([50], 0), ([50, 100], 1), (None, 1)):
        result = check_dataset("CUHK-SYSU", tmp_path, gallery_sizes=sizes, with_images=False)
        assert (result.num_errors, result.counts["train"]["boxes"]) == (number, 6)


def killed_at_s13(path, max_pixels):
    if "s13.jpg" in path:
        os.kill(os.getpid(), signal.SIGKILL)
    return SIZE


def test_a_killed_decoder_ends_in_a_sentence(tmp_path, monkeypatch, capsys):
    """As where memory runs out."""
    train, gallery, _ = small_tree("cuhk_sysu", tmp_path)
    with_images("cuhk_sysu", tmp_path, [*train, *gallery])
    monkeypatch.setattr(tool, "_image_size", killed_at_s13)
    assert run("--name", "CUHK-SYSU", "--root", tmp_path, "--workers", 2) == 1
    shown = capsys.readouterr().out
    assert re.search(r"\d+ images were not checked, .*s\d+.jpg and on: a process that decodes them was killed", shown)
    assert "check with fewer --workers" in shown
