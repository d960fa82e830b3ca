"""The fast ways to the same results: gathered crops, convolutions before RoIAlign, folded batch norms."""

import copy

import pytest
import torch
from models.tails import BottleneckTail, Tail
from scipy.optimize import linear_sum_assignment
from tiny import picture, target, tiny_model
from torchvision.ops import roi_align

from models import rpn
from models.backbones import BACKBONES, build_backbone
from models.fast import prepare_for_inference
from models.roi import RoIAlign, RoIs, gathered_crops, torchvision_crops
from models.two_stage.context import GROUP_EXTRACTORS, SCENE_EXTRACTORS
from models.two_stage.person_search import PersonSearch

PIXELS, TOLERANCE = 1e-3, 1e-3
STRIDE = 16
BOXES = [
    torch.tensor([[10.0, 20, 90, 130], [0.0, 0, 160, 96], [30.5, 12.25, 31, 12.5]]),  # the last is below a cell
    torch.zeros(0, 4),
    torch.tensor([[-40.0, -30, 60, 70], [100.0, 60, 400, 300], [300.0, 300, 350, 380]]),  # partly and wholly outside
]
FEW = {"MODEL__DETECTION_HEAD__SCORE_THRESH": 0.01, "MODEL__SEARCH_HEAD__SCORE_THRESH": 0.01}
IMAGES = [picture(96, 130, 1), picture(90, 140, 2)]
TARGETS = [target(([10.0, 10, 50, 80], 1), ([60.0, 20, 90, 90], 2)), target(([20.0, 5, 60, 85], 1))]
BOX = torch.tensor([[10.0, 10, 50, 80]])


def feature_map(channels: int = 6) -> torch.Tensor:
    return torch.randn(3, channels, 6, 10)


@pytest.mark.parametrize("count", [3, 40, 5000])
@pytest.mark.parametrize("spread", [30, 3000])
def test_proposals_are_those_of_torchvision(spread, count, monkeypatch):
    """Boxes that nearly all overlap and boxes that hardly do, most of them in later blocks."""
    monkeypatch.setattr(rpn, "NMS_BLOCK", 64)
    network = tiny_model(MODEL__RPN__POST_NMS_TEST=count).rpn.eval()
    corners = torch.rand(2, 1000, 2) * spread
    proposals = torch.cat([corners, corners + 5 + torch.rand(2, 1000, 2) * 40], 2)
    proposals[0, :5] = torch.nan  # as where training diverges
    given = proposals, torch.randn(2000, 1), [(spread, spread), (spread, spread // 2)], [1000]
    found = network.filter_proposals(*given), super(type(network), network).filter_proposals(*given)
    for ours, theirs in zip(*found, strict=True):
        assert [len(values) for values in ours] == [len(values) for values in theirs]
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("size, sampling_ratio, step", [(14, 2, 1), (14, 2, 2), (7, 1, 1), (5, 3, 2)])
def test_gathered_crops_are_those_of_torchvision(size, sampling_ratio, step):
    x = feature_map()
    expected = roi_align(x, BOXES, size, 1 / STRIDE, sampling_ratio, aligned=False)[:, :, ::step, ::step]
    for kernel in (gathered_crops, torchvision_crops):
        crops = kernel(x, BOXES, size, 1 / STRIDE, sampling_ratio, step)
        torch.testing.assert_close(crops, expected, atol=1e-5, rtol=1e-5)
        assert crops.is_contiguous(memory_format=torch.channels_last)


def test_gathered_crops_have_the_gradient_of_torchvision():
    weights = torch.randn(6, 6, 7, 7)
    gradients = []
    for kernel in (gathered_crops, torchvision_crops):
        x = feature_map().requires_grad_()
        torch.manual_seed(0)
        x.data.copy_(torch.randn_like(x))
        (kernel(x, BOXES, 7, 1 / STRIDE, 2, 1) * weights).sum().backward()
        gradients.append(x.grad)
    assert gradients[0].any()
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [gathered_crops, torchvision_crops])
def test_half_precision_loses_no_gradient(kernel):
    """Where many RoIs cover a cell, its gradient is the sum of many small numbers."""
    boxes = [torch.tensor([[10.0, 20, 90, 80]]).repeat(100, 1)] * 3
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(3, 6, 6, 10, dtype=dtype, requires_grad=True)
        kernel(x, boxes, 7, 1 / STRIDE, 2, 1).float().sum().backward()
        gradients.append(x.grad.float())
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-2, rtol=1e-2)


