"""The faster replacements of plain modules: the same values and gradients; and networks prepared for searching."""

import copy
from collections import OrderedDict

import pytest
import torch
from matching import assert_same_people
from releases import SEAS
from tiny import BACKBONES as TINY_BACKBONES
from tiny import picture, target, tiny_model
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from models.deformable import DeformableConv
from models.fast import accelerate, deformable, nms, prepare_for_inference
from models.fast.roi_align import gathered_crops
from models.fast.tails import begins_with_bottleneck, tail_on_rois
from models.roi import RoIAlign, RoIs, Tail
from models.two_stage.context import GROUP_EXTRACTORS, SCENE_EXTRACTORS
from models.two_stage.person_search import PersonSearch

PIXELS, TOLERANCE = 1e-3, 1e-3
SCALE = 1 / 16
BOXES = [
    torch.tensor([[10.0, 20, 90, 130], [0.0, 0, 160, 96], [30.5, 12.25, 31, 12.5]]),  # the last is below a cell
    torch.zeros(0, 4),
    torch.tensor([[-40.0, -30, 60, 70], [100.0, 60, 400, 300], [300.0, 300, 350, 380]]),  # partly and wholly outside
]
IMAGES = [picture(96, 130, 1), picture(90, 140, 2)]
TARGETS = [target(([10.0, 10, 50, 80], 1), ([60.0, 20, 90, 90], 2)), target(([20.0, 5, 60, 85], 1))]
BOX = torch.tensor([[10.0, 10, 50, 80]])


def feature_map(channels: int = 6) -> Tensor:
    return torch.randn(3, channels, 6, 10)


