"""Every model family trains, comes back from its checkpoint, and each numeric option does what it says."""

import pytest
import torch
import torch.nn.functional as F
from tiny import picture, target, tiny_model

from engine.checkpoint import load_weights
from models.preprocess import ImageBatch
from models.roi import RoIAlign, RoIs, Tail
from models.two_stage.boxes import RoISampler, Samples
from models.two_stage.features import GlobalFeatures
from models.two_stage.pixelwise import PixelwiseEmbedding, _coverage
from models.two_stage.rpn import ProposalNetwork

NO_CONTEXT = {"MODEL__CONTEXT__SCENE": "none", "MODEL__CONTEXT__GROUP": "none"}
SINGLE = NO_CONTEXT | {"MODEL__DETECTION_HEAD__TYPE": "none"}
FAMILIES = {
    "oim": SINGLE | {"MODEL__SEARCH_HEAD__TYPE": "linear", "MODEL__SEARCH_HEAD__BOX_BATCH_NORM": False},
    "nae": SINGLE | {"MODEL__SEARCH_HEAD__BACKGROUND_IOU": 0.1},
    "nae_plus": SINGLE | {"MODEL__SEARCH_HEAD__TYPE": "pixelwise", "MODEL__SEARCH_HEAD__BACKGROUND_IOU": 0.1},
    "seqnet": NO_CONTEXT,
    "glcnet_scene": {"MODEL__CONTEXT__GROUP": "none"},
    "glcnet_group": {"MODEL__CONTEXT__SCENE": "none"},
    "glcnet": {},
    "glcnet_parts": {"MODEL__PARTS": True, "MODEL__ROI_ALIGN__SIZE": 14, "MODEL__SEARCH_HEAD__BATCH_SIZE": 4},
}
IMAGES = [picture(96, 130, 1), picture(90, 140, 2)]
TARGETS = [
    target(([10.0, 10, 50, 80], 1), ([60.0, 20, 90, 90], 2)),
    target(([20.0, 5, 60, 85], 1), ([80.0, 10, 120, 80], -1)),
]
BOX = torch.tensor([[10.0, 10, 50, 80]])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_and_comes_back_from_its_checkpoint(name):
    model = tiny_model(**FAMILIES[name])
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.001, momentum=0.9)
    totals = []
    for _ in range(6):
        torch.manual_seed(5)  # the same RoIs in every step, so that the losses can be compared
        losses = model(IMAGES, TARGETS)
        assert all(loss.isfinite() for loss in losses.values())
        total = sum(losses.values())
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        optimizer.zero_grad()
        totals.append(total.item())
    assert totals[-1] < totals[0]

    other = tiny_model(**FAMILIES[name]).eval()
    load_weights(other, {"model": model.state_dict()})
    model.eval()
    with torch.inference_mode():
        ours, theirs = model.query(IMAGES, [BOX, BOX]), other.query(IMAGES, [BOX, BOX])
    for one, same in zip(ours, theirs, strict=True):
        assert torch.equal(one["embeddings"], same["embeddings"])
        for part, value in one["context"].items():
            assert torch.equal(value, same["context"][part])


@pytest.mark.parametrize("name", ["oim", "nae_plus", "glcnet"])
def test_mixed_precision_keeps_losses_finite_and_results_close(name):
    model = tiny_model(**FAMILIES[name])
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(IMAGES, TARGETS)
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss.dtype is torch.float32 for loss in losses.values())
    model.eval()
    exact = model.query(IMAGES[:1], [BOX])[0]["embeddings"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.query(IMAGES[:1], [BOX])[0]["embeddings"]
    assert torch.cosine_similarity(exact, rounded.float()).item() > 0.98


def test_boxes_keep_their_precision_in_mixed_precision():
    truth = target(([1301.0, 401, 1350, 501], 3))
    samples = RoISampler(8, 0.5, 0.5, 0.5)([torch.tensor([[1300.0, 400, 1350, 500]]).bfloat16()], [truth])[0]
    assert samples.matched[samples.is_person][0].tolist() == [1301.0, 401, 1350, 501]
    rpn = tiny_model().rpn.eval()
    with torch.autocast("cpu", torch.bfloat16):
        batch = ImageBatch(torch.zeros(1, 3, 96, 160), [(96, 160)], [(96, 160)])
        proposals = rpn.propose(torch.rand(1, 256, 6, 10, dtype=torch.bfloat16), batch)
    assert proposals[0].dtype is torch.float32


@pytest.mark.parametrize("name", ["oim", "nae", "nae_plus"])
def test_a_batch_gives_what_its_images_give_alone(name):
    model = tiny_model(**FAMILIES[name], MODEL__SEARCH_HEAD__SCORE_THRESH=0.01).eval()
    for together, image in zip(model(IMAGES), IMAGES, strict=True):
        alone = model([image])[0]
        assert len(alone["boxes"])
        for part, value in alone.items():
            torch.testing.assert_close(together[part], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"MODEL__DETECTION_HEAD__TYPE": "none"}, "CONTEXT.GROUP needs people"),
        ({"MODEL__SEARCH_HEAD__TYPE": "linear"}, "linear has neither context nor parts"),
        ({"MODEL__PARTS": True}, "ROI_ALIGN.SIZE 14, not 4"),
        ({"MODEL__SEARCH_HEAD__TYPE": "round"}, "'round' is not one of norm_aware, linear, pixelwise"),
        ({"MODEL__DETECTION_HEAD__TYPE": "two"}, "'two' is not one of faster_rcnn, none"),
        ({"MODEL__DETECTION_HEAD__POOL": "min"}, "'min' is not one of max, average"),
        ({"MODEL__RPN__BOX_LOSS": "l2"}, "'l2' is not one of l1, smooth_l1"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**options)


