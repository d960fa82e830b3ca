"""The anchor-free family at a small size: its programs, its cells and queries, and what it refuses."""

import json

import pytest
import torch
import torch.nn.functional as F
from golden.fill import FOLDER
from programs import walk
from tiny import OPTIONS, ROOT, SHORT, picture, target, tiny_cfg, tiny_model

from defaults import load_cfg
from engine.checkpoint import load_weights
from engine.networks import open_network
from models import build_model
from models.anchor_free.cells import STRIDE, cell_centres, find_positives
from models.anchor_free.detections import Detections, best_overlapping
from models.anchor_free.memory import FocalOIMLoss, triplet_loss
from models.fast import accelerate, prepare_for_inference
from tools.common import check_options
from utils.errors import UserError

SMALL = {
    "MODEL.FAMILY": "anchor_free",
    "MODEL.ANCHOR_FREE.WIDTH": 32,
    "MODEL.ANCHOR_FREE.DEFORMABLE": True,
    # Untrained, everybody is unlikely.
    "MODEL.ANCHOR_FREE.MIN_PROBABILITY": 0.001,
    "MODEL.GALLERY_SCORE_THRESH": 0.0,
}
KEYWORDS = {name.replace(".", "__"): value for name, value in SMALL.items()}
IMAGES = [picture(96, 130, 1), picture(90, 140, 2)]
TARGETS = [
    target(([10.0, 10, 50, 80], 1), ([60.0, 20, 90, 90], 2)),
    target(([20.0, 5, 60, 85], 1), ([80.0, 10, 120, 80], -1)),
]
BOX = torch.tensor([[10.0, 10, 50, 80]])


def small_model(**options):
    return tiny_model(**KEYWORDS | options)


def options(data, out) -> list[str]:
    """The recipe for CUHK-SYSU, small and short."""
    common = {name: value for name, value in (OPTIONS | SHORT).items() if not name.startswith("MODEL.")}
    # A checkpoint at each step: the smallest backbone, which has no deformable convolutions.
    common |= SMALL | {"MODEL.BACKBONE.NAME": "mobilenet_v2", "MODEL.ANCHOR_FREE.DEFORMABLE": False}
    common |= {"MODEL.BACKBONE.WEIGHTS": "none", "MODEL.OIM.QUEUE_SIZE": 8, "INPUT.MIN_SIZE": 64, "INPUT.MAX_SIZE": 96}
    common |= {"INPUT.DATA_ROOT": data, "OUTPUT_DIR": out, "CKPT_MINUTES": 1e-6, "CKPT_KEEP": 1}
    given = [str(word) for pair in common.items() for word in pair]
    return ["--cfg", ROOT / "configs" / "alignps_cuhk_sysu.yaml", *given]


@pytest.mark.slow
def test_every_program_takes_it(cuhk, tmp_path, monkeypatch):
    run = walk(options, cuhk, tmp_path, monkeypatch)
    assert "loss_triplet" in (run / "log.txt").read_text()
    assert torch.load(run / "last.pth", weights_only=True)["model"]["memory.lut"].any()


def test_it_learns_and_comes_back_from_its_checkpoint():
    model, other = small_model(), small_model()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.01, momentum=0.9)
    totals = []
    for _ in range(3):
        losses = model(IMAGES, TARGETS)
        totals.append(sum(losses[name] for name in ("loss_cls", "loss_box", "loss_centreness")))  # memory changes
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35)
        optimizer.step()
        optimizer.zero_grad()
    assert totals[-1] < totals[0]
    load_weights(other, {"model": model.state_dict()})
    ours, theirs = model.eval().query(IMAGES, [BOX, BOX]), other.eval().query(IMAGES, [BOX, BOX])
    for one, same in zip(ours, theirs, strict=True):
        assert torch.equal(one["embeddings"], same["embeddings"]) and len(one["context"]["boxes"]) > 1


def test_scales_of_targets_resize_images_and_boxes(monkeypatch):
    model, seen = small_model(), []
    monkeypatch.setattr(model, "losses", lambda *args: seen.append(args) or {})
    model(IMAGES, [TARGETS[0] | {"scale": 0.5}, TARGETS[1] | {"scale": 1.3333}])
    [(batch, resized)] = seen
    assert batch.sizes == [(48, 65), (128, 199)]  # of limits 48, 80 and 128, 213
    assert resized[0]["boxes"][0].tolist() == pytest.approx([5, 5, 25, 40])


