"""Opening a network from its checkpoint alone: which options win, and what is said where none are known."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from releases import released_model, released_weights
from tiny import ROOT, eager_model, tiny_cfg

from defaults import load_cfg
from engine.networks import match_thresholds, open_network, options_of
from engine.searcher import Searcher, SearchRequest
from models import build_model
from tools.converting import store_options
from utils.errors import UserError


@pytest.fixture
def checkpoint(tmp_path) -> str:
    """A checkpoint that carries its options; the embedding is as wide as no config has it."""
    cfg = tiny_cfg(MODEL__EMBEDDING__RES5=48, INPUT__BATCH_SIZE_TEST=2)
    torch.save({"model": build_model(cfg).state_dict(), "config": cfg.dump()}, tmp_path / "best.pth")
    return str(tmp_path / "best.pth")


def test_a_checkpoint_carries_its_options(checkpoint):
    cfg, model = open_network(checkpoint, opts=["INPUT.BATCH_SIZE_TEST", "5"])
    assert cfg.MODEL.EMBEDDING.RES5 == 48 and cfg.INPUT.BATCH_SIZE_TEST == 5
    assert torch.equal(model.state_dict()["stem.conv1.weight"], torch.load(checkpoint)["model"]["stem.conv1.weight"])


def test_a_config_file_says_all_but_the_network(checkpoint, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    file = tmp_path / "mine.yaml"
    file.write_text("INPUT: {BATCH_SIZE_TEST: 7, MIN_SIZE: 900}\nMODEL: {BACKBONE: {NAME: resnet50}}\nSEED: 4")
    cfg, _ = open_network(checkpoint, file)
    assert (cfg.MODEL.BACKBONE.NAME, cfg.INPUT.MIN_SIZE) == ("resnet18", 96)
    assert (cfg.INPUT.BATCH_SIZE_TEST, cfg.SEED) == (7, 4)
    assert "MODEL.BACKBONE.NAME resnet18 instead of resnet50" in caplog.text
    with pytest.raises(UserError, match="do not fit the network of the options") as caught:
        open_network(checkpoint, file, ["MODEL.BACKBONE.NAME", "resnet50"])
    assert len(str(caught.value)) < 1200, "one sentence, not a list of all keys"


def test_what_was_measured_of_a_network_counts_more_than_a_config_file(checkpoint, tmp_path):
    file, measured = tmp_path / "mine.yaml", tmp_path / "measured.pth"
    file.write_text("EVAL: {COMPANIONS: {WEIGHT: 0.5}, THRESHOLDS: {POSSIBLE: 0.1, MATCH: 0.2}}")
    store_options(Path(checkpoint), measured, ["EVAL.THRESHOLDS.POSSIBLE", "0.4", "EVAL.THRESHOLDS.MATCH", "0.6"])
    assert match_thresholds(open_network(checkpoint, file)[0]) == (0.1, 0.2)
    cfg, _ = open_network(measured, file)
    assert match_thresholds(cfg) == (0.4, 0.6) and cfg.EVAL.COMPANIONS.WEIGHT == 0.5
    assert match_thresholds(open_network(measured, file, ["EVAL.THRESHOLDS.MATCH", "0.7"])[0]) == (0.4, 0.7)


@pytest.mark.parametrize("release", ["seqnet", "glcnet_2021", "nae_plus"])
def test_a_release_is_known_by_its_keys(release):
    weights = released_weights(release, released_model(release))
    cfg = options_of({"model": weights}, "theirs.pth")
    files = [load_cfg(file) for file in (ROOT / "configs" / "releases").glob(f"{release}_[cp]*.yaml")]
    assert cfg in files and len(files) == 2


def test_weights_that_are_of_no_known_release_need_a_config(checkpoint):
    bare = torch.load(checkpoint)["model"]
    with pytest.raises(UserError, match="bare.pth does not carry the options of its network: .*--cfg"):
        options_of(bare, "bare.pth")


def test_people_are_found_in_what_people_have(tmp_path):
    """Paths, PIL images and arrays, searched through a checkpoint's path or a network."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    searcher = Searcher(eager_model(), "cpu", batch_size=2)
    gallery = [tmp_path / "a.png", Image.fromarray(pixels), pixels]
    box = (20, 10, 70, 90)
    found = searcher.search(str(tmp_path / "a.png"), box, gallery)
    assert found == sorted(found, key=lambda person: -person.similarity)
    of_each = [[person for person in found if person.image is image] for image in gallery]
    assert len(of_each[0]) > 1
    for others in of_each[1:]:
        np.testing.assert_allclose([p.box for p in others], [p.box for p in of_each[0]], atol=1e-2)
    [(_, asked)] = searcher([SearchRequest(pixels, [box])])
    [(_, people)] = searcher([pixels])
    assert found[0].similarity == pytest.approx((people.embeddings @ asked.query_embeddings[0]).max(), abs=1e-6)


@pytest.mark.parametrize(
    ("image", "box", "error", "reason"),
    [
        (np.zeros((96, 160, 3), np.float32), (0, 0, 50, 90), ValueError, "not ndarray float32"),
        (torch.full((3, 96, 160), 255.0), (0, 0, 50, 90), ValueError, "float with values from 0 to 1"),
        (torch.zeros((3, 96, 160), dtype=torch.int64), (0, 0, 50, 90), ValueError, "is uint8, or float"),
        (np.zeros((96, 160), np.uint8), (0, 0, 50, 90), ValueError, "uint8 array H x W x 3"),
        (np.zeros((96, 160, 3), np.uint8), (0.1, 0.1, 0.4, 0.9), UserError, "in pixels"),
        (np.zeros((96, 160, 3), np.uint8), (0, 0, 161, 90), UserError, "160 x 96 pixels"),
    ],
)
def test_a_wrong_range_or_type_is_an_error(image, box, error, reason):
    with pytest.raises(error, match=reason):
        Searcher(eager_model(), "cpu").search(image, box, [])
