"""The demo, with a stub in place of the searcher: what it asks, ranks, writes and prints; and a small real run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_cfg

import demo
from engine.gallery_search import GalleryRequest, check_box, search_gallery
from engine.searcher import ImageResult, SearchRequest
from models import build_model
from tools.common import run_program
from utils.drawing import BEST, FOUND
from utils.errors import UserError
from utils.images import MAX_PIXELS, ImageError, read_image

SIZE = 640, 480
QUERY = np.array([[1.0, 0.0]], np.float32)


class StubSearcher:
    """Finds the people that an image's grey value stands for; embeddings are two numbers wide.

    Grey g: 100 nobody, 110 one person like the query, 120 two people, the second one more like the query.
    """

    max_pixels = MAX_PIXELS
    people = {
        90: [],
        100: [],
        110: [((50, 60, 90, 160), 0.9, (0.9, 0.0))],
        120: [((300, 100, 340, 200), 0.8, (0.2, 0.5)), ((500, 200, 560, 400), 0.7, (0.6, 0.3))],
    }

    def __init__(self):
        self.queries = []

    def __call__(self, requests, on_error=None):
        for index, request in reversed(list(enumerate(requests))):  # any order
            image, boxes = (request.image, request.boxes) if isinstance(request, SearchRequest) else (request, None)
            self.queries += [boxes] if boxes else []
            try:
                pixels = image if isinstance(image, np.ndarray) else read_image(image)
            except ImageError as error:
                on_error(index, error)
                continue
            people = self.people[round(float(pixels.mean()))]
            columns = [np.array([row[k] for row in people], np.float32) for k in range(3)]
            yield index, ImageResult(columns[0].reshape(-1, 4), columns[1], columns[2].reshape(-1, 2), QUERY, [])


def grey_image(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (value,) * 3).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """A query and a gallery: two.png (two people), one.jpg (one), empty.jpg (nobody), notes.txt and a broken image."""
    grey_image(tmp_path / "query.jpg", 90)
    for name, value in (("two.png", 120), ("one.jpg", 110), ("empty.jpg", 100)):
        grey_image(tmp_path / "gallery" / name, value)
    (tmp_path / "gallery" / "notes.txt").write_text("no image")
    (tmp_path / "gallery" / "zz_broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    return tmp_path


def request_of(folder):
    gallery = demo.list_images(folder / "gallery", leave_out=folder / "query.jpg")
    return GalleryRequest(folder / "query.jpg", (10, 20, 50, 120), gallery)


def near(picture, color):
    return (np.abs(picture.astype(int) - color).sum(axis=2) < 40).any()


def test_search_writes_draws_ranks_and_reports(folder, capsys):
    searcher = StubSearcher()
    results = search_gallery(searcher, request_of(folder), folder / "out")
    assert searcher.queries == [[(10, 20, 50, 120)]]
    assert results == json.loads((folder / "out" / "results.json").read_text())
    assert results["query"] == {"file": str(folder / "query.jpg"), "box": [10, 20, 50, 120]}
    images = {Path(image["file"]).name: image for image in results["images"]}
    assert list(images) == ["empty.jpg", "one.jpg", "two.png"]
    assert images["empty.jpg"]["boxes"] == []
    assert [images[name]["best"] for name in images] == [None, 0, 1]
    assert images["two.png"]["similarities"] == pytest.approx([0.2, 0.6])
    assert images["two.png"]["scores"] == pytest.approx([0.8, 0.7])
    assert [(Path(row["file"]).name, row["box"]) for row in results["ranked"]] == [
        ("one.jpg", [50, 60, 90, 160]),
        ("two.png", [500, 200, 560, 400]),
    ]
    assert [Path(row["file"]).name for row in results["failed"]] == ["zz_broken.jpg"]
    pictures = {}
    for image in results["images"]:
        with Image.open(folder / "out" / image["picture"]) as picture:
            assert (picture.format, picture.size) == ("JPEG", SIZE)
            pictures[Path(image["file"]).name] = np.asarray(picture)
    assert not near(pictures["empty.jpg"], BEST)
    assert near(pictures["two.png"][:, 480:], BEST)
    assert near(pictures["two.png"][:, 280:400], FOUND) and not near(pictures["two.png"][:, 280:400], BEST)
    with Image.open(folder / "out" / "overview.jpg") as sheet:
        assert near(np.asarray(sheet), BEST)
    with pytest.raises(UserError, match="1 gallery images could not be read.*zz_broken.jpg"):
        demo.report(results, folder / "out")
    printed = capsys.readouterr().out
    assert "3 people in 3 gallery images" in printed and "1. 0.900" in printed
    demo.report({**results, "failed": []}, folder / "out")


def test_a_box_outside_its_picture_is_refused():
    picture = np.zeros((480, 640, 3), dtype=np.uint8)
    check_box((0, 0, 640, 480), picture, "q.jpg")
    for box in [(10, 20, 10, 50), (-1, 20, 30, 50), (10, 20, 641, 50), (10, 50, 30, 20)]:
        with pytest.raises(UserError, match="q.jpg, which is 640 x 480 pixels"):
            check_box(box, picture, "q.jpg")


def test_the_query_image_is_not_searched(folder):
    grey_image(folder / "gallery" / "query.jpg", 90)
    files = demo.list_images(folder / "gallery", leave_out=folder / "gallery" / ".." / "gallery" / "query.jpg")
    assert [file.name for file in files] == ["empty.jpg", "one.jpg", "two.png", "zz_broken.jpg"]


def test_missing_options_are_named(folder, monkeypatch):
    monkeypatch.chdir(folder)
    query, gallery = str(folder / "query.jpg"), str(folder / "gallery")
    for options, text in (
        ([], "run `bash quickstart.sh`"),
        (["--query", query, "--gallery", gallery], "--query needs --box X1 Y1 X2 Y2"),
        (["--query", query], "go together, only --query was given"),
        (["--query", query, "--box", "1", "2", "3", "4", "--gallery", query], "is not a folder"),
    ):
        with pytest.raises(UserError, match=text):
            demo.read_request(demo.parse_args(options))
    for options, text in (([], "run `bash quickstart.sh`"), (["--cfg", "x.yaml"], "--cfg and --ckpt go together")):
        with pytest.raises(UserError, match=text):
            demo.read_network(demo.parse_args(options))


def test_without_options_the_sample_is_searched(folder, monkeypatch):
    monkeypatch.chdir(folder)
    data = Path("outputs/quickstart/data")
    grey_image(data / "Image" / "s1.jpg", 90)
    sample = {"query": "Image/s1.jpg", "box": [1, 2, 30, 60], "gallery": ["Image/s2.jpg", "Image/s3.jpg"]}
    (data / "demo.json").write_text(json.dumps(sample))
    request = demo.read_request(demo.parse_args([]))
    assert request == GalleryRequest(
        data / "Image/s1.jpg", (1, 2, 30, 60), [data / "Image/s2.jpg", data / "Image/s3.jpg"]
    )


def test_a_network_is_read_and_the_gallery_searched_in_batches(cuhk, tmp_path, capsys):
    """The whole program, with random weights: every gallery image is searched and drawn."""
    cfg = tiny_cfg(MODEL__DETECTION_HEAD__SCORE_THRESH=0.3, MODEL__SEARCH_HEAD__SCORE_THRESH=0.3)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "w.pth")
    files = sorted((cuhk / "Image" / "SSM").iterdir())
    arguments = ["--cfg", tmp_path / "config.yaml", "--ckpt", tmp_path / "w.pth", "--query", files[0], "--gallery"]
    arguments += [files[0].parent, "--out", tmp_path / "out", "--box", 10, 10, 60, 80, "INPUT.BATCH_SIZE_TEST", 3]
    assert run_program(demo.main, demo.parse_args(list(map(str, arguments)))) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [image["file"] for image in results["images"]] == [str(file) for file in files[1:]]
    assert len(list((tmp_path / "out" / "gallery").iterdir())) == len(files) - 1
    assert results["ranked"] and f"{len(files) - 1} gallery images" in capsys.readouterr().out
