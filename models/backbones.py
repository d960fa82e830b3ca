"""Backbones: torchvision's classification networks, cut at stride 16 into stem and tail, or giving maps C3, C4 and C5.

Another torchvision network is one more entry in `BACKBONES`.
"""

import copy
import urllib.error
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision.models as tvm
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from models.roi import Tail
from utils.errors import UserError
from utils.tensor_files import read_tensor_file

STRIDE = 16  # pixels of the resized image per cell of the stem's map (C4), the same for every backbone

LEVELS = ("c3", "c4", "c5")  # names of the maps at strides 8, 16 and 32

Layers = OrderedDict[str, nn.Module]


@dataclass(frozen=True)
class BackboneSpec:
    """How a torchvision network is made and cut.

    Attributes:
        factory: torchvision's function that makes the network.
        weights: torchvision's description of its ImageNet weights.
        layers: function that returns the network's layers by name, in order, without the classifier.
        ends: names of the layers whose outputs are C3, C4 and C5.
        channels: of C3, C4 and C5.
    """

    factory: Callable[..., nn.Module]
    weights: tvm.WeightsEnum
    layers: Callable[[nn.Module], Layers]
    ends: tuple[str, str, str]
    channels: tuple[int, int, int]


def _resnet(factory: Callable, weights: tvm.WeightsEnum, channels: tuple[int, int, int]) -> BackboneSpec:
    return BackboneSpec(factory, weights, _resnet_layers, ("layer2", "layer3", "layer4"), channels)


def _resnet_layers(net: nn.Module) -> Layers:
    return OrderedDict((name, layer) for name, layer in net.named_children() if name not in ("avgpool", "fc"))


def _mobilenet_v2_layers(net: nn.Module) -> Layers:
    return OrderedDict((f"block{name}", block) for name, block in net.features.named_children())


BACKBONES = {
    "resnet18": _resnet(tvm.resnet18, tvm.ResNet18_Weights.IMAGENET1K_V1, (128, 256, 512)),
    "resnet34": _resnet(tvm.resnet34, tvm.ResNet34_Weights.IMAGENET1K_V1, (128, 256, 512)),
    "resnet50": _resnet(tvm.resnet50, tvm.ResNet50_Weights.IMAGENET1K_V1, (512, 1024, 2048)),
    "resnet101": _resnet(tvm.resnet101, tvm.ResNet101_Weights.IMAGENET1K_V1, (512, 1024, 2048)),
    "mobilenet_v2": BackboneSpec(
        tvm.mobilenet_v2,
        tvm.MobileNet_V2_Weights.IMAGENET1K_V1,
        _mobilenet_v2_layers,
        ("block6", "block13", "block18"),
        (32, 96, 1280),
    ),
}


@dataclass(frozen=True)
class SplitBackbone:
    """A network cut at stride 16: the stem, which all heads share, and the tail, of which each head takes a copy."""

    stem: nn.Sequential
    tail: Tail
    stem_channels: int
    tail_channels: int

    def new_tail(self) -> Tail:
        """A copy of the tail, for one head."""
        return copy.deepcopy(self.tail)


class FeatureMaps(IntermediateLayerGetter):
    """A network from images B x 3 x H x W to its maps `c3`, `c4` and `c5`, at strides 8, 16 and 32.

    Attributes:
        channels: of each map, by name.
    """

    def __init__(self, layers: Layers, spec: BackboneSpec):
        super().__init__(nn.Sequential(layers), dict(zip(spec.ends, LEVELS, strict=True)))
        self.channels = dict(zip(LEVELS, spec.channels, strict=True))


def build_backbone(name: str, weights: str = "none") -> SplitBackbone:
    """A backbone cut into stem and tail; for arguments and errors see `build_feature_maps`."""
    spec = BACKBONES[name]
    layers = list(_layers(name, weights).items())
    cut = 1 + [layer for layer, _ in layers].index(spec.ends[1])
    stem, tail = OrderedDict(layers[:cut]), OrderedDict(layers[cut:])
    return SplitBackbone(nn.Sequential(stem), Tail(tail), *spec.channels[1:])


def build_feature_maps(name: str, weights: str = "none") -> FeatureMaps:
    """A backbone that gives the maps C3, C4 and C5.

    Args:
        name: a key of `BACKBONES`.
        weights: "none" (random), "imagenet" (downloaded by torchvision unless it is in its cache), or the path of a
            state dict with torchvision's names.

    Raises:
        UserError: a file that does not fit the network.
        FileNotFoundError: the weights file is missing, or it cannot be downloaded.
    """
    return FeatureMaps(_layers(name, weights), BACKBONES[name])


def _layers(name: str, weights: str) -> Layers:
    spec = BACKBONES[name]
    net = spec.factory(weights=None)
    if weights != "none":
        state = _download(spec.weights) if weights == "imagenet" else _read(Path(weights))
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            fault = " ".join(str(error).split())
            raise UserError(f"the weights {weights} do not fit backbone {name}: {fault}") from error
    return spec.layers(net)


def _download(weights: tvm.WeightsEnum) -> dict:
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, OSError) as error:
        raise FileNotFoundError(
            f"the ImageNet weights could not be downloaded ({error}): put {weights.url} at {file}, or train from other "
            "weights or none"
        ) from error


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"no backbone weights at {path}")
    state = read_tensor_file(path, "file of backbone weights")
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UserError(f"{path} holds no backbone weights: take another file")
    return state