# ---------------------------------------------------------------- proposals
@pytest.mark.parametrize("count", [3, 40, 5000])
@pytest.mark.parametrize("spread", [30, 3000])
def test_proposals_are_those_of_torchvision(spread, count, monkeypatch):
    """Boxes that nearly all overlap and boxes that hardly do, most of them in later blocks."""
    monkeypatch.setattr(nms, "NMS_BLOCK", 64)
    network = tiny_model(MODEL__RPN__POST_NMS_TEST=count).rpn.eval()
    corners = torch.rand(2, 1000, 2) * spread
    proposals = torch.cat([corners, corners + 5 + torch.rand(2, 1000, 2) * 40], 2)
    proposals[0, :5] = torch.nan  # as where training diverges
    given = proposals, torch.randn(2000, 1), [(spread, spread), (spread, spread // 2)], [1000]
    several_maps = *given[:3], [600, 400]
    for arguments in (given, several_maps):
        ours, theirs = nms.filter_proposals(network, *arguments), network.filter_proposals(*arguments)
        for values, wanted in zip(sum(ours, []), sum(theirs, []), strict=True):
            assert torch.equal(values, wanted)


# ---------------------------------------------------------------- RoIAlign
@pytest.mark.parametrize("size, sampling_ratio, step", [(14, 2, 1), (14, 2, 2), (7, 1, 1), ((6, 3), 3, 2)])
def test_gathered_crops_are_those_of_torchvision(size, sampling_ratio, step):
    x, roi_align = feature_map(), RoIAlign(size, sampling_ratio, SCALE)
    crops = gathered_crops(roi_align, x, BOXES, step)
    torch.testing.assert_close(crops, roi_align(x, BOXES)[:, :, ::step, ::step], atol=1e-5, rtol=1e-5)
    assert crops.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype, copies, tolerance", [(torch.float32, 1, 1e-5), (torch.bfloat16, 100, 1e-2)])
def test_gathered_crops_have_the_gradient_of_torchvision(dtype, copies, tolerance):
    """In half precision, where many RoIs cover a cell, its gradient is the sum of many small numbers."""
    boxes = [image_boxes.repeat(copies, 1) for image_boxes in BOXES]
    weights, x, gradients = torch.rand(6 * copies, 6, 7, 7), feature_map(), []
    for kernel in (RoIAlign.forward, gathered_crops):
        own = x.to(dtype).requires_grad_()
        (kernel(RoIAlign(7, 2, SCALE), own, boxes).float() * weights).sum().backward()
        gradients.append(own.grad.float())
    assert gradients[0].any()
    torch.testing.assert_close(*gradients, atol=tolerance, rtol=tolerance)


def test_no_boxes_and_boxes_that_are_not_finite_crash_nothing():
    """Training that diverges is reported by its losses; a crash here would come first."""
    odd = torch.tensor([[float("nan")] * 4, [0.0, 0, float("inf"), 50], [float("-inf"), 0, float("inf"), 50]])
    crops = gathered_crops(RoIAlign(7, 2, SCALE), feature_map(), [odd, *BOXES[1:]])
    assert not crops[: len(odd)].any()
    assert crops[len(odd) :].any()
    for kernel in (RoIAlign.forward, gathered_crops):
        assert kernel(RoIAlign(7, 2, SCALE), feature_map(), [torch.zeros(0, 4)] * 3).shape == (0, 6, 7, 7)


# ---------------------------------------------------------------- deformable convolutions
@pytest.mark.parametrize("modulated, stride, spread", [(True, 1, 0.5), (False, 2, 0.5), (True, 1, 0)])
def test_a_deformable_convolution_by_rows_is_that_of_torchvision(modulated, stride, spread, monkeypatch):
    """Values and gradients, samples outside the map, on its cells, and in several pieces; half precision in single."""
    monkeypatch.setattr(deformable, "SAMPLES", 6 * 9 * 10)
    conv = DeformableConv(6, 4, modulated, stride, bias=modulated)
    nn.init.normal_(conv.conv_offset.weight, std=spread)
    x, results = feature_map(), []
    for kernel in (DeformableConv.forward, deformable.gathered_convolution):
        own = x.clone().requires_grad_()
        output = kernel(conv, own)
        torch.manual_seed(4)
        (output * torch.randn(output.shape)).sum().backward()
        results.append([output, own.grad, *(parameter.grad for parameter in conv.parameters())])
        conv.zero_grad()
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        halved = [
            kernel(conv.bfloat16(), x.bfloat16())
            for kernel in (DeformableConv.forward, deformable.gathered_convolution)
        ]
    torch.testing.assert_close(*halved)
    monkeypatch.setattr(deformable, "KEPT", 0)  # torchvision's own kernel
    assert torch.equal(deformable.gathered_convolution(conv, x.bfloat16()), conv(x.bfloat16()))


# ---------------------------------------------------------------- tails
CHANNELS = 16


def bottleneck_tail() -> Tail:
    """A small `layer4` as ResNet-50's, in eval mode, with batch-norm statistics that are not the trivial ones."""
    shortcut = nn.Sequential(nn.Conv2d(CHANNELS, 32, 1, stride=2, bias=False), nn.BatchNorm2d(32))
    tail = Tail(OrderedDict(layer4=nn.Sequential(Bottleneck(CHANNELS, 8, 2, shortcut), Bottleneck(32, 8)))).eval()
    for module in tail.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias, 0, 0.1)
    assert begins_with_bottleneck(tail)
    return tail


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("copies, on_map", [(1, False), (20, True)])
def test_a_tail_on_the_map_is_the_tail_on_the_crops(folded, copies, on_map, dtype):
    """With few RoIs the crops are convolved, with many the map; boxes outside the map show where biases go."""
    tail = bottleneck_tail()
    if folded:
        carrier = tiny_model()
        carrier.detection_head.features.tail = tail
        tail = prepare_for_inference(carrier).detection_head.features.tail
    boxes = [image_boxes.repeat(copies, 1) for image_boxes in BOXES]
    rois = RoIs(RoIAlign(14, 2, SCALE), feature_map(CHANNELS).to(dtype), boxes)
    with torch.no_grad():
        on_rois = tail_on_rois(tail.to(dtype), rois)
        assert ("crops" not in vars(rois)) == on_map, "crops are made where they are asked for"
        tolerance = 1e-4 if dtype is torch.float32 else 0.1
        torch.testing.assert_close(on_rois, tail(rois.crops), atol=tolerance, rtol=tolerance)
        for tail.checkpointed, training in ((True, False), (True, True)):
            fresh = RoIs(rois.roi_align, rois.feature_map, boxes)
            tail_on_rois(tail.train(training), fresh)
            assert ("crops" in vars(fresh)) == (training or not on_map), "checkpointing in training needs the crops"


def test_a_tail_on_the_map_learns_what_the_tail_on_the_crops_does():
    """In double precision: in single, rounding decides which side of a ReLU's kink a value falls."""
    tail, x = bottleneck_tail().double(), feature_map(CHANNELS).double()
    results = []
    for run in (tail_on_rois, lambda own, rois: own(rois.crops)):
        own, own_x = copy.deepcopy(tail).train(), x.clone().requires_grad_()
        roi_align = RoIAlign(6, 2, SCALE)
        roi_align.forward = lambda x, boxes, own=roi_align: gathered_crops(own, x, boxes)  # torchvision's is float32
        run(own, RoIs(roi_align, own_x, [b.repeat(12, 1) for b in BOXES])).square().mean().backward()
        first = own.layer4[0]
        results.append((own_x.grad, first.conv1.weight.grad, first.downsample[0].weight.grad, first.bn1.running_mean))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9 * theirs.abs().max().item(), rtol=1e-6)


