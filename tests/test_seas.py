"""The parts of SEAS: sampling, strips, attention to the whole image, and the losses beside OIM, against plain twins."""

import pytest
import torch
import torch.nn.functional as F
from releases import SEAS
from tiny import picture, target, tiny_model
from torch import nn

from models.two_stage.boxes import EqualSampler
from models.two_stage.features import max_grid
from models.two_stage.identity_losses import CosineTripletLoss, IdentityClassifier
from models.two_stage.multi_granularity import MultiGranularity, RunningNorm
from models.two_stage.scene_attention import SceneAttention

SMALL = {"INPUT__MIN_SIZE": 64, "INPUT__MAX_SIZE": 96, "MODEL__RPN__POST_NMS_TEST": 8}
IMAGES, BOX = [picture(96, 130, 1), picture(90, 140, 2)], torch.tensor([[10.0, 10, 50, 80]])


@pytest.mark.parametrize(
    "people, background, chosen", [(3, 40, (3, 3)), (30, 40, (8, 8)), (0, 40, (0, 2)), (3, 2, (3, 2))]
)
def test_there_is_no_more_background_than_people(people, background, chosen):
    classes = torch.cat([torch.ones(people), torch.zeros(background), -torch.ones(5)])
    positive, negative = EqualSampler(16, 0.5)([classes])
    assert (positive[0].sum(), negative[0].sum()) == chosen
    assert (classes[positive[0] > 0] == 1).all() and (classes[negative[0] > 0] == 0).all()


# ---------------------------------------------------------------- strips
def test_each_strip_has_its_share_of_the_embedding_and_sees_its_rows_alone():
    strips, x = MultiGranularity({"res4": 32}, {"res4": 11}).eval(), torch.rand(2, 32, 7, 4)
    lower = x.clone()
    lower[:, :, 5:] += 1  # the last third, and of the last half the lower part
    widths = [[projector.project[0].out_features for projector in group] for group in strips.maps["res4"]]
    assert widths == [[4], [2, 2], [1, 1, 1]]
    changed = (strips({"res4": x}) != strips({"res4": lower})).any(0).tolist()
    assert changed == [True] * 4 + [False] * 2 + [True] * 2 + [False] * 2 + [True]


def test_a_running_norm_normalises_by_its_statistics_which_the_first_batch_sets():
    norm, batches, mean, var = RunningNorm(1, momentum=0.1, affine=False), torch.randn(3, 5, 1) * 4 + 30, None, None
    outputs = [norm(batch.requires_grad_()) for batch in batches]
    sum(output.sum() for output in outputs).backward()  # all passes before a backward
    for batch, output in zip(batches.detach(), outputs, strict=True):
        mean = batch.mean() if mean is None else 0.9 * mean + 0.1 * batch.mean()
        var = batch.var() if var is None else 0.9 * var + 0.1 * batch.var()
        torch.testing.assert_close(output, (batch - mean) / (var + 1e-5).sqrt())
    assert torch.equal(norm.eval()(batches[0]), norm(batches[0]))


# ---------------------------------------------------------------- attention
@pytest.mark.parametrize("size", [(5, 20), (7, 7), (16, 23)])
def test_the_grid_is_torchs_adaptive_max_pool(size):
    maps = torch.randn(2, 3, *size)
    assert torch.equal(max_grid(maps, 7), F.adaptive_max_pool2d(maps, 7))


