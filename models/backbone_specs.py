"""The classification networks that serve as backbones, and how each is cut; another one is one more entry."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torchvision.models as tvm
from torch import Tensor, nn
from torchvision.ops import Permute

from models import solider

CHANNELS_LAST, CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]

Layers = OrderedDict[str, nn.Module]


@dataclass(frozen=True)
class BackboneSpec:
    """A torchvision network, and how it is cut.

    Attributes:
        network: function that returns the network with random weights.
        layers: function that returns the network's layers by name, in order, without the classifier.
        ends: names of the layers whose outputs are C3, C4 and C5.
        channels: of C3, C4 and C5.
        batch_norm: whether it has batch norms.
        stochastic_depth: whether its residual branches are dropped at random in training.
        translate: from a file's weights and the network to the network's state dict; raises ValueError where the file
            does not fit. None: files have the network's own names.
    """

    network: Callable[[], nn.Module]
    layers: Callable[[nn.Module], Layers]
    ends: tuple[str, str, str]
    channels: tuple[int, int, int]
    batch_norm: bool = True
    stochastic_depth: bool = False
    translate: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] | None = None


def _resnet_layers(net: nn.Module) -> Layers:
    return OrderedDict((name, layer) for name, layer in net.named_children() if name not in ("avgpool", "fc"))


def _mobilenet_v2_layers(net: nn.Module) -> Layers:
    return OrderedDict((f"block{name}", block) for name, block in net.features.named_children())


def _stage_layers(net: nn.Module) -> Layers:
    """The patch embedding, and each stage together with the downsampling before it."""
    embedding, first, *others = net.features
    stages = [embedding, first, *map(nn.Sequential, others[::2], others[1::2])]
    return OrderedDict((f"stage{number}", stage) for number, stage in enumerate(stages, start=1))


def _swin_network(factory: Callable[[], nn.Module]) -> nn.Module:
    """A Swin transformer with what classification does not need: `norm4` and `norm5`, layer norms of C4 and C5."""
    net = factory()
    net.norm4, net.norm5 = (nn.LayerNorm(net.features[stage][0].norm1.normalized_shape) for stage in (5, 7))
    return net


def _swin_layers(net: nn.Module) -> Layers:
    """The stages, from maps B x C x h x w to such maps; the sums that residual branches leave are normalised."""
    layers = _stage_layers(net)
    for name, norm in (("stage4", net.norm4), ("stage5", net.norm5)):
        layers[name].append(norm)
    for name, stage in layers.items():
        before = [] if name == "stage1" else [Permute(CHANNELS_LAST)]
        layers[name] = nn.Sequential(*before, stage, Permute(CHANNELS_FIRST))
    return layers


RESNET_ENDS, STAGE_ENDS = ("layer2", "layer3", "layer4"), ("stage3", "stage4", "stage5")


def convnext(factory: Callable[[], nn.Module], *channels: int) -> BackboneSpec:
    """A ConvNeXt; for channels see `BackboneSpec`."""
    return BackboneSpec(factory, _stage_layers, STAGE_ENDS, channels, batch_norm=False, stochastic_depth=True)


def swin(factory: Callable[[], nn.Module], *channels: int) -> BackboneSpec:
    """A Swin transformer."""
    network = partial(_swin_network, factory)
    return BackboneSpec(network, _swin_layers, STAGE_ENDS, channels, batch_norm=False, stochastic_depth=True)


def solider_swin(factory: Callable[..., nn.Module], *channels: int) -> BackboneSpec:
    """A Swin transformer as SOLIDER has it, whose weights are one of its files."""
    return replace(swin(partial(factory, **solider.CHANGES), *channels), translate=solider.torchvision_state)


BACKBONES = {
    "resnet18": BackboneSpec(tvm.resnet18, _resnet_layers, RESNET_ENDS, (128, 256, 512)),
    "resnet34": BackboneSpec(tvm.resnet34, _resnet_layers, RESNET_ENDS, (128, 256, 512)),
    "resnet50": BackboneSpec(tvm.resnet50, _resnet_layers, RESNET_ENDS, (512, 1024, 2048)),
    "resnet101": BackboneSpec(tvm.resnet101, _resnet_layers, RESNET_ENDS, (512, 1024, 2048)),
    "mobilenet_v2": BackboneSpec(
        tvm.mobilenet_v2, _mobilenet_v2_layers, ("block6", "block13", "block18"), (32, 96, 1280)
    ),
    "convnext_tiny": convnext(tvm.convnext_tiny, 192, 384, 768),
    "convnext_small": convnext(tvm.convnext_small, 192, 384, 768),
    "convnext_base": convnext(tvm.convnext_base, 256, 512, 1024),
    "convnext_large": convnext(tvm.convnext_large, 384, 768, 1536),
    "swin_t": swin(tvm.swin_t, 192, 384, 768),
    "swin_s": swin(tvm.swin_s, 192, 384, 768),
    "swin_b": swin(tvm.swin_b, 256, 512, 1024),
    "swin_v2_t": swin(tvm.swin_v2_t, 192, 384, 768),
    "swin_v2_s": swin(tvm.swin_v2_s, 192, 384, 768),
    "swin_v2_b": swin(tvm.swin_v2_b, 256, 512, 1024),
    "solider_swin_t": solider_swin(tvm.swin_t, 192, 384, 768),
    "solider_swin_s": solider_swin(tvm.swin_s, 192, 384, 768),
    "solider_swin_b": solider_swin(tvm.swin_b, 256, 512, 1024),
}
"""Name of a network, torchvision's where it has weights for it -> the network."""
