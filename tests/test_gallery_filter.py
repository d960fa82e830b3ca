"""The gallery filter: its known answers, its memory of images, and searches with it, against plain twins."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden.fill import FOLDER
from programs import walk
from releases import NO_CONTEXT
from test_train import Spoiled, fit
from test_training import training_run
from tiny import CFG, call, eager_model, picture, target, tiny_cfg, tiny_model, words
from torch import nn

from datasets import build_dataset
from engine import run as run_module
from models.image_memory import ImageMemory, Visit
from models.results import to_cpu
from models.two_stage.gallery_filter import (
    COMPARISONS,
    QUERIES,
    TEMPERATURE,
    CombinedComparison,
    Contrast,
    SceneFilter,
    Views,
)
from tools import test as test_tool
from utils.errors import UserError
from utils.evaluation import evaluate_search, filtered_share

D, KNOWN = 64, 6
NETWORK = NO_CONTEXT | {"MODEL__BACKBONE__NAME": "tiny_convnext"}
FILTER = NETWORK | {"MODEL__FILTER__TYPE": "combined", "MODEL__FILTER__GRID": 8}
IMAGES = [picture(96, 130, 1), picture(90, 140, 2)]
TARGETS = [
    target(([10.0, 10, 50, 80], 1), ([60.0, 20, 90, 90], 2)) | {"index": 4, "img_name": "4.jpg"},
    target(([20.0, 5, 60, 85], 1), ([80.0, 10, 120, 80], -1)) | {"index": 7, "img_name": "7.jpg"},
]


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(FOLDER / "gallery_filter.npz") as file:
        return {name: torch.from_numpy(value) for name, value in file.items()}


def with_norm(comparison: nn.Module, golden: dict) -> nn.Module:
    """The comparison with the known batch norm, where it has one."""
    for name, value in comparison.state_dict().items():
        if value.dim():
            value.copy_(golden[name.replace(".", "_")])
    return comparison


def scene_filter(*args) -> SceneFilter:
    return SceneFilter(nn.Identity(), {"res4": 8, "res5": 8}, D, 4, *args)


def assert_as_released(found: SceneFilter, golden: dict, inputs: str, answers: str, suffix: str = "", number: int = 0):
    """The loss of a batch, and its gradients: `inputs` and `answers` begin the names of the known ones."""
    people, scenes = (golden[f"{inputs}_{name}"].clone().requires_grad_() for name in ("embeddings", "scenes"))
    labels, images = golden[f"{inputs}_persons"], golden[f"{inputs}_images"]
    labels = labels.where(labels <= KNOWN, -1)
    targets = [{"labels": labels[images == i], "index": number + i} for i in range(len(scenes))]
    loss = found.loss(F.normalize(scenes), people, targets, golden["lut"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), golden[f"{answers}loss{suffix}"], atol=1e-5, rtol=0)
    for name, x in (("embeddings", people), ("scenes", scenes)):
        gradient = torch.zeros_like(x) if x.grad is None else x.grad
        torch.testing.assert_close(gradient, golden[f"{answers}grad_{name}{suffix}"], atol=1e-5, rtol=0)


# ---------------------------------------------------------------- known answers
@pytest.mark.parametrize("name", COMPARISONS)
def test_scores_are_those_of_the_release(name, golden):
    found = scene_filter(name)
    with_norm(found.comparison, golden)
    scores = found.scores(golden["query"], golden["query_scene"], golden["gallery_scene"])
    torch.testing.assert_close(scores, golden[f"scores_{name}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("name", ["combined", "separate"])
def test_losses_and_gradients_are_those_of_the_release(name, queries, golden):
    found = scene_filter(name, queries)
    with_norm(found.comparison, golden)
    assert_as_released(found, golden, "train", "", f"_{name}_{queries}")


def test_two_steps_with_the_memory_are_those_of_the_release(golden):
    found = scene_filter("combined", "batch", ImageMemory())
    with_norm(found.comparison, golden)
    for step in ("memory1", "memory2"):
        assert_as_released(found, golden, step, f"{step}_", number=10 * int(step[-1]))
    for name in ("running_mean", "running_var"):
        known = golden[f"memory_norm_{name}_after"]
        torch.testing.assert_close(getattr(found.comparison.norm, name), known, atol=1e-5, rtol=0)


# ---------------------------------------------------------------- plain twins
def test_similarities_by_matrix_products_are_those_of_the_fused_vectors():
    comparison, generator = CombinedComparison(D).eval(), torch.Generator().manual_seed(3)
    draw = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
    with torch.no_grad():
        comparison.norm.weight.copy_(draw(D))
        comparison.norm.bias.copy_(draw(D))
        comparison.norm.running_mean.copy_(draw(D) / 20)
        comparison.norm.running_var.copy_(draw(D).square() / 100)
        people, own, scenes = (F.normalize(draw(count, D)) for count in (9, 9, 14))
        people[4] = 0

        def fused(person, scene):
            return comparison.norm((scene * (person / 0.2).sigmoid())[None])[0]

        pairs = zip(people, own, strict=True)
        expected = [[F.cosine_similarity(fused(q, s), fused(q, g), dim=0) for g in scenes] for q, s in pairs]
        found = comparison.similarities(people, own, scenes)
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


def test_who_is_in_which_image_and_who_is_certainly_not():
    people_of = [[1, 2, -1], [2, 3], [], [-1, 4], [3, -1]]
    people = [(image, label) for image, labels in enumerate(people_of) for label in labels]
    names = [label if label > 0 else f"somebody of {image}" for image, label in people]
    seen = [{name for (own, _), name in zip(people, names, strict=True) if own == image} for image in range(5)]
    images, labels = torch.tensor(people).T
    views = Views(torch.zeros(5, 2), torch.zeros(len(people), 2), labels, images)
    assert views.shown().tolist() == [[name in here for name in names] for here in seen]
    assert views.related().tolist() == [[bool(one & other) for one in seen] for other in seen]
    for image, here in enumerate(seen):
        for person, (own, label) in enumerate(people):
            may_be_there = names[person] in here or (label < 0 and bool(here & seen[own]))
            assert views.absent()[image, person] != may_be_there


def test_each_positive_is_told_from_the_negatives_of_its_row():
    similarities = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    negatives = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    powers = (similarities / TEMPERATURE).exp()
    against = (powers * negatives).sum(1, keepdim=True)
    expected = -(powers / (powers + against)).log()[positives].mean()
    loss = Contrast(similarities, positives, negatives).loss()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, similarities)[0] for x in (loss, expected)))
    nothing = Contrast(similarities, positives & False, negatives).loss()
    assert nothing == 0 and not torch.autograd.grad(nothing, similarities)[0].any()


# ---------------------------------------------------------------- memory
def visit(*labels: int) -> Visit:
    return Visit(torch.rand(len(labels), 4), torch.tensor(labels, dtype=torch.int64), torch.rand(4))


def test_images_are_drawn_that_show_an_identity_or_its_company_instead():
    memory = ImageMemory(positives=2, negatives=1)
    shown = {1: (5, 6), 2: (5,), 3: (5, -1), 4: (6,), 5: (6, 8), 6: (9,), 7: (-1,), 8: (5, 6, 7)}
    memory.remember(shown, [visit(*labels) for labels in shown.values()])
    number_of = {id(memory.visits[number]): number for number in shown}
    found = set()
    for _ in range(60):
        drawn = [number_of[id(each)] for each in memory.draw([8, 20], [frozenset({5, 6}), frozenset()])]
        found |= set(drawn)
        assert len(set(drawn)) == len(drawn) and 8 not in drawn
        assert sum(5 in shown[n] for n in drawn) >= 2 and sum(6 in shown[n] for n in drawn) >= 2
    assert found == {1, 2, 3, 4, 5}, "neither the batch's own image nor those of others"
    one = [number_of[id(each)] for each in memory.draw([20], [frozenset({5, 6})])]
    assert len(one) == 3, "for one image there is one identity"
    assert memory.draw([8], [frozenset()]) == []


def test_a_memory_comes_back_from_a_checkpoint_and_is_in_no_copy():
    memory, other = ImageMemory(), ImageMemory()
    memory.remember([7, 3, 5], [visit(1, -1), visit(), visit(2)])
    memory.remember([7], [visit(4)])
    assert list(memory.visits) == [7, 5], "images without people are not remembered"
    other.remember([9], [visit(1)])
    other.unpack(memory.packed())
    assert list(other.visits) == [7, 5] and other.visits[7].identities == {4}
    for number, each in memory.visits.items():
        for name in ("people", "labels", "scene"):
            assert torch.equal(getattr(other.visits[number], name), getattr(each, name))
    assert not copy.deepcopy(memory).visits and not memory.state_dict()
    other.unpack(ImageMemory().packed())
    assert not other.visits


# ---------------------------------------------------------------- networks
def test_a_skipped_step_leaves_the_memory_as_it_was():
    model = tiny_model(**FILTER)
    batches = [([(255 * image).byte() for image in IMAGES], TARGETS)]
    fit(model, batches)
    visits, first = dict(model.gallery_filter.memory.visits), model.gallery_filter.memory.visits[4]
    assert set(visits) == {4, 7} and first.labels.tolist() == [1, 2] and first.people.shape == (2, 384)
    _, progress, _ = fit(Spoiled(model, 0), batches)
    assert progress.skipped == 1 and model.gallery_filter.memory.visits == visits
    fit(model, batches)
    assert model.gallery_filter.memory.visits[4] is not first


@pytest.mark.parametrize("people", [0, 1], ids=["nobody", "one person"])
@pytest.mark.parametrize("queries", QUERIES)
def test_a_batch_without_people_teaches_the_filter_nothing(people, queries):
    model = tiny_model(**FILTER, MODEL__FILTER__QUERIES=queries)
    targets = [target(*[([10.0, 10, 50, 80], -1)] * people) | {"index": 0}, target() | {"index": 1}]
    losses = model(IMAGES, targets)
    sum(losses.values()).backward()
    assert losses["loss_filter"] == 0
    gradients = [parameter.grad for parameter in model.gallery_filter.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_prototypes_of_nobody_with_identity_are_no_trouble():
    model = tiny_model(**FILTER, MODEL__FILTER__QUERIES="prototype")
    two = target(([10.0, 10, 50, 80], -1), ([60.0, 20, 90, 90], -1)) | {"index": 0}
    assert model(IMAGES, [two, two | {"index": 1}])["loss_filter"] == 0


def test_a_scene_does_not_depend_on_the_batch_and_changes_nothing_else():
    images, box = [*IMAGES, picture(150, 100, 3)], torch.tensor([[10.0, 10, 50, 80]])
    model, plain = eager_model(**FILTER), eager_model(**NETWORK)
    together = to_cpu(model.search(images, [box] * 3))
    for image, result, without in zip(images, together, plain.search(images, [box] * 3), strict=True):
        assert result.scene.shape == (384,) and result.scene.norm().item() == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(result.scene, model.search([image])[0].scene, atol=1e-5, rtol=0)
        assert without.scene is None
        for name in ("boxes", "scores", "embeddings", "query_embeddings"):
            torch.testing.assert_close(getattr(result, name), getattr(without, name))


def test_a_memory_is_that_of_one_process(cuhk, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "world_size", lambda: 2)
    with pytest.raises(UserError, match="FILTER.POSITIVES and NEGATIVES draw from what a single process remembers"):
        training_run(cuhk, tmp_path, MODEL__FILTER__TYPE="combined")


# ---------------------------------------------------------------- searches with it
def test_similarities_are_multiplied_by_the_score_of_their_image(cuhk):
    gallery, query = (build_dataset("CUHK-SYSU", cuhk, split) for split in ("gallery", "query"))
    draw = np.random.default_rng(0)
    boxes = [row["boxes"].astype(np.float32) for row in gallery.annotations]
    dets = [np.concatenate([own, np.ones((len(own), 1), np.float32)], axis=1) for own in boxes]
    feats = [draw.random((len(own), 4), dtype=np.float32) for own in boxes]
    queries = list(draw.random((len(query), 1, 4), dtype=np.float32))
    scores = draw.uniform(0.27, 0.73, (len(query), len(gallery))).astype(np.float32)
    found = evaluate_search(gallery, query, dets, feats, queries, image_scores=scores)
    twins = [
        evaluate_search(gallery, query, dets, [s * x for s, x in zip(own, feats, strict=True)], queries)["ap"][number]
        for number, own in enumerate(scores)
    ]
    np.testing.assert_allclose(found["ap"], twins)
    assert not np.allclose(found["ap"], evaluate_search(gallery, query, dets, feats, queries)["ap"])
    with pytest.raises(ValueError, match="one re-ranking"):
        evaluate_search(gallery, query, dets, feats, queries, [], cbgm=True, image_scores=scores)


def test_the_share_of_images_that_a_filter_leaves_out():
    galleries = [SimpleNamespace(images=np.arange(50), positives=np.arange(10)) for _ in range(20)]
    scores = np.random.default_rng(0).random((20, 50)) + 0.8 * (np.arange(50) < 10)
    thresholds = [t for t in np.sort(scores[:, :10].ravel()) if (scores[:, :10] >= t).mean() > 0.99]
    assert filtered_share(scores, galleries) == (scores[:, 10:] < max(thresholds)).mean() > 0.5
    everywhere = [SimpleNamespace(images=np.arange(10), positives=np.arange(10))] * 20
    assert filtered_share(scores, everywhere) == 0


@pytest.mark.slow
def test_a_run_goes_on_with_its_memory_and_is_tested_with_its_filter(cuhk, tmp_path, monkeypatch, capsys):
    def options(data, out):
        given = {"CKPT_MINUTES": 1e-6, "CKPT_KEEP": 1, **FILTER}
        return ["--cfg", CFG, *words(data, out, **given)]

    run = walk(options, cuhk, tmp_path, monkeypatch)
    state = torch.load(run / "last.pth", weights_only=True)
    assert "loss_filter" in (run / "log.txt").read_text() and len(state["image_memory"]["images"]) > 4
    arguments, metrics = (
        [*options(cuhk, run), "--filter", "--features", run / "features.npz"],
        run / "test/metrics.json",
    )
    assert call(test_tool, *arguments) == 0
    first = json.loads(metrics.read_text())
    assert [row["re-ranking"] for row in first["search"]] == ["none", "GFN"]
    assert first["filter"][0]["gallery"] == "usual" and 0 <= first["filter"][0]["frac_filter"] <= 1
    assert call(test_tool, *arguments) == 0 and "without searching" in capsys.readouterr().err
    again = json.loads(metrics.read_text())
    assert (again["search"], again["filter"]) == (first["search"], first["filter"])

    with np.load(run / "features.npz") as file:
        others = {name: array for name, array in file.items() if "scenes" not in name}
    np.savez(run / "features.npz", **others)
    assert call(test_tool, *arguments) == 1 and "of a network without gallery filter" in capsys.readouterr().err


def test_a_network_without_filter_is_refused(cuhk, tmp_path, capsys):
    torch.save({"model": tiny_model().state_dict(), "config": tiny_cfg().dump()}, tmp_path / "a.pth")
    assert call(test_tool, "--ckpt", tmp_path / "a.pth", "--filter", "INPUT.DATA_ROOT", cuhk) == 1
    assert "--filter: this network has no gallery filter (MODEL.FILTER.TYPE)" in capsys.readouterr().err
