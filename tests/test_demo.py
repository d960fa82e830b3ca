"""The demo: what it searches, ranks, writes and prints, with a stub in place of the network; and a real run."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_cfg

import demo
from engine import networks, searcher
from engine.searcher import ImageResult, Searcher
from models import build_model
from tools.common import INTERRUPTED, run_program
from tools.photos.drawing import BEST, FOUND
from tools.photos.search import GalleryRequest, find_threshold, rank_images
from utils.images import MAX_PIXELS, ImageError, read_photo

SIZE = 640, 480
PEOPLE = {
    90: [((10, 20, 50, 120), 0.9, (1.0, 0.0))],
    95: [((300, 20, 350, 120), 0.9, (0.0, 1.0)), ((10, 20, 50, 120), 0.9, (1.0, 0.0))],
    100: [],
    110: [((50, 60, 90, 160), 0.9, (0.9, 0.0))],
    120: [((300, 100, 340, 200), 0.8, (0.2, 0.5)), ((500, 200, 560, 400), 0.7, (0.6, 0.3))],
    130: [((50, 60, 90, 160), 0.9, (0.1, 0.9))],
}
"""Boxes, scores and embeddings, two numbers wide, of the people that an image of this grey value stands for."""


class StubSearcher(Searcher):
    """Finds the people that an image's grey value stands for; a box's embedding is that of the person in it."""

    def __init__(self, *_, max_pixels=MAX_PIXELS, interrupt_at=None, **__):
        self.read, self.max_pixels, self.interrupt_at = read_photo, max_pixels, interrupt_at

    def __call__(self, requests, on_error=None):
        for index, request in reversed(list(enumerate(requests))):  # any order
            if index == self.interrupt_at and len(requests) > 1:
                raise KeyboardInterrupt
            image = getattr(request, "image", request)
            try:
                pixels = read_photo(image) if isinstance(image, Path) else image.numpy()
            except ImageError as error:
                if on_error is None:
                    raise
                on_error(index, error)
                continue
            people = PEOPLE[round(float(pixels.mean()))]
            boxes, scores, embeddings = (np.array([row[k] for row in people], np.float32) for k in range(3))
            by_box = {box: embedding for box, _, embedding in people}
            asked = [by_box.get(tuple(box), (1.0, 0.0)) for box in getattr(request, "boxes", None) or ()]
            yield index, ImageResult(boxes.reshape(-1, 4), scores, embeddings.reshape(-1, 2), np.array(asked), [])


def grey_image(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (value,) * 3).save(path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A query and a gallery of four readable pictures, a broken one, a film; and a stub for the network."""
    grey_image(tmp_path / "query.jpg", 90)
    grey_image(tmp_path / "two people.jpg", 95)
    for name, value in (("sub/two.png", 120), ("one.jpg", 110), ("empty.tif", 100), ("sub/one.jpg", 130)):
        grey_image(tmp_path / "gallery" / name, value)
    (tmp_path / "gallery" / "film.mov").write_text("no image")
    (tmp_path / "gallery" / "zz_broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(searcher, "Searcher", StubSearcher)
    monkeypatch.setattr(networks, "open_network", lambda *_: (tiny_cfg(), None))
    return tmp_path


def run(*arguments) -> int:
    return run_program(demo.main, demo.parse_args([*map(str, arguments), "--ckpt", "c.pth"]))


def near(picture, color):
    return (np.abs(picture.astype(int) - color).sum(axis=2) < 40).any()


def test_a_folder_is_searched_ranked_and_drawn(folder, capsys):
    assert run("--query", "query.jpg", "--gallery", "gallery", "--out", "out") == 0
    results = json.loads(Path("out/results.json").read_text())
    assert results["query"] == {"file": "query.jpg", "box": [10, 20, 50, 120]} and results["complete"]
    images = {image["file"]: image for image in results["images"]}
    assert list(images) == ["gallery/empty.tif", "gallery/one.jpg", "gallery/sub/one.jpg", "gallery/sub/two.png"]
    assert images["gallery/empty.tif"]["boxes"] == []
    assert images["gallery/sub/two.png"]["similarities"] == pytest.approx([0.6, 0.2])
    assert images["gallery/sub/two.png"]["scores"] == pytest.approx([0.7, 0.8])
    ranked = results["ranked"]
    assert [(row["file"], row["match"], row["right"]) for row in ranked] == [
        ("gallery/one.jpg", True, None),
        ("gallery/sub/two.png", True, None),
        ("gallery/sub/one.jpg", False, None),
    ]
    assert ranked[1]["box"] == [500, 200, 560, 400]
    pictures = [np.asarray(Image.open(Path("out") / row["picture"])) for row in ranked]
    assert near(pictures[1][:, 480:], BEST)
    assert near(pictures[1][:, 280:400], FOUND) and not near(pictures[1][:, 280:400], BEST)
    assert not near(pictures[2], BEST), "below the threshold nobody is marked as a match"
    assert near(np.asarray(Image.open("out/overview.jpg")), BEST)
    printed = capsys.readouterr()
    assert "4 people in 4 images\nthreshold 0.500: too few people" in printed.out
    assert "2 matches in 4 images\n  1. 0.900  gallery/one.jpg" in printed.out and "3. 0.100  no match" in printed.out
    assert "1 .mov" in printed.out and "1 image could not be read:\n  gallery/zz_broken.jpg" in printed.out
    assert "matches may be wrong" in printed.out and not printed.err


def test_only_matches_and_the_first_images_are_drawn(folder):
    run("--query", "query.jpg", "--gallery", "gallery", "--out", "out", "--top-k", 1, "--threshold", 0.7)
    assert [file.name for file in Path("out/gallery").iterdir()] == ["001_one.jpg"]


def test_several_people_are_numbered_and_one_is_chosen(folder, capsys):
    asked = ["--query", "two people.jpg", "--gallery", "gallery/one.jpg", "--out", "out"]
    assert run(*asked) == 0
    printed = capsys.readouterr().out
    assert "2. 300 20 350 120\n" in printed and "run the same command again with --person N" in printed.splitlines()[-1]
    assert not Path("out/results.json").exists()
    assert near(np.asarray(Image.open("out/people.jpg")), (240, 228, 66))
    for number, similarity in ((1, 0.9), (2, 0.0)):
        assert run(*asked, "--person", number) == 0
        assert json.loads(Path("out/results.json").read_text())["ranked"][0]["similarity"] == pytest.approx(similarity)
    assert near(np.asarray(Image.open("out/people.jpg")), (240, 228, 66)), "to choose another one"
    for photo, number, reason in (("two people.jpg", 3, "only 2 people"), ("gallery/empty.tif", 1, "nobody was found")):
        assert run("--query", photo, "--gallery", "gallery", "--out", "out", "--person", number) == 1
        assert reason in capsys.readouterr().err
    assert json.loads(Path("out/results.json").read_text())["query"]["file"] == "two people.jpg"


def test_pictures_are_never_overwritten(folder, capsys):
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for out in (".", "gallery", "gallery/out", "gallery/sub"):
        assert run("--query", "query.jpg", "--gallery", "gallery", "--out", out) == 1
        assert "choose a" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_the_threshold_is_what_hardly_any_stranger_reaches():
    images = [{"similarities": [0.9, *np.linspace(0.1, 0.6, 10)]} for _ in range(3)]
    threshold, reason = find_threshold(images)
    assert 0.55 < threshold <= 0.6 and reason == "99% of the 30 people who are certainly somebody else are below 0.600"
    assert find_threshold(images[:1]) == (0.5, "too few people to derive it from")
    threshold, reason = find_threshold([{"similarities": [0.4, *[0.33] * 30]}])
    assert threshold == 0.5 and reason.endswith("are below 0.330; it is never lower")


def test_an_interrupted_search_keeps_what_it_found(folder, monkeypatch, capsys):
    asked = ["--query", "query.jpg", "--gallery", "gallery/one.jpg", "gallery/sub/one.jpg", "--out", "out"]
    for at, images in ((0, 1), (1, 1)):  # the stub searches backwards: before any image, the result above stays
        monkeypatch.setattr(searcher, "Searcher", lambda *_, at=at, **__: StubSearcher(interrupt_at=at))
        assert run(*asked) == INTERRUPTED
        results = json.loads(Path("out/results.json").read_text())
        assert not results["complete"] and len(results["images"]) == images
        printed = capsys.readouterr()
        assert ("stopped after 1 image: " in printed.out) == (at == 0) and printed.err == "stopped\n"


def test_a_result_stays_where_nothing_could_be_searched(folder, capsys):
    assert run("--query", "query.jpg", "--gallery", "gallery", "--out", "out") == 0
    before = Path("out/results.json").read_bytes()
    assert run("--query", "query.jpg", "--gallery", "gallery/zz_broken.jpg", "--out", "out") == 1
    assert "no image could be searched, nothing was written: gallery/zz_broken.jpg is not" in capsys.readouterr().err
    assert Path("out/results.json").read_bytes() == before


def test_a_box_without_a_person_is_noted(folder, capsys):
    for box, noted in (((10, 20, 50, 120), False), ((12, 22, 50, 120), False), ((400, 300, 500, 450), True)):
        assert run("--query", "query.jpg", "--gallery", "gallery", "--out", "out", "--box", *box) == 0
        assert ("the network finds nobody in the box of query.jpg" in capsys.readouterr().out) == noted


def test_nobody_similar_is_said_plainly(folder, capsys):
    assert run("--query", "query.jpg", "--gallery", "gallery/sub/one.jpg", "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "nobody is similar enough; the best has 0.100\n" in printed and "may be wrong" not in printed
    assert not near(np.asarray(Image.open("out/overview.jpg")), BEST)


def test_a_reader_that_has_gone_is_no_error(monkeypatch):
    readable, writable = os.pipe()
    os.close(readable)
    with os.fdopen(writable, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        demo.say("a line")
        demo.say("another")


def test_right_and_wrong_are_told_where_the_truth_is_known():
    people = {"scores": [0.9], "similarities": [0.8]}
    images = [{"file": name, "boxes": [[0, 0, 10, 30]], **people} for name in ("a", "b", "c")]
    truth = {Path("a"): [0, 0, 10, 31], Path("b"): [30, 0, 40, 31]}
    assert [row["right"] for row in rank_images(images, 0.5, truth)] == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--query", "query.jpg"], "--query and --gallery go together"),
        (["--query", "query.jpg", "--gallery", "query.jpg"], "no images besides the query"),
        (["--query", "query.jpg", "--gallery", "none"], "there is no none"),
        (["--query", "query.jpg", "--gallery", "gallery/film.mov"], "film.mov is a video: see python -m tools.index"),
        (["--query", "none.jpg", "--gallery", "gallery"], "there is no none.jpg: give --query the photo"),
        (["--query", "query.jpg", "--gallery", "gallery", "--box", 0.1, 0.1, 0.4, 0.9], "edge of the person in pixels"),
        (["--query", "query.jpg", "--gallery", "gallery", "--box", 10, 20, 641, 50], "640 x 480"),
        ([], "sh quickstart.sh"),
    ],
)
def test_wrong_arguments_are_named(folder, monkeypatch, arguments, reason, capsys):
    monkeypatch.setattr(demo, "QUICKSTART", folder / "quickstart")
    assert run("--out", "outputs/out", *arguments) == 1
    assert reason in capsys.readouterr().err and not Path("outputs").exists()


@pytest.mark.parametrize("option", ["--top-k", "--person"])
def test_numbers_begin_at_one(option, capsys):
    with pytest.raises(SystemExit):
        demo.parse_args([option, "0"])
    assert "1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["90", "-1.5", "nan"])
def test_a_threshold_is_a_similarity(value, capsys):
    with pytest.raises(SystemExit):
        demo.parse_args(["--threshold", value])
    assert f"{value} is not between -1 and 1" in capsys.readouterr().err


def test_without_options_the_sample_is_searched(folder, monkeypatch):
    monkeypatch.setattr(demo, "QUICKSTART", folder)
    sample = {"query": "s1.jpg", "box": [1, 2, 30, 60], "gallery": ["s2.jpg"], "truth": {"s2.jpg": [5, 5, 30, 60]}}
    (folder / "data").mkdir()
    (folder / "data" / "demo.json").write_text(json.dumps(sample))
    request, _ = demo.read_request(demo.parse_args([]))
    s1, s2 = folder / "data/s1.jpg", folder / "data/s2.jpg"
    assert request == GalleryRequest(s1, [s2], (1, 2, 30, 60), {s2: [5, 5, 30, 60]})


def test_a_checkpoint_alone_searches_in_batches(cuhk, tmp_path, capsys):
    """The whole program, with random weights and the options that the checkpoint carries."""
    cfg = tiny_cfg(MODEL__DETECTION_HEAD__SCORE_THRESH=0.3, MODEL__SEARCH_HEAD__SCORE_THRESH=0.3)
    torch.save({"model": build_model(cfg).state_dict(), "config": cfg.dump()}, tmp_path / "w.pth")
    files = sorted((cuhk / "Image" / "SSM").iterdir())
    arguments = ["--query", files[0], "--gallery", files[0].parent, "--out", tmp_path / "out", "--box", 10, 10, 60, 80]
    arguments += ["--ckpt", tmp_path / "w.pth", "--threshold", -1, "INPUT.BATCH_SIZE_TEST", 3]
    assert run_program(demo.main, demo.parse_args(list(map(str, arguments)))) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [image["file"] for image in results["images"]] == [str(file) for file in files[1:]]
    assert len(list((tmp_path / "out" / "gallery").iterdir())) == len(results["ranked"]) > 0
    assert f"{len(files) - 1} images" in capsys.readouterr().out