# ---------------------------------------------------------------- whole networks
def replaced(model: nn.Module) -> set[str]:
    """The kinds of modules of which methods are replaced."""
    seams = ("forward", "filter_proposals", "on_rois")
    return {type(module).__name__ for module in model.modules() if any(name in vars(module) for name in seams)}


def test_accelerate_replaces_methods_of_instances_and_copies_keep_their_own_weights():
    plain = sure_model(MODEL__BACKBONE__NAME="resnet50")
    fast = accelerate(copy.deepcopy(plain))
    assert not replaced(plain)
    assert replaced(fast) == {"RoIAlign", "ProposalNetwork", "Tail"}
    assert replaced(accelerate(tiny_model())) == {"RoIAlign", "ProposalNetwork"}, "ResNet-18 has no bottlenecks"
    assert list(fast.state_dict()) == list(plain.state_dict())
    other = copy.deepcopy(fast)
    for tail in fast.tails():
        nn.init.zeros_(tail.layer4[2].conv3.weight)
    assert_same_search(other, plain)


def test_elsewhere_sampling_alone_is_replaced_and_only_under_deterministic_algorithms():
    for deterministic, expected in ((False, set()), (True, {"RoIAlign", "DeformableConv"})):
        torch.use_deterministic_algorithms(deterministic)
        try:
            model = tiny_model().to("meta")
            model.deformable = DeformableConv(4, 4, modulated=True)
            assert replaced(accelerate(model)) == expected
        finally:
            torch.use_deterministic_algorithms(False)


def sure_model(**options) -> PersonSearch:
    """A network whose batch norms have seen images, and that takes all of some proposals for people.

    No threshold or suppression decides what it finds, so that rounding does not either.
    """
    sure = {f"MODEL__DETECTION_HEAD__{name}": value for name, value in (("SCORE_THRESH", -1.0), ("NMS_THRESH", 1.0))}
    model = tiny_model(**sure | options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.5
    with torch.no_grad():
        model(IMAGES, TARGETS)
        model.detection_head.predictor.cls_score.weight.mul_(3)
    corners = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(4)) * 60
    proposals = list(torch.cat([corners, corners + 30], dim=2))
    model.rpn.propose = lambda feature_map, batch: (proposals[: len(feature_map)], {})
    return model.eval()


def assert_same_search(model: PersonSearch, twin: PersonSearch) -> None:
    ours, theirs = (network.search(IMAGES, [BOX, BOX]) for network in (model, twin))
    for one, same in zip(ours, theirs, strict=True):
        assert len(one.boxes)
        assert_same_people(vars(one), vars(same), PIXELS, TOLERANCE)
        torch.testing.assert_close(one.query_embeddings, same.query_embeddings, atol=TOLERANCE, rtol=0)


