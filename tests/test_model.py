"""The assembled two-stage network: batches, queries, empty images, contexts, training targets, waits for the device."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from tiny import BACKBONES as TINY_BACKBONES
from tiny import eager_model, picture, target, tiny_cfg, tiny_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.solver import build_optimizer
from models.roi import RoIAlign, RoIs
from models.two_stage.boxes import Samples, box_regression_loss
from models.two_stage.context import (
    GROUP_EXTRACTORS,
    SCENE_EXTRACTORS,
    CoAttention,
    Companions,
    GroupContext,
    SceneContext,
)

IMAGES = [picture(90, 160, 1), picture(120, 100, 2), picture(150, 240, 3)]
BOX = torch.tensor([[20.0, 10, 60, 80]])
TWO = torch.tensor([[20.0, 10, 60, 80], [70.0, 5, 110, 85]])
TARGETS = [target((BOX[0].tolist(), 1)), target((BOX[0].tolist(), 2))]
NOBODY = {"MODEL__DETECTION_HEAD__SCORE_THRESH": 0.999}
"""Options under which the first head finds nobody."""


def assert_same(one: dict, other: dict, tolerance: float = 1e-4) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=tolerance, rtol=tolerance)


def direction(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector, dim=-1)


# ---------------------------------------------------------------- searching
@pytest.mark.parametrize("backbone", ["resnet18", *TINY_BACKBONES])
def test_a_batch_of_different_sizes_gives_what_its_images_give_alone(backbone):
    model = eager_model(MODEL__BACKBONE__NAME=backbone)
    alone = [model.search([image], [BOX])[0] for image in IMAGES]
    assert all(len(result.gallery()["boxes"]) > 2 for result in alone)
    for together, single in zip(model.search(IMAGES, [BOX] * 3), alone, strict=True):
        assert_same(together.gallery(), single.gallery())
        assert_same(together.query()["context"], single.query()["context"])
        torch.testing.assert_close(together.query_embeddings, single.query_embeddings, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weighted", [True, False])
def test_a_gallery_lies_in_its_image_by_falling_score_and_weighted_by_it_if_so_configured(weighted):
    model, pixels = eager_model(MODEL__SEARCH_HEAD__WEIGHT_BY_SCORE=weighted), (IMAGES[2] * 255).to(torch.uint8)
    result = model([pixels])[0]
    assert_same(result, model([pixels / 255])[0])
    boxes, scores = result["boxes"], result["scores"]
    assert (boxes >= 0).all() and (boxes <= torch.tensor([240, 150, 240, 150]) + 0.001).all()
    assert len(scores) > 2 and (scores.diff() <= 0).all()
    torch.testing.assert_close(result["embeddings"].norm(dim=1), scores if weighted else torch.ones_like(scores))


def test_where_nobody_is_found_results_are_empty_and_each_query_is_its_own_group():
    lonely, crowded = eager_model(**NOBODY), eager_model()
    empty = lonely([IMAGES[0]])[0]
    assert [empty[name].shape for name in ("boxes", "scores", "embeddings")] == [(0, 4), (0,), (0, 640)]
    together = lonely.query(IMAGES[:2], [TWO, BOX])
    assert together[0]["context"]["boxes"].tolist() == TWO.tolist()
    alone = torch.cat([lonely.query([IMAGES[0]], [box[None]])[0]["embeddings"] for box in TWO])
    torch.testing.assert_close(together[0]["embeddings"], alone, atol=1e-5, rtol=0)

    with_people = crowded.query([IMAGES[0]], [BOX])[0]["embeddings"]
    torch.testing.assert_close(direction(with_people[:, :512]), direction(alone[:1, :512]), atol=1e-5, rtol=0)
    assert not torch.allclose(with_people[:, 512:], alone[:1, 512:], atol=1e-5)


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


# ---------------------------------------------------------------- context
def test_the_scene_is_the_image_and_the_group_the_mean_of_its_people():
    rois = RoIs(RoIAlign(4, 2, 1.0), torch.rand(2, 3, 9, 9), [TWO, BOX])
    res5, groups = torch.rand(3, 5), [torch.tensor([True]), torch.tensor([True, False])]
    scene, group = (
        SceneContext(nn.Identity(), 3)(rois, res5, groups),
        GroupContext(nn.Identity(), 5)(rois, res5, groups),
    )
    torch.testing.assert_close(scene, rois.feature_map.amax((2, 3))[[0, 0, 1]])
    torch.testing.assert_close(group, res5[[0, 1, 1]])
    nobody = GroupContext(nn.Identity(), 5)(rois, res5, [torch.zeros(3, dtype=torch.bool)])
    assert torch.equal(nobody, torch.zeros(3, 5))


@pytest.mark.parametrize(
    "kind, name", [*itertools.product(["SCENE"], SCENE_EXTRACTORS), *itertools.product(["GROUP"], GROUP_EXTRACTORS)]
)
def test_every_extractor_trains_and_searches(kind, name):
    other = {"SCENE": "GROUP", "GROUP": "SCENE"}[kind]
    model = tiny_model(**{f"MODEL__CONTEXT__{kind}": name, f"MODEL__CONTEXT__{other}": "none"})
    sum(model(IMAGES[:2], TARGETS).values()).backward()
    extractor = model.search_head.contexts[kind.lower()].extractor
    assert all(p.grad is not None for p in extractor.parameters())
    assert model.eval().query(IMAGES[:1], [BOX])[0]["embeddings"].shape == (1, 512)


def test_companions_are_the_mean_of_the_other_people_of_the_image():
    """Two images: three people, one of them twice; one person. The first box is a query's, which is in no group."""
    companions, (a, c, alone, query) = Companions(weight=0.5), F.normalize(torch.randn(4, 6))
    boxes = torch.tensor([[0, 0, 10, 30], [40, 0, 50, 30], [41, 0, 51, 30], [80, 0, 90, 30], [0, 0, 10, 30]]).float()
    embeddings = torch.stack([query, a, a, c, alone])
    masks = [torch.tensor([False, True, True, True]), torch.tensor([True])]
    expected = torch.stack([(a + c) / 2, c, c, a, torch.zeros(6)]) / 2
    expected = F.normalize(torch.cat([embeddings, expected], dim=1))
    torch.testing.assert_close(companions(embeddings, boxes, masks), expected)


