"""Every model of the two-stage family trains, comes back from its checkpoint, and each numeric option acts."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from releases import NO_CONTEXT, ONE_HEAD, SEAS, SEQNEXT
from tiny import BACKBONES as TINY_BACKBONES
from tiny import picture, target, tiny_model

from engine.checkpoint import load_weights
from models.backbone_specs import BACKBONES
from models.fast import accelerate
from models.preprocess import ImageBatch
from models.roi import RoIAlign, RoIs, Tail
from models.two_stage.boxes import BOX_CODER, RoISampler, Samples, TorchvisionBoxCoder
from models.two_stage.features import TailFeatures
from models.two_stage.pixelwise import PixelwiseEmbedding, _coverage
from models.two_stage.rpn import ProposalNetwork
from utils.errors import UserError

NAE_PLUS = ONE_HEAD | {"MODEL__SEARCH_HEAD__TYPE": "pixelwise", "MODEL__SEARCH_HEAD__BACKGROUND_IOU": 0.1}
GFN = {"MODEL__FILTER__GRID": 8, "MODEL__FILTER__POSITIVES": 0, "MODEL__FILTER__NEGATIVES": 0}
NETWORKS = {
    "oim": ONE_HEAD | {"MODEL__SEARCH_HEAD__TYPE": "linear", "MODEL__SEARCH_HEAD__BOX_BATCH_NORM": False},
    "nae": ONE_HEAD | {"MODEL__SEARCH_HEAD__BACKGROUND_IOU": 0.1},
    "nae_plus": NAE_PLUS,
    "seqnet": NO_CONTEXT,
    "glcnet": {},
    "glcnet_parts": {"MODEL__PARTS": True, "MODEL__ROI_ALIGN__SIZE": 14},
    **{f"glcnet {name}": {"MODEL__BACKBONE__NAME": name} for name in TINY_BACKBONES},
    "seqnext": SEQNEXT,
    "seas": SEAS,
    "glcnet_seas": SEAS | {"MODEL__CONTEXT__SCENE": "stack", "MODEL__CONTEXT__GROUP": "stack"},
    "seqnet_softmax": NO_CONTEXT | {"MODEL__LOSS_WEIGHTS__BOX_SOFTMAX": 0.5},
    "glcnet_gfn": GFN | {"MODEL__FILTER__TYPE": "combined"},
    "seqnext_gfn": SEQNEXT | GFN | {"MODEL__FILTER__TYPE": "separate", "MODEL__FILTER__QUERIES": "prototype"},
    "nae_plus_gfn": NAE_PLUS | GFN | {"MODEL__FILTER__TYPE": "image"},
    "glcnet_seqnext": SEQNEXT | {"MODEL__CONTEXT__SCENE": "stack", "MODEL__CONTEXT__GROUP": "stack"},
}
WITH_BACKBONES = {f"glcnet {name}": {"MODEL__BACKBONE__NAME": name} for name in BACKBONES}
"""Every backbone but the tiny ones."""
FEW = {
    "INPUT__MIN_SIZE": 64,
    "INPUT__MAX_SIZE": 96,
    "MODEL__DETECTION_HEAD__BATCH_SIZE": 4,
    "MODEL__SEARCH_HEAD__BATCH_SIZE": 4,
    "MODEL__RPN__POST_NMS_TEST": 8,
}
"""Small images and few RoIs."""
IMAGES = [picture(96, 130, 1), picture(90, 140, 2)]
TARGETS = [
    target(([10.0, 10, 50, 80], 1), ([60.0, 20, 90, 90], 2)),
    target(([20.0, 5, 60, 85], 1), ([80.0, 10, 120, 80], -1)),
]
BOX = torch.tensor([[10.0, 10, 50, 80]])


def with_first_boxes(function: Callable[..., tuple]) -> Callable[..., tuple]:
    """A function that returns boxes and losses, with the boxes of its first call."""
    kept = []

    def call(*args) -> tuple:
        boxes, losses = function(*args)
        kept.append(boxes)
        return kept[0], losses

    return call


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in WITH_BACKBONES)])
def test_a_network_trains_and_comes_back_from_its_checkpoint(name):
    model, other = (tiny_model(**(NETWORKS | WITH_BACKBONES)[name] | FEW) for _ in range(2))
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.0005, momentum=0.9)
    totals = []
    model.rpn.propose = with_first_boxes(model.rpn.propose)
    model.detection_head.losses = with_first_boxes(model.detection_head.losses)
    for _ in range(2):
        torch.manual_seed(5)  # the same RoIs in every step, so that the losses can be compared
        losses = model(IMAGES, TARGETS)
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        totals.append(sum(loss.item() for name, loss in losses.items() if name != "loss_box_reid"))  # its tables change
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        optimizer.zero_grad()
    assert totals[-1] < totals[0]

    del model.rpn.propose, model.detection_head.losses
    load_weights(other, {"model": model.state_dict()})
    with torch.inference_mode():
        ours, theirs = model.eval().query(IMAGES, [BOX, BOX]), other.eval().query(IMAGES, [BOX, BOX])
    for one, same in zip(ours, theirs, strict=True):
        assert torch.equal(one["embeddings"], same["embeddings"])
        for part, value in one["context"].items():
            assert torch.equal(value, same["context"][part])
    assert set(model.identity_memory) <= model.state_dict().keys()


@pytest.mark.parametrize("name", ["nae_plus", "glcnet", "seas", *(f"glcnet {name}" for name in TINY_BACKBONES)])
def test_mixed_precision_keeps_losses_finite_and_results_close(name):
    model = accelerate(tiny_model(**NETWORKS[name] | FEW))  # half precision is slow on CPUs
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(IMAGES, TARGETS)
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss.dtype is torch.float32 for loss in losses.values())
    model.eval()
    exact = model.query(IMAGES[:1], [BOX])[0]["embeddings"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.query(IMAGES[:1], [BOX])[0]["embeddings"]
    assert torch.cosine_similarity(exact, rounded.float()).item() > 0.98


@pytest.mark.parametrize(
    "options, message",
    [
        ({"MODEL__FAMILY": "three_stage"}, "FAMILY 'three_stage' is not one of two_stage"),
        ({"MODEL__BACKBONE__NAME": "resnet5"}, "'resnet5' is not one of resnet18"),
        ({"INPUT__MIN_SIZE": 200}, "INPUT.MIN_SIZE, of the short side, must not be above INPUT.MAX_SIZE"),
        ({"MODEL__DETECTION_HEAD__TYPE": "none"}, "CONTEXT.GROUP needs people"),
        ({"MODEL__SEARCH_HEAD__TYPE": "linear"}, "linear has no context"),
        ({"MODEL__CONTEXT__SCENE": "stak"}, "SCENE 'stak' is not one of none, stack, gate"),
        ({"MODEL__PARTS": True}, "crops of 14 x 14, not 4 x 4"),
        (NO_CONTEXT | {"MODEL__SEARCH_HEAD__TYPE": "multi_granularity"}, "crops of 6 rows or more, not 4"),
        (SEAS | {"MODEL__EMBEDDING__RES4": 90}, "RES4 and RES5 must add up to a multiple of 8"),
        (SEAS | {"MODEL__PARTS": True}, "multi_granularity has no parts"),
        ({"MODEL__SEARCH_HEAD__ROI_SIZE": [14]}, r"ROI_SIZE must be \[height, width\], not \[14\]"),
        ({"MODEL__FILTER__TYPE": "scene"}, "FILTER.TYPE 'scene' is not one of none, combined, separate, image"),
        (NO_CONTEXT | {"MODEL__FILTER__TYPE": "image", "INPUT__BATCH_SIZE_TRAIN": 1}, "TYPE needs INPUT.BATCH_SIZE"),
        ({"MODEL__OIM__MEAN_OVER": "all"}, "MEAN_OVER 'all' is not one of labelled, people"),
    ],
)
def test_values_that_do_not_exist_or_go_together_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        tiny_model(**options)


# ---------------------------------------------------------------- boxes and proposals
def test_deltas_are_those_of_torchvision():
    corners = torch.rand(2, 50, 2) * 100
    boxes, others = torch.cat([corners, corners + 5 + torch.rand(2, 50, 2) * 60], dim=2)
    ours, theirs = BOX_CODER, TorchvisionBoxCoder(BOX_CODER.weights)
    deltas = ours.encode_single(others, boxes)
    assert torch.equal(deltas, theirs.encode_single(others, boxes))
    torch.testing.assert_close(ours.decode_single(deltas, boxes), others, atol=1e-4, rtol=0)
    wide = deltas * 30  # beyond the limit of widths
    torch.testing.assert_close(ours.decode_single(wide, boxes), theirs.decode_single(wide, boxes))


def test_boxes_keep_their_precision_in_mixed_precision():
    truth = target(([1301.0, 401, 1350, 501], 3))
    samples = RoISampler(8, 0.5, 0.5, 0.5)([torch.tensor([[1300.0, 400, 1350, 500]]).bfloat16()], [truth])[0]
    assert samples.matched[samples.is_person][0].tolist() == [1301.0, 401, 1350, 501]
    rpn = tiny_model().rpn.eval()
    batch = ImageBatch(torch.zeros(1, 3, 96, 160), [(96, 160)], [(96, 160)])
    with torch.autocast("cpu", torch.bfloat16):
        proposals, _ = rpn.propose(torch.rand(1, 256, 6, 10, dtype=torch.bfloat16), batch)
    assert proposals[0].dtype is torch.float32


def test_rpn_box_loss_is_l1_or_smooth_l1():
    def loss(name: str) -> float:
        rpn = ProposalNetwork(
            4, [32], [1.0], name, fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=4,
            positive_fraction=0.5, pre_nms_top_n={}, post_nms_top_n={}, nms_thresh=0.7,
        )  # fmt: skip
        deltas = torch.tensor([[0.05, 0.5, 0, 0], [0, 0, 0, 0]])
        labels = [torch.tensor([1.0, 0.0])]
        return rpn.compute_loss(torch.zeros(2, 1), deltas, labels, [torch.zeros(2, 4)])[1].item()

    assert loss("l1") == pytest.approx((0.05 + 0.5) / 2)
    assert loss("smooth_l1") == pytest.approx((0.5 * 0.05**2 * 9 + 0.5 - 1 / 18) / 2)


def test_rois_between_the_thresholds_are_not_used_and_background_has_the_first_person():
    truth = target(([0.0, 0, 10, 10], 3), ([80.0, 80, 90, 90], 4))
    boxes = torch.tensor([[0.0, 0, 10, 3], [50.0, 50, 60, 60]])  # IoU 0.3 and 0
    for background, labels in ((0.5, [0, 0, 3, 4]), (0.1, [0, 3, 4])):
        samples = RoISampler(8, 0.5, 0.5, background)([boxes], [truth])[0]
        assert samples.labels.sort().values.tolist() == labels
        assert (samples.matched[~samples.is_person] == truth["boxes"][0]).all()


# ---------------------------------------------------------------- features and scores
def test_pool_is_the_maximum_or_the_average():
    rois = RoIs(RoIAlign(4, 2, 1), torch.rand(1, 3, 9, 9), [torch.tensor([[1.0, 1, 5, 5], [2.0, 0, 8, 4]])])
    maximum, average = (TailFeatures(Tail(), {"res4": 3, "res5": 3}, pool)(rois) for pool in ("max", "average"))
    torch.testing.assert_close(maximum["res5"], rois.crops.amax((2, 3)))
    torch.testing.assert_close(average["res4"], rois.crops.mean((2, 3)))


def test_pixelwise_scores_are_relative_to_their_image_all_images_or_nothing():
    """Of images of different padded sizes, too."""
    images, scores = [*IMAGES, picture(150, 150, 3)], {}
    for norm in ("none", "image", "batch"):
        model = tiny_model(**NETWORKS["nae_plus"], MODEL__PIXELWISE__SCORE_NORM=norm).eval()
        scores[norm] = [result.scores for result in model.search(images)]
    assert len({model.preprocess.padded_size(*image.shape[1:]) for image in images}) == 2
    best = max(found.max() for found in scores["none"])
    for raw, of_image, of_batch in zip(scores["none"], scores["image"], scores["batch"], strict=True):
        torch.testing.assert_close(of_image, raw / raw.max())
        torch.testing.assert_close(of_batch, raw / best)


@pytest.mark.parametrize("normalised, training, unit", [(True, True, 1), (False, True, 0), (False, False, 1)])
def test_pixelwise_embeddings_are_unit_vectors_but_for_the_release_in_training(normalised, training, unit):
    maps = {"res4": torch.rand(4, 3, 6, 6), "res5": torch.rand(4, 5, 3, 3)}
    embedding = PixelwiseEmbedding({"res4": 3, "res5": 5}, {"res4": 4, "res5": 6}, normalised).train(training)
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