def test_rpn_box_loss_is_l1_or_smooth_l1():
    def loss(name):
        rpn = ProposalNetwork(
            4, [32], [1.0], name, fg_iou_thresh=0.7, bg_iou_thresh=0.3,
            batch_size_per_image=4, positive_fraction=0.5, pre_nms_top_n={}, post_nms_top_n={}, nms_thresh=0.7,
        )  # fmt: skip
        deltas = torch.tensor([[0.05, 0.5, 0, 0], [0, 0, 0, 0]])
        labels = [torch.tensor([1.0, 0.0])]
        return rpn.compute_loss(torch.zeros(2, 1), deltas, labels, [torch.zeros(2, 4)])[1].item()

    assert loss("l1") == pytest.approx((0.05 + 0.5) / 2)
    assert loss("smooth_l1") == pytest.approx((0.5 * 0.05**2 * 9 + 0.5 - 1 / 18) / 2)


def test_rois_between_the_thresholds_are_not_used():
    truth = target(([0.0, 0, 10, 10], 3))
    boxes = torch.tensor([[0.0, 0, 10, 3], [50.0, 50, 60, 60]])  # IoU 0.3 and 0
    labels = {
        background: RoISampler(8, 0.5, 0.5, background)([boxes], [truth])[0].labels.sort().values.tolist()
        for background in (0.5, 0.1)
    }
    assert labels == {0.5: [0, 0, 3], 0.1: [0, 3]}


def test_pool_is_the_maximum_or_the_average():
    rois = RoIs(RoIAlign(4, 2, 1), torch.rand(1, 3, 9, 9), [torch.tensor([[1.0, 1, 5, 5], [2.0, 0, 8, 4]])])
    maximum, average = (GlobalFeatures(Tail(), 3, 3, pool)(rois) for pool in ("max", "average"))
    crops = rois.crops
    torch.testing.assert_close(maximum["res5"], crops.amax((2, 3)))
    torch.testing.assert_close(average["res4"], crops.mean((2, 3)))


def test_embeddings_carry_the_score_only_if_asked():
    norms = {}
    for weighted in (True, False):
        model = tiny_model(MODEL__SEARCH_HEAD__WEIGHT_BY_SCORE=weighted, MODEL__DETECTION_HEAD__SCORE_THRESH=0.01,
                           MODEL__SEARCH_HEAD__SCORE_THRESH=0.01).eval()  # fmt: skip
        result = model(IMAGES[:1])[0]
        norms[weighted] = result["embeddings"].norm(dim=1), result["scores"]
    torch.testing.assert_close(*norms[True])
    torch.testing.assert_close(norms[False][0], torch.ones_like(norms[False][0]))


def pixelwise(**options) -> PixelwiseEmbedding:
    options = {"normalised": True, "score_norm": "image"} | options
    return PixelwiseEmbedding({"res4": 3, "res5": 5}, {"res4": 4, "res5": 6}, **options)


def test_pixelwise_scores_are_relative_to_their_image_their_batch_or_nothing():
    logits = torch.randn(5, 2, 2)
    means = logits.sigmoid().mean((1, 2))
    expected = {
        "image": torch.cat([means[:2] / means[:2].max(), means[2:] / means[2:].max()]),
        "batch": means / means.max(),
        "none": means,
    }
    for score_norm, scores in expected.items():
        torch.testing.assert_close(torch.cat(pixelwise(score_norm=score_norm).scores(logits, [2, 3])), scores)
    assert [len(scores) for scores in pixelwise().scores(logits[:2], [2, 0])] == [2, 0]


def test_pixelwise_embeddings_are_unit_vectors_but_for_the_release_in_training():
    maps = {"res4": torch.rand(4, 3, 6, 6), "res5": torch.rand(4, 5, 3, 3)}
    for normalised, training, unit in ((True, True, True), (False, True, False), (False, False, True)):
        embedding = pixelwise(normalised=normalised).train(training)
        norms = embedding(maps)[0].norm(dim=1)
        assert torch.allclose(norms, torch.ones(4), atol=1e-5) == unit


def test_pixelwise_targets_are_masks_of_whole_pixels_resized_bilinearly():
    boxes = torch.tensor([[10.0, 10, 50, 90], [0.0, 0, 33.5, 70.2], [5.0, 5, 20, 40], [60.0, 60, 70, 90]])
    people = torch.tensor([[12.0, 20, 45, 95], [10.3, 4.6, 28.9, 60.1], [5.0, 5, 20, 40], [0.0, 0, 20, 30]])
    samples = Samples(boxes, torch.tensor([1, -1, 2, 0]), people)
    expected = torch.zeros(4, 7, 7)
    for index in range(3):
        left, top, right, bottom = boxes[index].tolist()
        mask = torch.zeros(-int(-(bottom - top) // 1), -int(-(right - left) // 1))
        x1, y1 = (max(people[index, axis].item(), low) - low for axis, low in ((0, left), (1, top)))
        x2, y2 = (
            min(people[index, axis].item(), high) - low for axis, high, low in ((2, right, left), (3, bottom, top))
        )
        mask[int(y1) : -int(-y2 // 1) + 1, int(x1) : -int(-x2 // 1) + 1] = 1
        expected[index] = F.interpolate(mask[None, None], (7, 7), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(_coverage(samples, 7), expected, atol=1e-5, rtol=0)
