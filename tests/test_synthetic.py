"""Synthetic datasets: what is drawn and what is written about it."""

import dataclasses
import json
from collections import Counter

import cv2
import numpy as np
import pytest

from datasets import build_dataset
from datasets.synthetic.build import build_synthetic, plan_dataset
from datasets.synthetic.camera import Camera, Light
from datasets.synthetic.canvas import Cloth
from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.layout import Place, lay_out
from datasets.synthetic.pose import Pose
from datasets.synthetic.render import Actor, Backdrop, compose, is_annotated, measure
from datasets.synthetic.wardrobe import draw_look
from tools import make_synthetic
from tools.common import run_program

NAMES = {"cuhk_sysu": "CUHK-SYSU", "prw": "PRW", "movienet_cs": "MovieNet-CS"}
SMALL = SyntheticConfig(
    seed=3,
    train_identities=6,
    test_identities=5,
    cameras=3,
    train_images=9,
    gallery_images=9,
    queries=8,
    width=192,
    height=112,
    people=3.0,
    group_size=2,
    empty_share=0.1,
)


@pytest.fixture(scope="module", params=sorted(NAMES))
def dataset(request, tmp_path_factory):
    """Format and folder of a small dataset."""
    root = tmp_path_factory.mktemp(request.param)
    build_synthetic(dataclasses.replace(SMALL, format=request.param), root)
    return request.param, root


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def sightings(annotations):
    return Counter(int(pid) for item in annotations for pid in item["pids"] if pid > 0)


def test_same_options_give_same_bytes_whoever_draws(tmp_path):
    config = dataclasses.replace(SMALL, format="prw", width=128, height=80)
    build_synthetic(config, tmp_path / "one", workers=1)
    build_synthetic(config, tmp_path / "two", workers=2)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    build_synthetic(dataclasses.replace(config, seed=4), tmp_path / "other")
    other = contents(tmp_path / "other")
    assert not any(one[name] == other[name] for name in one if name.endswith(".jpg") and name in other)


def test_every_format_is_read_and_keeps_the_rules(dataset):
    fmt, root = dataset
    train, gallery, queries = (build_dataset(NAMES[fmt], root, split) for split in ("train", "gallery", "query"))
    assert len(gallery) == SMALL.gallery_images
    assert fmt == "movienet_cs" or len(train) == SMALL.train_images  # MovieNet-CS lists images with identities alone
    for item in (*train.annotations, *gallery.annotations):
        boxes = item["boxes"]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= (SMALL.width, SMALL.height)).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()
    assert cv2.imread(gallery.annotations[0]["img_path"]).shape == (SMALL.height, SMALL.width, 3)
    counts = sightings(train.annotations)
    assert sorted(counts) == list(range(1, SMALL.train_identities + 1))
    assert min(counts.values()) >= 2
    assert len(queries) == SMALL.queries


def test_queries_are_found_elsewhere(dataset):
    fmt, root = dataset
    gallery, queries = (build_dataset(NAMES[fmt], root, split) for split in ("gallery", "query"))
    for query, search in zip(queries.annotations, queries.galleries(gallery), strict=True):
        names = [gallery.annotations[index]["img_name"] for index in search.images]
        assert query["img_name"] not in names
        assert len(search.positives) >= 1


def test_demo_names_images_that_show_the_person(dataset):
    fmt, root = dataset
    demo = json.loads((root / "demo.json").read_text())
    gallery = {item["img_path"]: item for item in build_dataset(NAMES[fmt], root, "gallery").annotations}
    query = gallery[str(root / demo["query"])]
    pid = query["pids"][(query["boxes"] == demo["box"]).all(1)].item()
    shown = [pid in gallery[str(root / name)]["pids"] for name in demo["gallery"]]
    assert any(shown)
    assert demo["query"] not in demo["gallery"]


def test_test_identities_are_not_training_identities(tmp_path):
    build_synthetic(dataclasses.replace(SMALL, format="prw", width=96, height=64), tmp_path)
    gallery = sightings(build_dataset("PRW", tmp_path, "gallery").annotations)
    assert min(gallery) > SMALL.train_identities
    populations, _ = plan_dataset(SMALL)
    assert not set(populations["train"].looks) & set(populations["gallery"].looks)


def make_camera(size=(320, 200)):
    light = Light((1.0, 1.0, 1.0), (90, 140, 210), (200, 220, 240), 0.7, 0.4, 0.6)
    return Camera(1, "plaza", size, 40.0, 230.0, 160.0, 2.4, 12.0, 14.0, light)