def test_boxes_that_are_not_finite_give_crops_of_zeros():
    """Training that diverges is told of by its losses; a crash here would come first."""
    odd = torch.tensor([[float("nan")] * 4, [0.0, 0, float("inf"), 50], [float("-inf"), 0, float("inf"), 50]])
    crops = gathered_crops(feature_map(), [odd, *BOXES[1:]], 7, 1 / STRIDE, 2, 1)
    assert not crops[: len(odd)].any()
    assert crops[len(odd) :].any()


def test_no_boxes_give_no_crops():
    assert RoIAlign(7, 2, STRIDE)(feature_map(), [torch.zeros(0, 4)] * 3).shape == (0, 6, 7, 7)


def test_bins_without_samples_are_refused():
    with pytest.raises(ValueError, match=r"MODEL.ROI_ALIGN.SAMPLING_RATIO must be 1 or more"):
        RoIAlign(7, 0, STRIDE)


def bottleneck_tail(folded: bool) -> tuple[BottleneckTail, int]:
    """A ResNet-50 tail with batch-norm statistics that are not the trivial ones."""
    backbone = build_backbone("resnet50")
    tail = backbone.tail.eval()
    for module in tail.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    if folded:
        carrier = tiny_model()
        carrier.detection_head.features.tail = tail
        tail = prepare_for_inference(carrier).detection_head.features.tail
    return tail, backbone.stem_channels


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("copies, on_map", [(1, False), (20, True)])
def test_a_tail_on_the_map_is_the_tail_on_the_crops(folded, copies, on_map):
    """With few RoIs the crops are convolved, with many the map; boxes outside the map show where biases go."""
    tail, channels = bottleneck_tail(folded)
    boxes = [image_boxes.repeat(copies, 1) for image_boxes in BOXES]
    rois = RoIs(RoIAlign(14, 2, STRIDE), feature_map(channels), boxes)
    with torch.no_grad():
        on_rois = tail.of_rois(rois)
        assert ("crops" not in vars(rois)) == on_map, "crops are made where they are asked for"
        torch.testing.assert_close(on_rois, tail(rois.crops), atol=1e-4, rtol=1e-4)


def test_a_tail_on_the_map_learns_what_the_tail_on_the_crops_does():
    """In double precision: in single, rounding decides which side of a ReLU's kink a value falls."""
    tail, channels = bottleneck_tail(folded=False)
    tail, x = tail.double(), feature_map(channels).double()
    results = []
    for run in (lambda own, rois: own.of_rois(rois), lambda own, rois: own(rois.crops)):
        own, own_x = copy.deepcopy(tail).train(), x.clone().requires_grad_()
        rois = RoIs(RoIAlign(6, 2, STRIDE), own_x, [b.repeat(12, 1) for b in BOXES])
        run(own, rois).square().mean().backward()
        statistics = own.layer4[0].bn1.running_mean
        results.append(
            (own_x.grad, own.layer4[0].conv1.weight.grad, own.layer4[0].downsample[0].weight.grad, statistics)
        )
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9 * theirs.abs().max().item(), rtol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_checkpointed_tails_learn_the_same_and_count_a_batch_once(name):
    backbone = build_backbone(name)
    x, results, calls = feature_map(backbone.stem_channels), [], {}
    for checkpointed in (False, True):
        tail, own_x = backbone.new_tail().train(), x.clone().requires_grad_()
        tail.checkpointed, calls[checkpointed] = checkpointed, []
        tail.layer4[0].register_forward_hook(lambda *_, run=calls[checkpointed]: run.append(1))
        Tail.of_rois(tail, RoIs(RoIAlign(6, 2, STRIDE), own_x, BOXES)).square().mean().backward()
        results.append((own_x.grad, *(p.grad for p in tail.parameters()), *tail.buffers()))
    assert (len(calls[False]), len(calls[True])) == (1, 2), "the second computes its activations again"
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=1e-6)


def test_a_checkpointed_tail_works_on_the_map_when_it_does_not_learn():
    backbone = build_backbone("resnet50")
    tail = backbone.tail.eval()
    tail.checkpointed = True
    rois = RoIs(RoIAlign(14, 2, STRIDE), feature_map(backbone.stem_channels), [b.repeat(20, 1) for b in BOXES])
    with torch.no_grad():
        tail.of_rois(rois)
    assert "crops" not in vars(rois)


def test_an_option_checkpoints_all_tails():
    for asked in (False, True):
        model = tiny_model(MODEL__BACKBONE__CHECKPOINT_TAILS=asked, MODEL__PARTS=True, MODEL__ROI_ALIGN__SIZE=14)
        assert [tail.checkpointed for tail in model.tails()] == [asked] * 5