def test_images_without_people_have_a_loss_of_classification_alone():
    model = small_model()
    losses = model(IMAGES, [target(), target()])
    sum(losses.values()).backward()
    assert {name for name, loss in losses.items() if loss} == {"loss_cls"}
    # Several processes wait for the gradient of every parameter.
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_mixed_precision_keeps_losses_finite_and_embeddings_close():
    model = accelerate(small_model())
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(IMAGES, TARGETS)
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss.dtype is torch.float32 for loss in losses.values())
    model.query_cells = lambda boxes, found, centre_cells: centre_cells  # rounding may choose another detection
    exact = model.eval().query(IMAGES[:1], [BOX])[0]["embeddings"]
    rounded = prepare_for_inference(model, torch.bfloat16).query(IMAGES[:1], [BOX])[0]["embeddings"]
    assert torch.cosine_similarity(exact, rounded).item() > 0.98


@pytest.mark.parametrize("query", ["overlap", "centre"])
def test_a_result_does_not_depend_on_the_batch(query):
    model = small_model(MODEL__ANCHOR_FREE__QUERY=query).eval()
    together = model.search([*IMAGES, picture(150, 100, 3)], [BOX] * 3)
    for image, found in zip([*IMAGES, picture(150, 100, 3)], together, strict=True):
        alone = model.search([image], [BOX])[0]
        for name in ("boxes", "scores", "embeddings", "query_embeddings"):
            torch.testing.assert_close(getattr(found, name), getattr(alone, name), atol=1e-4, rtol=1e-4)