def test_a_network_learns_how_much_companions_count():
    model = tiny_model(MODEL__CONTEXT__SCENE="none", MODEL__CONTEXT__GROUP="companions")
    two = target((BOX[0].tolist(), 1), ([2, 4, 30, 60], 2))
    model.search_head.oim.lut.normal_()
    sum(model(IMAGES[:2], [two, two]).values()).backward()
    assert model.search_head.companions.weight.grad.abs() > 0
    assert model.embedding_widths == {"res4": 256, "res5": 128, "companions": 384}
    assert model.eval().query(IMAGES[:1], [BOX])[0]["embeddings"].shape == (1, 768)


def test_companions_can_be_left_out_of_a_search():
    embeddings, boxes = F.normalize(torch.randn(2, 6)), torch.tensor([[0, 0, 10, 30], [40, 0, 50, 30]]).float()
    companions, masks = Companions(search_factor=0.0), [torch.tensor([True, True])]
    with_others = companions(embeddings, boxes, masks)
    assert (with_others[:, 6:].norm(dim=1) > 0.1).all()
    torch.testing.assert_close(companions.eval()(embeddings, boxes, masks), F.pad(embeddings, (0, 6)))


def test_coattention_is_that_of_all_positions_at_once_and_fits_half_precision():
    attention, x = CoAttention(8), torch.randn(3, 8, 4, 5)
    queries, keys = (conv(x).flatten(2).transpose(1, 2).flatten(0, 1) for conv in (attention.query, attention.key))
    affinity = (queries @ keys.T).view(60, 3, 20).amax(2).mean(1).view(3, 20) / 8**0.5
    prototype = attention.project(x * affinity.softmax(1).view(3, 1, 4, 5)).mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(attention(x), x * prototype)
    with torch.no_grad():
        attention.query.weight.copy_(torch.eye(8)[:, :, None, None] * 90)
        attention.key.weight.copy_(torch.eye(8)[:, :, None, None] * 90)
    large = torch.full((1, 8, 2, 2), 1.0).half()  # products of 64800: scaled after them, they would be infinite
    assert attention.half()(large + 0.1).isfinite().all()


# ---------------------------------------------------------------- training
def test_training_takes_images_without_people_and_people_without_identity():
    model = tiny_model()
    losses = model(IMAGES[:2], [target(), target((BOX[0].tolist(), -1))])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_box_reid"].item() == 0
    sum(losses.values()).backward()
    assert model.search_head.oim.header.item() > 0


def test_a_background_roi_without_width_has_a_finite_gradient():
    """In an image without people, whose RoIs have themselves as reference."""
    boxes = torch.tensor([[10.0, 10, 10, 40], [0.0, 0, 30, 30]])
    deltas = torch.randn(2, 8, requires_grad=True)
    loss = box_regression_loss(deltas, [Samples(boxes, torch.zeros(2, dtype=torch.int64), boxes)])
    loss.backward()
    assert loss.item() == 0 and torch.equal(deltas.grad, torch.zeros(2, 8))


def test_loss_weights_scale_their_loss_alone():
    runs = []
    for weight in (1.0, 4.0):
        model = tiny_model(MODEL__LOSS_WEIGHTS__BOX_REG=weight)
        torch.manual_seed(3)
        runs.append(model(IMAGES[:2], TARGETS))
    for name, loss in runs[0].items():
        factor = 4 if name == "loss_box_reg" else 1
        torch.testing.assert_close(runs[1][name], factor * loss)


class Waits(TorchDispatchMode):
    """Notes operators that, on a device, make the host wait for it, or copy Python numbers to it."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "repeat_interleave", "equal")
    COPIES = ("lift_fresh",)

    def __init__(self):
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put_", "index_put") else ()
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if by_mask or name.startswith(self.READS) or name in self.COPIES:
            self.noted.append(name)
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_the_device_once_after_its_last_sampler(monkeypatch):
    """The one read is of the labels in the OIM loss, the one copy that of the rows which they update."""
    model, cfg = tiny_model(), tiny_cfg()
    optimizer, waits, sampler = build_optimizer(cfg, model, 1), Waits(), model.search_head.sampler
    for name in ("tolist", "cpu", "numpy"):  # on the CPU these are no operators
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, method=method, name=name: (waits.noted.append(name), method(self))[1]
        )

    def sample_and_begin_to_watch(*args) -> list[Samples]:
        samples = sampler(*args)
        waits.noted.clear()
        waits.__enter__()
        return samples

    model.search_head.sampler = sample_and_begin_to_watch
    losses = model(IMAGES[:2], TARGETS)
    sum(losses.values()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    waits.__exit__(None, None, None)
    assert waits.noted == ["tolist", "lift_fresh"]