NETWORKS = {
    "resnet50": {"MODEL__BACKBONE__NAME": "resnet50"},
    "mobilenet_v2": {"MODEL__BACKBONE__NAME": "mobilenet_v2"},
    **{name: {"MODEL__BACKBONE__NAME": name} for name in TINY_BACKBONES},
    "seas": SEAS,
    "parts": {"MODEL__PARTS": True, "MODEL__ROI_ALIGN__SIZE": 14},
    **{f"scene {name}": {"MODEL__CONTEXT__SCENE": name} for name in SCENE_EXTRACTORS},
    **{f"group {name}": {"MODEL__CONTEXT__GROUP": name} for name in GROUP_EXTRACTORS},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prepared_network_finds_what_the_plain_one_does_which_stays_as_it_is(name):
    model = sure_model(**NETWORKS[name])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare_for_inference(model.train())
    assert model.training and not prepared.training and not replaced(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert_same_search(prepared, model.eval())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in prepared.modules()), "all are folded"
    assert not any(parameter.requires_grad for parameter in prepared.parameters())


class NormFirst(nn.Module):
    """Registers its batch norm behind its convolution, and applies it before."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x).relu())


def relu_twice(channels: int) -> nn.Sequential:
    """A ReLU between convolution and norm that came before: `named_children` does not name it there."""
    relu = nn.ReLU()
    return nn.Sequential(relu, nn.Conv2d(channels, channels, 1), relu, nn.BatchNorm2d(channels))


@pytest.mark.parametrize("extractor", [NormFirst, relu_twice])
def test_a_batch_norm_that_does_not_follow_a_convolution_is_not_folded_into_it(extractor, monkeypatch):
    monkeypatch.setitem(SCENE_EXTRACTORS, "pool", extractor)
    model = sure_model(MODEL__CONTEXT__SCENE="pool")
    prepared = prepare_for_inference(model)
    assert_same_search(prepared, model)
    left = [name for name, module in prepared.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(left) == 1 and "extractor" in left[0]


@pytest.mark.parametrize(
    "backbone, dtype",
    [("resnet18", torch.bfloat16), ("resnet18", torch.float16), *((name, torch.bfloat16) for name in TINY_BACKBONES)],
)
def test_reduced_precision_is_near_and_gives_float32(backbone, dtype):
    model = sure_model(MODEL__BACKBONE__NAME=backbone)
    del model.rpn.propose  # its own proposals, in reduced precision
    plain, prepared, predictions = model.search(IMAGES[:1], [BOX])[0], prepare_for_inference(model, dtype), []
    prepared.detection_head.predictor.register_forward_hook(lambda *args: predictions.extend(args[2]))
    prepared.search_head.box_regressor.register_forward_hook(lambda *args: predictions.append(args[2]))
    reduced = prepared.search(IMAGES[:1], [BOX])[0]
    assert [values.dtype for values in predictions] == [torch.float32] * 3, "fewer digits make scores equal"
    for name in ("boxes", "scores", "embeddings", "query_embeddings"):
        assert getattr(reduced, name).dtype == torch.float32, name
    similarity = (reduced.query_embeddings * plain.query_embeddings).sum(1)
    assert 0.98 < similarity.item() < 1 - 1e-9
    assert {weight.dtype for weight in prepared.stem.parameters()} == {dtype}
    assert {weight.dtype for weight in model.stem.parameters()} == {torch.float32}


def test_a_compiled_network_finds_the_same(monkeypatch):
    """Compiled by a backend that needs no compiler."""
    compiled, compile_module = [], nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self: (compiled.append(self), compile_module(self, backend="eager"))
    )
    model = sure_model()
    prepared = prepare_for_inference(model, compiled=True)
    assert compiled == prepared.inference_modules()
    assert_same_search(prepared, model)
