"""Backbones: where they are cut, where their weights come from, what of them does not learn, and their tails."""

import re
import urllib.error

import pytest
import torch
import torch.nn.functional as F
from tiny import picture, target, tiny_model
from torch import nn
from torchvision.models import MobileNetV2, ResNet, SwinTransformer, get_model
from torchvision.models.convnext import CNBlock
from torchvision.ops import StochasticDepth

from models.backbones import BACKBONES, FreezePolicy, build_backbone, build_feature_maps
from utils.errors import UserError

FAST = ("resnet18", "mobilenet_v2", "tiny_convnext", "tiny_swin", "tiny_swin_v2")
SLOW = [name for name in BACKBONES if name not in FAST and "solider" not in name]  # see test_solider.py
NAMES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
"""All backbones; one of each kind in every run of the tests."""


def torchvisions_maps(net: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """C3, C4 and C5 of a torchvision network, each B x C x h x w; Swin's C4 and C5 normalised."""
    if isinstance(net, ResNet):
        x = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(images)))))
        c3 = net.layer2(x)
        c4 = net.layer3(c3)
        return [c3, c4, net.layer4(c4)]
    first, second = (7, 14) if isinstance(net, MobileNetV2) else (4, 6)
    c3 = net.features[:first](images)
    c4 = net.features[first:second](c3)
    if not isinstance(net, SwinTransformer):
        return [c3, c4, net.features[second:](c4)]
    c4 = F.layer_norm(c4, c4.shape[-1:])
    c5 = net.features[second:](c4)
    return [x.permute(0, 3, 1, 2) for x in (c3, c4, F.layer_norm(c5, c5.shape[-1:]))]


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_the_kinds_of_layers_that_it_says(name):
    with torch.device("meta"):
        modules = list(build_feature_maps(name).modules())
    for kind, stated in ((nn.BatchNorm2d, "batch_norm"), (StochasticDepth, "stochastic_depth")):
        assert any(isinstance(module, kind) for module in modules) == getattr(BACKBONES[name], stated)


@pytest.mark.parametrize("name", NAMES)
def test_maps_stem_and_tail_are_torchvisions_intermediate_features(name, tmp_path):
    spec = BACKBONES[name]
    net, images = spec.network().eval(), torch.rand(1, 3, 64, 96)
    for block in net.modules():
        if isinstance(block, CNBlock):
            nn.init.normal_(block.layer_scale)  # as it is made, nothing of the block would be left
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    expected = torchvisions_maps(net, images)

    network = build_feature_maps(name, str(tmp_path / "weights.pth")).eval()
    maps = network(images)
    assert list(maps) == ["c3", "c4", "c5"]
    for found, wanted, channels, stride in zip(maps.values(), expected, spec.channels, (8, 16, 32), strict=True):
        assert found.shape == (1, channels, 64 // stride, 96 // stride)
        torch.testing.assert_close(found, wanted)

    # Other files of the same weights may lack what is not used, or computed.
    unused = r"(fc|classifier|norm[45]?|head)\..*|.*(num_batches_tracked|relative_position_index)"
    bare = {key: value for key, value in net.state_dict().items() if not re.fullmatch(unused, key)}
    torch.save({"state_dict": bare}, tmp_path / "bare.pth")
    backbone = build_backbone(name, str(tmp_path / "bare.pth"))
    c4 = backbone.stem.eval()(images)
    assert (backbone.stem_channels, backbone.tail_channels) == spec.channels[1:]
    torch.testing.assert_close(c4, expected[1])
    torch.testing.assert_close(backbone.tail.eval()(c4), expected[2])


# ---------------------------------------------------------------- stochastic depth
def test_stochastic_depth_is_torchvisions_or_rises_linearly_to_the_value_given():
    def probabilities(name: str, *args) -> list[float]:
        backbone = build_backbone(name, *args)
        modules = [*backbone.stem.modules(), *backbone.tail.modules()]
        return [module.p for module in modules if isinstance(module, StochasticDepth)]

    assert probabilities("tiny_convnext") == pytest.approx([0.1 * block / 5 for block in range(6)])
    assert probabilities("tiny_convnext", "none", 0.25) == pytest.approx([0.05 * block for block in range(6)])
    assert probabilities("tiny_swin", "none", 0.0) == [0] * 8


@pytest.mark.parametrize(
    "option, value, name",
    [
        ("DROP_PATH", 0.1, "resnet18"),
        ("FROZEN_BN_AFFINE", "stem", "tiny_convnext"),
        ("FROZEN_BN_STATISTICS", "all", "tiny_swin"),
    ],
)
def test_an_option_that_a_backbone_does_not_have_is_refused(option, value, name):
    with pytest.raises(UserError, match=f"MODEL.BACKBONE.{option} must be .*: {name} has no"):
        tiny_model(**{"MODEL__BACKBONE__NAME": name, f"MODEL__BACKBONE__{option}": value})


# ---------------------------------------------------------------- weights
def test_a_failed_download_is_one_sentence_that_names_the_file(monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(FileNotFoundError, match=r"put https://\S+/(resnet18-\w+\.pth) at \S+/checkpoints/\1"):
        build_backbone("resnet18", "imagenet")


def test_torchvisions_second_weights_are_taken_where_it_has_them(monkeypatch):
    urls = []
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, *_, **__: (urls.append(url), get_model("mobilenet_v2").state_dict())[1],
    )
    build_backbone("mobilenet_v2", "imagenet")
    build_backbone("mobilenet_v2", "imagenet_v2")
    assert [url.rpartition("/")[2] for url in urls] == ["mobilenet_v2-b0353104.pth", "mobilenet_v2-7ebf99e0.pth"]
    with pytest.raises(UserError, match="backbone resnet18 has no weights imagenet_v2: name a file or imagenet$"):
        build_backbone("resnet18", "imagenet_v2")


@pytest.mark.parametrize(
    "content, message",
    [
        ({"conv1.weight": torch.zeros(1)}, "do not fit backbone resnet18"),
        ({1: torch.zeros(1)}, "holds no backbone weights"),
    ],
)
def test_wrong_files_are_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        build_backbone("resnet18", str(tmp_path / "a.pth"))
    (tmp_path / "a.pth").write_text("hello")
    with pytest.raises(UserError, match=r"a.pth is damaged, or is not a file of backbone weights"):
        build_backbone("resnet18", str(tmp_path / "a.pth"))
    with pytest.raises(FileNotFoundError, match="no backbone weights at"):
        build_backbone("resnet18", str(tmp_path / "none.pth"))


# ---------------------------------------------------------------- freezing
def test_the_first_convolution_and_any_normalisation_beside_it_are_one_stage():
    for norm in (nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4), nn.LayerNorm([4, 4, 4])):
        stem = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.ReLU(), nn.Conv2d(4, 4, 1))
        FreezePolicy(stages=1).freeze_parameters(stem, [])
        assert {name for name, p in stem.named_parameters() if p.requires_grad} == {"3.weight", "3.bias"}