def test_given_boxes_take_the_best_overlapping_detection_or_else_the_cell_under_their_centre():
    found = Detections(torch.tensor([[50.0, 50, 70, 90], [12, 12, 50, 80]]), torch.ones(2), torch.tensor([7, 5]))
    boxes = torch.cat([BOX, torch.tensor([[100.0, 10, 120, 20]])])
    assert best_overlapping(boxes, found, torch.tensor([3, 4])).tolist() == [5, 4]
    nobody = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert best_overlapping(boxes, nobody, torch.tensor([3, 4])).tolist() == [3, 4]

    model = small_model(MODEL__ANCHOR_FREE__QUERY="centre").eval()
    batch = model.preprocess(IMAGES[:1])
    p3 = model.neck(list(model.backbone(batch.tensors).values()))
    column, row = (int(c // STRIDE) for c in (batch.resize_boxes([BOX])[0].view(2, 2).mean(0)))
    vector = (p3 - p3.mean((2, 3), keepdim=True))[0, :, row, column]
    torch.testing.assert_close(model.query(IMAGES[:1], [BOX])[0]["embeddings"][0], F.normalize(vector, dim=0))


def test_positive_cells_are_those_of_the_description():
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(6, 2, generator=generator) * 90
    boxes = torch.cat([corners, corners + 4 + 60 * torch.rand(6, 2, generator=generator)], dim=1)
    boxes = torch.cat([boxes, boxes[:1]])  # of equal boxes the first
    truth = {"boxes": boxes, "labels": torch.tensor([4, -1, 2, 3, 1, 5, 6])}
    centres = cell_centres(20, 18, torch.device("cpu"))
    by_area = sorted(zip(truth["labels"].tolist(), boxes.tolist(), strict=True), key=lambda pair: area(pair[1]))
    expected = {}
    for cell, (x, y) in enumerate(centres.tolist()):
        for label, (x1, y1, x2, y2) in by_area:
            near = abs(x - (x1 + x2) / 2) < 12 and abs(y - (y1 + y2) / 2) < 12
            if near and x1 < x < x2 and y1 < y < y2 and 360 + cell not in expected:
                expected[360 + cell] = (label, [(x - x1) / 8, (y - y1) / 8, (x2 - x) / 8, (y2 - y) / 8])
    positives = find_positives(centres, [target(), truth])
    assert positives.cells.tolist() == list(expected) and len(expected) > 20
    assert positives.labels.tolist() == [label for label, _ in expected.values()]
    torch.testing.assert_close(positives.distances, torch.tensor([sides for _, sides in expected.values()]))


def area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def test_faults_of_the_release_are_options():
    vectors, labels = F.normalize(torch.randn(6, 40)), torch.tensor([1, 1, 2, 2, -1, -1])
    whole, faulty = (FocalOIMLoss(40, 3, 4, 0.5, 10.0, 10.0, True, dims) for dims in (0, 16))
    for memory in (whole, faulty):
        memory(vectors, labels)
    assert (
        whole.cq[:2].equal(vectors[4:]) and faulty.cq[:2, :16].equal(vectors[4:, :16]) and not faulty.cq[:, 16:].any()
    )
    lut = F.normalize(torch.randn(3, 40))
    for without_first, rows in ((True, [1, 1]), (False, [0, 0, 1, 1])):
        anchors = torch.cat([vectors[:4], lut[rows]])
        expected = plain_triplet_loss(anchors, [1, 1, 2, 2, *(row + 1 for row in rows)])
        for half in (False, True):  # where it is computed in float32 nevertheless
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                assert triplet_loss(vectors, labels, lut, without_first).item() == pytest.approx(expected, abs=1e-5)


def plain_triplet_loss(vectors, labels) -> float:
    total = 0.0
    for vector, label in zip(vectors, labels, strict=True):
        distances = [((vector - other).norm().item(), own == label) for other, own in zip(vectors, labels, strict=True)]
        farthest = max(distance for distance, same in distances if same)
        total += max(0, farthest - min(distance for distance, same in distances if not same) + 0.3)
    return total / len(labels)


# ------------------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    "name, value, message",
    [
        ("QUERY", "middle", "ANCHOR_FREE.QUERY 'middle' is not one of overlap, centre"),
        ("WIDTH", 40, "WIDTH must be a multiple of 32"),
        ("QUEUE_DIMS", 33, "QUEUE_DIMS must be 0 to 32"),
        ("STRIDE_IN_1X1", True, "STRIDE_IN_1X1 needs resnet50 or resnet101, not resnet18"),
    ],
)
def test_values_that_do_not_exist_or_go_together_are_refused(name, value, message):
    with pytest.raises(UserError, match=message):
        small_model(**{f"MODEL__ANCHOR_FREE__{name}": value})
    with pytest.raises(UserError, match="DEFORMABLE needs a ResNet, not mobilenet_v2"):
        small_model(MODEL__BACKBONE__NAME="mobilenet_v2")


@pytest.mark.parametrize(
    "option, message",
    [
        (["MODEL.ANCHOR_FREE.STRIDE_IN_1X1", "True"], "STRIDE_IN_1X1 needs weights of Caffe"),
        (["MODEL.BACKBONE.PIXELS", "bgr"], "PIXELS must be rgb, which MODEL.BACKBONE.WEIGHTS imagenet take"),
    ],
)
def test_a_training_from_weights_of_torchvision_takes_them_as_they_are(option, message):
    cfg = load_cfg(ROOT / "configs" / "alignps_prw.yaml", [*option, "MODEL.OIM.NUM_IDS", "3"])
    with torch.device("meta"):
        build_model(cfg)  # without weights
        with pytest.raises(UserError, match=message):
            build_model(cfg, pretrained=True)


def test_options_of_another_family_are_refused_by_name():
    with pytest.raises(UserError, match=r"anchor_free does not have MODEL.DETECTION_HEAD.BATCH_SIZE, MODEL.ROI_ALIGN"):
        check_options(tiny_cfg(MODEL__FAMILY="anchor_free"))
    with pytest.raises(UserError, match="two_stage does not have MODEL.ANCHOR_FREE.QUERY: leave out"):
        check_options(tiny_cfg(MODEL__ANCHOR_FREE__QUERY="centre"))


def test_weights_of_the_other_family_name_the_config_that_fits(tmp_path):
    keys = json.loads((FOLDER / "keys.json").read_text())["alignps_plus"]["tensors"]
    release = {"state_dict": {key: torch.zeros(()).expand(shape) for key, shape in keys.items()}, "meta": {}}
    files = r"configs/releases/alignps_plus_cuhk_sysu.yaml or configs/releases/alignps_plus_prw.yaml"
    with pytest.raises(UserError, match=rf"they are of AlignPS\+ \(2021\), whose network is in {files}$"):
        load_weights(tiny_model(), release)
    cfg = load_cfg(None, [str(word) for pair in SMALL.items() for word in pair])
    torch.save({"model": build_model(cfg).state_dict(), "config": cfg.dump()}, tmp_path / "best.pth")
    with pytest.raises(UserError, match="do not fit .*convert_checkpoint .*best.pth --save-config"):
        load_weights(tiny_model(), tmp_path / "best.pth")
    assert open_network(tmp_path / "best.pth", ROOT / "configs" / "cuhk_sysu.yaml")[0].MODEL.FAMILY == "anchor_free"