def test_people_attend_to_the_tokens_of_their_own_image():
    """Against torch's attention with the same weights, person by person; an image without people is no trouble."""
    scene = SceneAttention(4, 16).eval()
    vectors, maps, counts = torch.randn(3, 16), torch.randn(3, 4, 9, 12), [2, 0, 1]
    twin = nn.MultiheadAttention(16, 8, kdim=2048, vdim=2048, batch_first=True)
    projections = (scene.query, scene.key, scene.value)
    with torch.no_grad():
        for name, projection in zip("qkv", projections, strict=True):
            getattr(twin, f"{name}_proj_weight").copy_(projection.weight)
        twin.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
        twin.out_proj.load_state_dict(scene.out.state_dict())
        grid = F.adaptive_max_pool2d(scene.extractor(maps), 7)
        places = [torch.cat([scene.rows[y, 0], scene.columns[0, x]]) for y in range(7) for x in range(7)]
        tokens = scene.token_norm(grid.flatten(2).transpose(1, 2) + torch.stack(places))
        expected = []
        for vector, image in zip(vectors, (0, 0, 2), strict=True):
            x = vector[None] + scene.before.ffn(scene.before.norm(vector[None]))
            x = twin(scene.query_norm(x), tokens[image], tokens[image])[0]
            expected.append(x + scene.after.ffn(scene.after.norm(x)))
        torch.testing.assert_close(scene(vectors, maps, counts), torch.cat(expected), atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- losses
def plain_triplets(features, labels, lut, margin):
    """Anchor by anchor."""
    known = [i for i, label in enumerate(labels.tolist()) if label > 0]
    identities = sorted({labels[i].item() for i in known})
    anchors = [(features[i], labels[i].item()) for i in known] + [(lut[i - 1], i) for i in identities]
    samples = anchors + [(features[i].detach(), -1) for i, label in enumerate(labels.tolist()) if label < 0]
    losses = []
    for anchor, own in anchors:
        worst = min(anchor @ x for x, label in samples if label == own)
        best = max(anchor @ x for x, label in samples if label != own)
        losses.append((best - worst + margin).clamp(min=0))
    return sum(losses) / len(losses)


def test_triplets_and_their_gradient_are_those_of_the_plain_loops():
    lut = F.normalize(torch.randn(6, 8))
    features, labels = F.normalize(torch.randn(9, 8)).requires_grad_(), torch.tensor([1, 1, 2, 0, -1, 4, 4, 1, -1])
    losses = CosineTripletLoss(0.25)(features, labels, lut), plain_triplets(features, labels, lut, 0.25)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, features)[0] for loss in losses))


@pytest.mark.parametrize("labels", [[0, -1, -1], [0, 0, 0], [2, 2, 0]], ids=["nobody", "background", "one identity"])
def test_without_triplets_the_loss_is_zero_with_a_gradient(labels):
    features = F.normalize(torch.randn(3, 8)).requires_grad_()
    loss = CosineTripletLoss(0.25)(features, torch.tensor(labels), F.normalize(torch.randn(6, 8)))
    loss.backward()
    assert loss.item() == 0 and not features.grad.any()


def test_the_classifier_is_trained_by_people_with_identity_alone():
    classifier, features = IdentityClassifier(8, 5), torch.randn(6, 8)
    labels = torch.tensor([1, 5, 0, -1, 3, 3])
    logits = classifier.linear(F.batch_norm(features, None, None, training=True))
    expected = F.cross_entropy(logits[labels > 0], labels[labels > 0] - 1)
    torch.testing.assert_close(classifier(features, labels, torch.zeros(5, 8)), expected)
    assert classifier(features, torch.tensor([0, -1, 0, 0, 0, 0]), torch.zeros(5, 8)) == 0


# ---------------------------------------------------------------- the whole network
def test_boxes_and_scores_are_the_first_heads_and_a_batch_gives_what_its_images_give_alone():
    model = tiny_model(**SEAS | SMALL, MODEL__DETECTION_HEAD__SCORE_THRESH=0.01, MODEL__SEARCH_HEAD__SCORE_THRESH=0.01)
    found, detect = [], model.detection_head.forward
    model.eval().detection_head.forward = lambda *args: found.append(detect(*args)) or found[-1]
    together, alone = model.search(IMAGES, [BOX, BOX]), [model.search([image], [BOX])[0] for image in IMAGES]
    for image, one, same, (boxes, scores) in zip(IMAGES, together, alone, found[1:], strict=True):
        assert len(one.boxes) > 2 and torch.equal(same.scores, scores[0])
        resized = model.preprocess([image]).resize_boxes([same.boxes])
        torch.testing.assert_close(resized, boxes, atol=1e-3, rtol=0)
        for name in ("boxes", "scores", "embeddings", "query_embeddings"):
            torch.testing.assert_close(getattr(one, name), getattr(same, name), atol=1e-4, rtol=1e-4)
        norms = one.gallery()["embeddings"].norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))


def test_images_without_people_train():
    model = tiny_model(**SEAS | SMALL)
    losses = model(IMAGES, [target(), target()])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values()) and losses["loss_box_triplet"] == 0
