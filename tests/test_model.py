"""The assembled network: batches, queries, empty images, contexts, training targets."""

import itertools

import pytest
import torch
from tiny import picture, target, tiny_model

from models.two_stage.context import GROUP_EXTRACTORS, SCENE_EXTRACTORS

IMAGES = [picture(90, 160, 1), picture(120, 100, 2), picture(150, 240, 3)]
BOX = torch.tensor([[20.0, 10, 60, 80]])
NOBODY = {"MODEL__DETECTION_HEAD__SCORE_THRESH": 0.999}
"""Options under which the first head finds nobody."""


def eager_model(**options):
    """A network in eval mode that takes many proposals for people, though it is untrained."""
    options = {"MODEL__DETECTION_HEAD__SCORE_THRESH": 0.01, "MODEL__SEARCH_HEAD__SCORE_THRESH": 0.01} | options
    model = tiny_model(**options).eval()
    with torch.no_grad():
        model.detection_head.predictor.cls_score.weight.mul_(3)
        model.search_head.embedding.rescaler.running_mean.fill_(0.1)
    return model


def assert_same(one: dict, other: dict, tolerance: float = 1e-4) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=tolerance, rtol=tolerance)


def test_a_batch_of_different_sizes_gives_what_its_images_give_alone():
    model = eager_model()
    alone = [model([image])[0] for image in IMAGES]
    assert all(len(result["boxes"]) > 2 for result in alone)
    for together, single in zip(model(IMAGES), alone, strict=True):
        assert_same(together, single)


def test_queries_of_a_batch_are_those_of_its_images_alone():
    model = eager_model()
    for together, image in zip(model.query(IMAGES, [BOX] * 3), IMAGES, strict=True):
        alone = model.query([image], [BOX])[0]
        assert_same(together["context"], alone["context"])
        torch.testing.assert_close(together["embeddings"], alone["embeddings"], atol=1e-4, rtol=1e-4)


def test_gallery_boxes_lie_in_their_image_and_embeddings_carry_the_score():
    result = eager_model()([IMAGES[2]])[0]
    boxes, norms = result["boxes"], result["embeddings"].norm(dim=1)
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= 240).all() and (boxes[:, 3] <= 150).all()
    torch.testing.assert_close(norms, result["scores"])
    assert (result["scores"].diff() <= 0).all()


def test_context_starts_with_the_query_boxes_and_is_not_weighted():
    given = torch.tensor([[20.0, 10, 60, 80], [70.0, 5, 110, 85]])
    result = eager_model().query([IMAGES[0]], [given])[0]
    context = result["context"]
    assert torch.equal(context["boxes"][:2], given)
    assert torch.equal(context["scores"][:2], torch.ones(2))
    assert torch.equal(context["embeddings"][:2], result["embeddings"])
    assert len(context["boxes"]) > 2
    torch.testing.assert_close(context["embeddings"].norm(dim=1), torch.ones(len(context["boxes"])))


def test_nobody_found_gives_empty_results_and_the_query_still_has_its_embedding():
    model = eager_model(**NOBODY)
    empty = model([IMAGES[0]])[0]
    assert [empty[name].shape for name in ("boxes", "scores", "embeddings")] == [(0, 4), (0,), (0, 640)]
    result = model.query([IMAGES[0]], [BOX])[0]
    assert result["context"]["boxes"].tolist() == BOX.tolist()
    assert result["embeddings"].norm().item() == pytest.approx(1)


def test_the_query_is_its_own_group_only_where_nobody_is_found():
    lonely, crowded = eager_model(**NOBODY), eager_model()
    crowded.load_state_dict(lonely.state_dict())
    with_people, alone = (m.query([IMAGES[0]], [BOX])[0]["embeddings"] for m in (crowded, lonely))
    group = slice(512, 640)
    torch.testing.assert_close(*(e[0, :512] / e[0, :512].norm() for e in (with_people, alone)), atol=1e-5, rtol=0)
    assert not torch.allclose(with_people[0, group], alone[0, group], atol=1e-5)


