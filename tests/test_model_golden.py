"""Published networks give the published answers: weights under their names, through the config of their release."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import FOLDER, SALT, image, released_state
from matching import assert_same_people

from defaults import load_cfg
from engine.checkpoint import load_weights
from models import build_model
from models.base import PersonSearchModel
from models.fast import prepare_for_inference

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "releases"
RELEASES = (
    pytest.param("seqnet", marks=pytest.mark.slow),  # the next is built on it
    "glcnet_2021",
    pytest.param("glcnet_2024", marks=pytest.mark.slow),  # 134 million weights to draw
    pytest.param("nae", marks=pytest.mark.slow),
    pytest.param("nae_plus", marks=pytest.mark.slow),
    pytest.param("seqnext_gfn", marks=pytest.mark.slow),  # a ConvNeXt-B, as the next
    pytest.param("seas", marks=pytest.mark.slow),
)
PIXELS, TOLERANCE = 1e-2, 1e-4
AT_EDGES = 2
"""Boxes whose fate rounding may decide, at the edge of a threshold."""
SMALL = ["INPUT.MIN_SIZE", "240", "INPUT.MAX_SIZE", "400", "MODEL.OIM.NUM_IDS", "50", "MODEL.OIM.QUEUE_SIZE", "40"]


def released_model(name: str, *opts: str) -> PersonSearchModel:
    """The network of a release's config, small tables and images aside, with the filled weights."""
    model = build_model(load_cfg(CONFIGS / f"{name}_cuhk_sysu.yaml", [*SMALL, *opts]))
    load_weights(model, released_state(name))
    return model.eval()


@pytest.fixture(scope="module", params=RELEASES)
def release(request) -> tuple[PersonSearchModel, dict[str, np.ndarray]]:
    """Each release's network and known answers."""
    with np.load(FOLDER / f"{request.param}.npz", allow_pickle=False) as file:
        return released_model(request.param), {name: value.astype(np.float32) for name, value in file.items()}


def assert_as_released(result, golden: dict[str, np.ndarray]) -> None:
    """What `forward` and `query` make of the golden image."""
    gallery = {name: golden[f"gallery_{name}"] for name in ("boxes", "scores", "embeddings")}
    assert_same_people(result.gallery(), gallery, PIXELS, TOLERANCE, AT_EDGES)
    query = result.query()
    wanted = torch.nn.functional.normalize(torch.from_numpy(golden["query_embedding"]))  # NAE+'s are not of length 1
    torch.testing.assert_close(query["embeddings"], wanted, atol=TOLERANCE, rtol=0)
    assert np.abs(query["context"]["boxes"][0].numpy() - golden["query_box"]).max() < PIXELS
    if "scene_embedding" in golden:
        torch.testing.assert_close(result.scene, torch.from_numpy(golden["scene_embedding"][0]), atol=TOLERANCE, rtol=0)
    if "context_boxes" in golden:
        assert abs(len(query["context"]["boxes"]) - len(golden["context_boxes"])) <= AT_EDGES
        best = len(golden["context_embeddings"])
        found, context = (
            {name: people[prefix + name][:best] for name in ("boxes", "scores", "embeddings")}
            for people, prefix in ((query["context"], ""), (golden, "context_"))
        )
        assert_same_people(found, context, PIXELS, TOLERANCE, AT_EDGES)


def test_a_release_gives_its_answers(release):
    model, golden = release
    result = model.search([image(180, 300, SALT)], [torch.from_numpy(golden["query_box"])])[0]
    assert_as_released(result, golden)


@pytest.mark.slow
def test_a_release_gives_its_answers_prepared_and_in_a_batch(release, monkeypatch):
    model, golden = release
    propose = type(model.rpn).propose

    def few_of_the_second(*args) -> tuple[list[torch.Tensor], dict]:
        proposals, losses = propose(*args)
        return [proposals[0], proposals[1][:20]], losses  # to save time

    monkeypatch.setattr(type(model.rpn), "propose", few_of_the_second)
    images, box = [image(180, 300, SALT), image(180, 300, "another")], torch.from_numpy(golden["query_box"])
    assert_as_released(prepare_for_inference(model).search(images, [box, box])[0], golden)


@pytest.mark.slow
def test_scores_of_nae_plus_relative_to_the_batch_are_those_of_its_release():
    golden = np.load(FOLDER / "nae_plus.npz")
    model = prepare_for_inference(released_model("nae_plus", "MODEL.PIXELWISE.SCORE_NORM", "batch"))
    first, second = model([image(180, 300, SALT), image(180, 300, "d2")])
    for found, prefix in ((first, "gallery"), (second, "pair_y")):
        expected = {name: golden[f"{prefix}_{name}"] for name in ("boxes", "scores", "embeddings")}
        assert_same_people(found, expected, PIXELS, TOLERANCE, AT_EDGES)
