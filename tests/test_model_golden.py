"""The released networks give the released answers: weights of their names and shapes, through the release's config."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from defaults import load_cfg
from engine.checkpoint import load_weights
from models import build_model
from models.fast import prepare_for_inference
from models.two_stage.person_search import PersonSearch

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "releases"
SALT = "d"
PIXELS, TOLERANCE = 1e-3, 1e-4
FEW = 20


@pytest.fixture(scope="module")
def filler(shared_dir) -> object:
    """The module that fills a release's keys with numbers and draws the image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(shared_dir / "golden"))
        return pytest.importorskip("fill_checkpoint")


def released_model(name: str, fill: Callable) -> PersonSearch:
    """The network of a release's config, small tables and images aside, with the filled weights."""
    opts = ["INPUT.MIN_SIZE", "240", "INPUT.MAX_SIZE", "400", "MODEL.OIM.NUM_IDS", "50", "MODEL.OIM.QUEUE_SIZE", "40"]
    model = build_model(load_cfg(CONFIGS / f"{name}_cuhk_sysu.yaml", opts))
    assert load_weights(model, fill(f"keys_{name}.json", SALT)) == []
    return model.eval()


def assert_same_people(found: dict, golden: dict, prefix: str) -> None:
    """The same boxes in any order, as equal scores leave it open, with the same scores and embeddings."""
    boxes, expected = found["boxes"].numpy(), golden[f"{prefix}_boxes"]
    assert boxes.shape == expected.shape
    distance = np.abs(boxes[:, None] - expected[None]).max(2)
    rows, columns = linear_sum_assignment(distance)
    assert distance[rows, columns].max() < PIXELS
    for name in ("scores", "embeddings"):
        difference = np.abs(found[name].numpy()[rows] - golden[f"{prefix}_{name}"][columns])
        assert difference.max() < TOLERANCE, f"{prefix} {name}"


def with_few_proposals(model: PersonSearch, monkeypatch, index: int) -> None:
    """Save time on an image of a batch whose results nobody looks at."""
    propose = model.rpn.propose

    def propose_less(*args):
        proposals = propose(*args)
        return [boxes[:FEW] if i == index else boxes for i, boxes in enumerate(proposals)]

    monkeypatch.setattr(model.rpn, "propose", propose_less)


def assert_as_released(model: PersonSearch, images: list, boxes: list, golden: dict) -> None:
    """One pass over images of which the first is the golden one: what `forward` and `query` make of it."""
    result = model.search(images, boxes)[0]
    assert_same_people(result.gallery(), golden, "gallery")
    asked = result.query()
    assert np.abs(asked["embeddings"].numpy() - golden["query_embedding"]).max() < TOLERANCE
    assert_same_people(asked["context"], golden, "context")
    assert np.abs(asked["context"]["boxes"][0].numpy() - golden["query_box"]).max() < PIXELS


@pytest.mark.parametrize("name", ["seqnet", "glcnet_2021", "glcnet_2024"])
def test_release_gives_the_same_people_alone_prepared_and_in_a_batch(name, filler, shared_dir, monkeypatch):
    with np.load(shared_dir / "golden" / f"model_{name}_{SALT}.npz", allow_pickle=False) as file:
        golden = dict(file)
    model = released_model(name, filler.fill)
    image, other = filler.image(180, 300, SALT), filler.image(180, 300, "another")
    box = torch.from_numpy(golden["query_box"])
    assert_as_released(model, [image], [box], golden)
    assert_as_released(prepare_for_inference(model), [image], [box], golden)
    with_few_proposals(model, monkeypatch, index=1)
    assert_as_released(model, [image, other], [box, box], golden)
