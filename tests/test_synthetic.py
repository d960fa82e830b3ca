"""Synthetic datasets: what is drawn and what is written about it."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datasets import SPLITS, build_dataset
from datasets.synthetic.body import Pose
from datasets.synthetic.build import build_synthetic
from datasets.synthetic.camera import Camera, Light
from datasets.synthetic.canvas import Cloth
from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.layout import Actor, lay_out
from datasets.synthetic.render import Backdrop, compose, is_annotated, measure
from datasets.synthetic.wardrobe import draw_look
from tools import make_synthetic
from tools.common import run_program
from utils.errors import UserError

NAMES = {"cuhk_sysu": "CUHK-SYSU", "prw": "PRW", "movienet_cs": "MovieNet-CS"}
SMALL = SyntheticConfig(
    seed=3, train_identities=6, test_identities=5, cameras=3, train_images=9, gallery_images=9, queries=8, width=192,
    height=112, people=3.0, group_size=2, empty_share=0.1,
)  # fmt: skip


@pytest.fixture(scope="module", params=sorted(NAMES))
def dataset(request, tmp_path_factory) -> tuple[str, Path]:
    """Name and folder of a small dataset."""
    root = tmp_path_factory.mktemp(request.param)
    build_synthetic(dataclasses.replace(SMALL, format=request.param), root)
    return NAMES[request.param], root


def sightings(annotations) -> Counter[int]:
    return Counter(int(pid) for item in annotations for pid in item["pids"] if pid > 0)


def test_same_options_give_same_bytes_for_any_number_of_workers(tmp_path):
    config = dataclasses.replace(SMALL, format="prw", width=96, height=64, train_images=4, gallery_images=4, cameras=1)

    def drawn(name: str, seed: int, workers: int) -> dict[str, bytes]:
        root = tmp_path / name
        build_synthetic(dataclasses.replace(config, seed=seed), root, workers)
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    one, other = drawn("one", 3, 1), drawn("other", 4, 1)
    assert one == drawn("two", 3, 2)
    assert not any(one[name] == other[name] for name in one if name.endswith(".jpg") and name in other)


def test_every_format_is_read_and_keeps_the_rules(dataset):
    name, root = dataset
    train, gallery, queries = (build_dataset(name, root, split) for split in SPLITS)
    assert len(gallery) == SMALL.gallery_images
    assert name == "MovieNet-CS" or len(train) == SMALL.train_images  # it lists images with identities only
    boxes = np.concatenate([item["boxes"] for item in (*train.annotations, *gallery.annotations)])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (SMALL.width, SMALL.height)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()
    assert gallery[0][0].shape == (3, SMALL.height, SMALL.width)
    counts = sightings(train.annotations)
    assert sorted(counts) == list(range(1, SMALL.train_identities + 1))
    assert min(counts.values()) >= 2
    assert name != "PRW" or min(sightings(gallery.annotations)) > SMALL.train_identities
    assert len(queries) == SMALL.queries
    assert all(len(search.positives) >= 1 for search in queries.galleries(gallery))
    demo, shown = json.loads((root / "demo.json").read_text()), {item["img_path"]: item for item in gallery.annotations}
    query = shown[str(root / demo["query"])]
    pid = query["pids"][(query["boxes"] == demo["box"]).all(1)].item()
    assert demo["query"] not in demo["gallery"]
    items = [(path, shown[str(root / path)]) for path in demo["gallery"]]
    truth = {path: item["boxes"][item["pids"] == pid][0].tolist() for path, item in items if pid in item["pids"]}
    assert demo["truth"] == truth and 0 < len(truth) < len(items)


LIGHT = Light((1.0, 1.0, 1.0), (90, 140, 210), (200, 220, 240), 0.7, 0.4, 0.6)
CAMERA = Camera("plaza", (320, 200), 40.0, 230.0, 160.0, 2.4, 12.0, 14.0, LIGHT)


def make_actor(seed: int = 0, x: float = 0.0, z: float = 5.0, **clothes) -> Actor:
    look = dataclasses.replace(draw_look(np.random.default_rng(seed)), **clothes)
    return Actor(look, x, z, Pose(0.7, 1.0, 0.4, (0.3, 0.2)))


def draw(*actors: Actor):
    backdrop = Backdrop(CAMERA, np.full((200, 320, 3), 120, np.float32), ())
    return compose(backdrop, actors, np.random.default_rng(0))


def test_boxes_enclose_the_pixels_that_are_drawn():
    # The same person in two colours: shadows and ground are equal, so the images differ where the person is.
    def tinted(value: float) -> Actor:
        colour = (value, value, value)
        same = dict.fromkeys(("skin", "hair", "hat_colour", "inner", "shoes", "bag_colour"), colour)
        return make_actor(**same, upper=Cloth(colour), sleeves=Cloth(colour), lower=Cloth(colour), logo=False)

    dark, owners, sprites = draw(tinted(20.0))
    bright = draw(tinted(240.0))[0]
    rows, columns = np.nonzero(np.abs(bright - dark).max(2) > 90)
    boxes, visibility = measure(owners, sprites)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(boxes - expected).max() <= 1
    assert visibility.tolist() == [1.0]


def test_hidden_people_get_no_box_and_others_are_clipped_and_larger_when_near():
    people = make_actor(z=6.0, upper_kind="tee", bag="none"), make_actor(1, z=5.7, build=1.35), make_actor(x=20.0)
    boxes, visibility = measure(*draw(*people)[1:])
    assert 0.0 < visibility[0] < 0.3
    assert visibility[1:].tolist() == [1.0, 0.0]
    assert is_annotated(boxes, visibility, 0.3).tolist() == [False, True, False]
    assert is_annotated(boxes, visibility, 0.0).tolist() == [True, True, False]
    edge = CAMERA.project([(0, 0, 5.0)])[0, 0] / 230.0 * 5.0
    people = make_actor(x=-edge), make_actor(x=-1.5, z=4.0), make_actor(x=1.5, z=8.0)
    (at_edge, near, far), visibility = measure(*draw(*people)[1:])
    assert at_edge[0] == 0 and 0.25 < visibility[0] < 0.75
    assert (near[3] - near[1]) / (far[3] - far[1]) == pytest.approx(2.0, rel=0.06)
    assert near[3] > far[3]


def test_people_stand_within_the_sizes_asked_for_and_beside_obstacles():
    look = make_actor(stature=1.0).look
    actors = lay_out(CAMERA, [[look]] * 30, [], (0.3, 0.7), np.random.default_rng(0))
    heights = np.array([actor.height(CAMERA) / CAMERA.size[1] for actor in actors])
    assert 0.25 < heights.min() < heights.max() - 0.2 <= 0.5
    beside = lay_out(CAMERA, [[look]] * 2, [(0, 0, 160, 200, 0.5)], (0.3, 0.7), np.random.default_rng(5))
    assert all(actor.foot(CAMERA)[0] > 160 for actor in beside)


BAD = {"format": "coco", "cameras": 0, "group_loyalty": 1.5, "person_height": (0.7, 0.2), "train_images": 0}


@pytest.mark.parametrize("option", BAD)
def test_bad_options_are_named(option):
    with pytest.raises(UserError, match=option):
        SyntheticConfig(**{"format": "prw", option: BAD[option]})


def test_command_line(tmp_path, capsys):
    words = f"--out {tmp_path}/new --width 96 --height 64 --person-height 0.3 0.6 --train-identities 4 --cameras 2"
    words += " --test-identities 4 --train-images 6 --gallery-images 6 --group-size 2"
    arguments = make_synthetic.parse_args(words.split())
    assert run_program(make_synthetic.main, arguments) == 0
    assert "seen with their group" in capsys.readouterr().out
    assert json.loads((tmp_path / "new/synthetic.json").read_text())["config"]["person_height"] == [0.3, 0.6]
    assert run_program(make_synthetic.main, arguments) == 1
    assert "is not empty" in capsys.readouterr().err