def test_only_bottleneck_tails_work_on_the_map():
    kinds = {name: type(build_backbone(name).tail) for name in BACKBONES}
    assert {name for name, kind in kinds.items() if kind is BottleneckTail} == {"resnet50", "resnet101"}


def trained_a_little(**options) -> PersonSearch:
    """A network whose batch norms have seen images, and that takes many proposals for people."""
    model = tiny_model(**FEW | options)
    with torch.no_grad():
        for _ in range(3):
            model(IMAGES, TARGETS)
        model.detection_head.predictor.cls_score.weight.mul_(3)
    return model.eval()


def plain_twin(model: PersonSearch) -> PersonSearch:
    """The same network without any of the fast paths."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, RoIAlign):
            module.kernel = torchvision_crops
        if isinstance(module, BottleneckTail):
            module.of_rois = lambda rois, tail=module: Tail.of_rois(tail, rois)
    return twin


def assert_same_search(model: PersonSearch, twin: PersonSearch, pixels: float, tolerance: float) -> None:
    ours, theirs = (network.search(IMAGES, [BOX, BOX]) for network in (model, twin))
    for one, same in zip(ours, theirs, strict=True):
        assert one.boxes.shape == same.boxes.shape and len(one.boxes)
        # Scores that are equal up to rounding leave the order open.
        rows, columns = linear_sum_assignment((one.boxes[:, None] - same.boxes[None]).abs().amax(2))
        torch.testing.assert_close(one.boxes[rows], same.boxes[columns], atol=pixels, rtol=0)
        torch.testing.assert_close(one.scores[rows], same.scores[columns], atol=tolerance, rtol=0)
        torch.testing.assert_close(one.embeddings[rows], same.embeddings[columns], atol=tolerance, rtol=0)
        torch.testing.assert_close(one.query_embeddings, same.query_embeddings, atol=tolerance, rtol=0)


NETWORKS = {
    "resnet50": {"MODEL__BACKBONE__NAME": "resnet50"},
    "mobilenet_v2": {"MODEL__BACKBONE__NAME": "mobilenet_v2"},
    "parts": {"MODEL__PARTS": True, "MODEL__ROI_ALIGN__SIZE": 14},
    **{f"scene {name}": {"MODEL__CONTEXT__SCENE": name} for name in SCENE_EXTRACTORS},
    **{f"group {name}": {"MODEL__CONTEXT__GROUP": name} for name in GROUP_EXTRACTORS},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prepared_network_finds_what_the_plain_one_does(name):
    model = trained_a_little(**NETWORKS[name])
    prepared = prepare_for_inference(model)
    assert_same_search(prepared, plain_twin(model), PIXELS, TOLERANCE)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in prepared.modules()), "all are folded"


def test_preparing_leaves_the_network_as_it_is_and_the_copy_does_not_learn():
    model = trained_a_little().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare_for_inference(model)
    assert model.training and not prepared.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in prepared.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_near_and_gives_float32(dtype):
    model = trained_a_little()
    plain = model.search(IMAGES, [BOX, BOX])[0]
    prepared = prepare_for_inference(model, dtype)
    predictions = []
    prepared.detection_head.predictor.register_forward_hook(lambda *args: predictions.extend(args[2]))
    prepared.search_head.box_regressor.register_forward_hook(lambda *args: predictions.append(args[2]))
    reduced = prepared.search(IMAGES, [BOX, BOX])[0]
    assert [values.dtype for values in predictions] == [torch.float32] * 3, "fewer digits make scores equal"
    for name in ("boxes", "scores", "embeddings", "query_embeddings"):
        assert getattr(reduced, name).dtype == torch.float32, name
    similarity = (reduced.query_embeddings * plain.query_embeddings).sum(1)
    assert 0.98 < similarity.item() < 1 - 1e-9
    assert prepared.stem.conv1.weight.dtype == dtype
    assert model.stem.conv1.weight.dtype == torch.float32


def test_a_compiled_network_finds_the_same(monkeypatch):
    """Compiled by a backend that needs no compiler."""
    compiled, compile_module = [], torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: (compiled.append(self), compile_module(self, backend="eager"))
    )
    model = trained_a_little()
    prepared = prepare_for_inference(model, compiled=True)
    assert compiled == [prepared.stem, *prepared.tails()]
    assert_same_search(prepared, model, PIXELS, TOLERANCE)