@pytest.mark.parametrize("scene, group", [("none", "none"), ("stack", "none"), ("none", "stack"), ("stack", "stack")])
def test_each_context_adds_its_width_and_changes_with_its_source(scene, group):
    model = eager_model(MODEL__CONTEXT__SCENE=scene, MODEL__CONTEXT__GROUP=group)
    width = 384 + 128 * (scene != "none") + 128 * (group != "none")
    assert model.query([IMAGES[0]], [BOX])[0]["embeddings"].shape == (1, width)


@pytest.mark.parametrize(
    "kind, name", [*itertools.product(["SCENE"], SCENE_EXTRACTORS), *itertools.product(["GROUP"], GROUP_EXTRACTORS)]
)
def test_every_extractor_trains_and_searches(kind, name):
    other = {"SCENE": "GROUP", "GROUP": "SCENE"}[kind]
    model = tiny_model(**{f"MODEL__CONTEXT__{kind}": name, f"MODEL__CONTEXT__{other}": "none"})
    losses = model(IMAGES[:2], [target((BOX[0].tolist(), 1)), target((BOX[0].tolist(), 2))])
    sum(losses.values()).backward()
    extractor = model.search_head.contexts[kind.lower()].extractor
    assert all(p.grad is not None for p in extractor.parameters())
    assert model.eval().query(IMAGES[:1], [BOX])[0]["embeddings"].shape == (1, 512)


def test_an_unknown_extractor_is_an_error_that_names_those_there_are():
    with pytest.raises(ValueError, match=r"SCENE 'stak' is not one of none, stack, gate"):
        tiny_model(MODEL__CONTEXT__SCENE="stak")


def test_training_takes_images_without_people_and_people_without_identity():
    model = tiny_model()
    losses = model(IMAGES[:2], [target(), target((BOX[0].tolist(), -1))])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_box_reid"].item() == 0
    sum(losses.values()).backward()
    assert model.search_head.oim.header.item() > 0


def test_loss_weights_scale_their_loss_alone():
    targets = [target((BOX[0].tolist(), 1)), target((BOX[0].tolist(), 2))]
    runs = []
    for weight in (1.0, 4.0):
        model = tiny_model(MODEL__LOSS_WEIGHTS__BOX_REG=weight)
        torch.manual_seed(3)
        runs.append(model(IMAGES[:2], targets))
    for name, loss in runs[0].items():
        factor = 4 if name == "loss_box_reg" else 1
        torch.testing.assert_close(runs[1][name], factor * loss)


def test_frozen_statistics_stay_and_others_move():
    targets = [target((BOX[0].tolist(), 1)), target((BOX[0].tolist(), 2))]
    for scope, moves in (("none", {"stem": True, "tail": True}), ("stem", {"stem": False, "tail": True}), ("all", {})):
        model = tiny_model(MODEL__BACKBONE__FROZEN_BN_STATISTICS=scope).train()
        norms = {"stem": model.stem.bn1, "tail": model.search_head.features[0].tail.layer4[0].bn1}
        before = {name: norm.running_mean.clone() for name, norm in norms.items()}
        model(IMAGES[:2], targets)
        for name, norm in norms.items():
            assert torch.equal(before[name], norm.running_mean) != moves.get(name, False)


def test_frozen_stages_and_affine_have_no_gradient():
    model = tiny_model(MODEL__BACKBONE__FROZEN_STAGES=2, MODEL__BACKBONE__FROZEN_BN_AFFINE="all")
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("stem.conv1", "stem.bn1", "stem.layer1")) for name in learns)
    assert "stem.layer2.0.conv1.weight" in learns
    assert not any(".bn1." in name for name in learns if "tail" in name or name.startswith("stem"))


@pytest.mark.parametrize(
    "images, boxes, message",
    [
        ([IMAGES[0]], [BOX, BOX], "1 images but 2 sets of boxes"),
        ([IMAGES[0]], [BOX[0]], "must be n x 4"),
        ([IMAGES[0]], [BOX[:, [2, 1, 0, 3]]], "without area"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(images, boxes, message):
    with pytest.raises(ValueError, match=message):
        eager_model().query(images, boxes)
