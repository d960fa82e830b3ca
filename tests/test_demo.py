"""The demo, with a stub in place of the network: what it asks, ranks, writes and says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import demo
from engine.gallery_search import Request, check_box, search_gallery
from tools.common import run_program
from utils.drawing import BEST, FOUND

SIZE = 640, 480


class StubModel:
    """Finds the people that an image's grey value stands for; embeddings are two numbers wide.

    Grey g: 100 nobody, 110 one person like the query, 120 two people, the second one more like the query.
    """

    people = {
        100: [],
        110: [((50, 60, 90, 160), 0.9, (0.9, 0.0))],
        120: [((300, 100, 340, 200), 0.8, (0.2, 0.5)), ((500, 200, 560, 400), 0.7, (0.6, 0.3))],
    }

    def __init__(self):
        self.asked = []

    def query(self, images, boxes):
        self.asked.append((images[0].shape, boxes[0].tolist()))
        return [{"embeddings": torch.tensor([[1.0, 0.0]]), "context": {}}]

    def __call__(self, images):
        assert len(images) == 1
        assert 0 <= images[0].min() <= images[0].max() <= 1
        people = self.people[round(float(images[0].mean() * 255))]
        boxes, scores, embeddings = ([row[k] for row in people] for k in range(3))
        return [
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "scores": torch.tensor(scores),
                "embeddings": torch.tensor(embeddings, dtype=torch.float32).reshape(-1, 2),
            }
        ]


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
    return Request(folder / "query.jpg", (10, 20, 50, 120), gallery)


def near(picture, color):
    return (np.abs(picture.astype(int) - color).sum(axis=2) < 40).any()


def test_search_writes_ranks_and_reports(folder):
    model = StubModel()
    results = search_gallery(model, request_of(folder), folder / "out")
    assert model.asked == [((3, 480, 640), [[10, 20, 50, 120]])]
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


def test_images_beyond_the_limit_of_pixels_are_not_read(folder):
    with pytest.raises(ValueError, match=r"query.jpg is 640 x 480, more than 1000 pixels: .* INPUT.MAX_PIXELS"):
        search_gallery(StubModel(), request_of(folder), folder / "out", max_pixels=1000)


def test_pictures_show_the_best_match_and_the_others(folder):
    results = search_gallery(StubModel(), request_of(folder), folder / "out")
    pictures = {}
    for image in results["images"]:
        with Image.open(folder / "out" / image["picture"]) as picture:
            assert (picture.format, picture.size) == ("JPEG", SIZE)
            pictures[Path(image["file"]).name] = np.asarray(picture)
    assert not near(pictures["empty.jpg"], BEST)
    assert near(pictures["two.png"][:, 480:], BEST)
    assert near(pictures["two.png"][:, 280:400], FOUND)
    assert not near(pictures["two.png"][:, 280:400], BEST)
    with Image.open(folder / "out" / "overview.jpg") as sheet:
        assert near(np.asarray(sheet), BEST)


def test_overview_shows_no_more_than_top_k(folder, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "engine.gallery_search.overview", lambda *args: shown.append(args[2]) or np.zeros((9, 9, 3), "u1")
    )
    for number in (1, 5):
        search_gallery(StubModel(), request_of(folder), folder / "out", top_k=number)
    assert [[match.name for match in matches] for matches in shown] == [["one.jpg"], ["one.jpg", "two.png"]]


@pytest.mark.parametrize("box", [(10, 20, 10, 50), (-1, 20, 30, 50), (10, 20, 641, 50), (10, 50, 30, 20)])
def test_a_box_outside_its_picture_is_refused(box):
    with pytest.raises(ValueError, match="q.jpg, which is 640 x 480 pixels"):
        check_box(box, np.zeros((480, 640, 3), dtype=np.uint8), "q.jpg")
    check_box((0, 0, 640, 480), np.zeros((480, 640, 3), dtype=np.uint8), "q.jpg")


def test_the_query_image_is_not_searched(folder):
    grey_image(folder / "gallery" / "query.jpg", 90)
    files = demo.list_images(folder / "gallery", leave_out=folder / "gallery" / ".." / "gallery" / "query.jpg")
    assert [file.name for file in files] == ["empty.jpg", "one.jpg", "two.png", "zz_broken.jpg"]


def test_missing_options_are_named(folder, monkeypatch):
    monkeypatch.chdir(folder)
    query, gallery = str(folder / "query.jpg"), str(folder / "gallery")
    for options, text in (
        ([], "run `bash quickstart.sh` first"),
        (["--query", query, "--gallery", gallery], "--query needs --box X1 Y1 X2 Y2"),
        (["--query", query], "go together, only --query was given"),
        (["--query", query, "--box", "1", "2", "3", "4", "--gallery", query], "is no folder"),
    ):
        with pytest.raises(ValueError, match=text):
            demo.read_request(demo.parse_args(options))
    for options, text in (
        ([], "run `bash quickstart.sh` first"),
        (["--cfg", "x.yaml"], "--cfg and --ckpt go together"),
    ):
        with pytest.raises(ValueError, match=text):
            demo.read_network(demo.parse_args(options))


def test_without_options_the_sample_is_searched(folder, monkeypatch):
    monkeypatch.chdir(folder)
    data = Path("outputs/quickstart/data")
    grey_image(data / "Image" / "s1.jpg", 90)
    sample = {"query": "Image/s1.jpg", "box": [1, 2, 30, 60], "gallery": ["Image/s2.jpg", "Image/s3.jpg"]}
    (data / "demo.json").write_text(json.dumps(sample))
    request = demo.read_request(demo.parse_args([]))
    assert request == Request(data / "Image/s1.jpg", (1, 2, 30, 60), [data / "Image/s2.jpg", data / "Image/s3.jpg"])


def test_the_report_ends_in_an_error_where_images_failed(folder, capsys):
    results = search_gallery(StubModel(), request_of(folder), folder / "out")
    with pytest.raises(ValueError, match="1 gallery images could not be read.*zz_broken.jpg"):
        demo.report(results, folder / "out")
    shown = capsys.readouterr().out
    assert "3 people in 3 gallery images" in shown
    assert "1. 0.900" in shown
    demo.report({**results, "failed": []}, folder / "out")


def test_the_program_fails_with_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_program(demo.main, demo.parse_args([])) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "run `bash quickstart.sh` first" in error