@pytest.mark.parametrize("scope, moving", [("none", ["stem", "tail"]), ("stem", ["tail"]), ("all", [])])
def test_frozen_statistics_stay_and_others_move(scope, moving):
    model = tiny_model(MODEL__BACKBONE__FROZEN_BN_STATISTICS=scope).train()
    norms = {"stem": model.stem.bn1, "tail": model.search_head.features[0].tail.layer4[0].bn1}
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    model([picture(90, 160, 1), picture(120, 100, 2)], [target(([20.0, 10, 60, 80], label)) for label in (1, 2)])
    assert [name for name, norm in norms.items() if not torch.equal(before[name], norm.running_mean)] == moving


def test_frozen_stages_and_affine_have_no_gradient():
    model = tiny_model(MODEL__BACKBONE__FROZEN_STAGES=2, MODEL__BACKBONE__FROZEN_BN_AFFINE="all")
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("stem.conv1", "stem.bn1", "stem.layer1")) for name in learns)
    assert "stem.layer2.0.conv1.weight" in learns
    assert not any(".bn1." in name for name in learns if "tail" in name or name.startswith("stem"))


@pytest.mark.parametrize("name", ["tiny_convnext", "tiny_swin"])
def test_downsampling_belongs_to_the_stage_that_follows(name):
    stem, net = build_backbone(name).stem, BACKBONES[name].network()
    FreezePolicy(stages=3).freeze_parameters(stem, [])
    frozen = [p.shape for p in net.features[:4].parameters()]
    assert [p.shape for p in stem.parameters() if not p.requires_grad] == frozen
    assert not any(p.requires_grad for p in stem[:3].parameters())


# ---------------------------------------------------------------- checkpointing of tails
@pytest.mark.parametrize("name, drop_path", [("resnet18", -1), ("tiny_convnext", 0.5), ("tiny_swin", 0.5)])
def test_checkpointed_tails_learn_the_same_and_count_a_batch_once(name, drop_path):
    backbone = build_backbone(name, "none", drop_path)
    backbone.tail.train()
    x, results, calls = torch.randn(6, backbone.stem_channels, 6, 6), [], {}
    for checkpointed in (False, True):
        tail, own_x = backbone.new_tail(), x.clone().requires_grad_()
        tail.checkpointed, calls[checkpointed] = checkpointed, []
        next(tail.children())[0].register_forward_hook(lambda *_, run=calls[checkpointed]: run.append(1))
        torch.manual_seed(3)
        output = tail(own_x)
        torch.rand(5)  # the recomputation must not depend on what is drawn in between
        output.square().mean().backward()
        results.append((output, own_x.grad, *(p.grad for p in tail.parameters()), *tail.buffers()))
    assert (len(calls[False]), len(calls[True])) == (1, 2), "the second computes its activations again"
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=1e-6)


def test_each_head_and_each_division_into_parts_has_a_tail_of_its_own_which_an_option_checkpoints():
    for chosen in (False, True):
        model = tiny_model(MODEL__BACKBONE__CHECKPOINT_TAILS=chosen, MODEL__PARTS=True, MODEL__ROI_ALIGN__SIZE=14)
        assert [tail.checkpointed for tail in model.tails()] == [chosen] * 5
    weights = [tail.layer4[0].conv1.weight for tail in model.tails()]
    assert all(torch.equal(weight, weights[0]) for weight in weights)
    assert len({weight.data_ptr() for weight in weights}) == 5