def make_actor(seed=0, x=0.0, z=5.0, **clothes):
    look = dataclasses.replace(draw_look(np.random.default_rng(seed)), **clothes)
    return Actor(look, Place(x, z, Pose(0.7, 1.0, 0.4, (0.3, 0.2))))


def draw(*actors):
    backdrop = Backdrop(make_camera(), np.full((200, 320, 3), 120, np.float32), ())
    return compose(backdrop, list(actors), np.random.default_rng(0))


def test_boxes_enclose_the_pixels_that_are_drawn():
    # The same person in two colours: shadows and ground are equal, so the images differ where the person is.
    def tinted(value):
        colour = (float(value),) * 3
        same = dict.fromkeys(("skin", "hair", "hat_colour", "inner", "shoes", "bag_colour"), colour)
        return make_actor(**same, upper=Cloth(colour), sleeves=Cloth(colour), lower=Cloth(colour), logo=False)

    dark, owners, sprites = draw(tinted(20))
    bright = draw(tinted(240))[0]
    rows, columns = np.nonzero(np.abs(bright - dark).max(2) > 90)
    (seen,) = measure(owners, sprites)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.subtract(seen.box, expected)).max() <= 1
    assert seen.visibility == 1.0


def test_hidden_people_get_no_box():
    hidden, nearer = measure(
        *draw(make_actor(z=6.0, upper_kind="tee", bag="none"), make_actor(1, z=5.7, build=1.35))[1:]
    )
    assert nearer.visibility == 1.0
    assert hidden.visibility < 0.3
    assert not is_annotated(hidden, 0.3)
    (outside,) = measure(*draw(make_actor(x=20.0))[1:])
    assert outside is None
    assert not is_annotated(outside, 0.0)


def test_boxes_are_clipped_to_the_image():
    edge = make_camera().project([(0, 0, 5.0)])[0, 0] / 230.0 * 5.0
    (seen,) = measure(*draw(make_actor(x=-edge))[1:])
    assert seen.box[0] == 0
    assert 0.25 < seen.visibility < 0.75


def test_nearer_people_are_larger():
    near, far = measure(*draw(make_actor(x=-1.5, z=4.0), make_actor(x=1.5, z=8.0))[1:])
    heights = [seen.box[3] - seen.box[1] for seen in (near, far)]
    assert heights[0] / heights[1] == pytest.approx(2.0, rel=0.06)
    assert near.box[3] > far.box[3]


def test_people_stand_within_the_sizes_asked_for():
    camera = make_camera()
    places = lay_out(camera, [[1.0]] * 30, [], 0.7, 0.3, np.random.default_rng(0))
    heights = [1.7 * camera.metre(place.z) / camera.size[1] for (place,) in places]
    assert min(heights) > 0.25
    assert max(heights) <= 0.7
    assert max(heights) - min(heights) > 0.2


def test_layout_keeps_people_from_hiding_each_other():
    camera = make_camera()
    places = lay_out(camera, [[1.0]] * 2, [(0, 0, 160, 200, 0.5)], 0.7, 0.3, np.random.default_rng(5))
    assert all(camera.project([(place.x, 0, place.z)])[0, 0] > 160 for (place,) in places)  # not behind the obstacle


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "coco"}, "format 'coco'"),
        ({"format": "prw", "cameras": 7}, "cameras 7"),
        ({"group_loyalty": 1.5}, "group_loyalty 1.5"),
        ({"person_height": (0.7, 0.2)}, "person_height"),
        ({"train_images": 0}, "train_images 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**options)


def test_command_line(tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "new"), "--format", "cuhk_sysu", "--person-height", "0.3", "0.6"]
    for field in ("train_identities", "test_identities", "cameras", "train_images", "gallery_images", "group_size"):
        arguments += [f"--{field.replace('_', '-')}", str(getattr(SMALL, field))]
    arguments += ["--width", "96", "--height", "64", "--seed", "5"]
    assert run_program(make_synthetic.main, make_synthetic.parse_args(arguments)) == 0
    assert "seen with their group" in capsys.readouterr().out
    assert (tmp_path / "new/annotation/test/train_test/TestG100.mat").is_file()
    stored = json.loads((tmp_path / "new/synthetic.json").read_text())
    assert stored["config"]["person_height"] == [0.3, 0.6]
    assert run_program(make_synthetic.main, make_synthetic.parse_args(arguments)) == 1
    assert "holds images already" in capsys.readouterr().err
