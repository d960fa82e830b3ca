"""Backbones: torchvision classification networks cut at stride 16 into a stem, shared by everything, and a tail.

The stem's output is the res4 map. The tail (ResNet's layer4) is the start of each head: every head takes its own copy.
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

from models.tails import Tail, new_tail
from utils.tensor_files import read_tensor_file

STRIDE = 16
"""Pixels of the resized image per cell of the res4 map, the same for every backbone."""

MOBILENET_V2_TAIL = 14
"""Index of MobileNetV2's block that goes from stride 16 to 32."""


@dataclass(frozen=True)
class Backbone:
    """A network cut in two, and the channels of both outputs."""

    stem: nn.Sequential
    tail: Tail
    stem_channels: int
    tail_channels: int

    def new_tail(self) -> Tail:
        """A copy of the tail with the same weights, for one head."""
        return copy.deepcopy(self.tail)


@dataclass(frozen=True)
class BackboneSpec:
    """How a torchvision network is made and cut.

    Attributes:
        factory: torchvision's function that makes the network.
        weights: torchvision's description of its ImageNet weights.
        stages: from the network to the stages of the stem, counted from the image, and the tail, as named modules.
        channels: from the network to the channels of stem and tail.
    """

    factory: Callable[..., nn.Module]
    weights: tvm.WeightsEnum
    stages: Callable[[nn.Module], tuple[dict[str, nn.Module], dict[str, nn.Module]]]
    channels: Callable[[nn.Module], tuple[int, int]]


def _resnet_stages(net: tvm.ResNet) -> tuple[dict, dict]:
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    return {name: getattr(net, name) for name in names}, {"layer4": net.layer4}


def _resnet_channels(net: tvm.ResNet) -> tuple[int, int]:
    return net.layer4[0].conv1.in_channels, net.fc.in_features


def _mobilenet_v2_stages(net: tvm.MobileNetV2) -> tuple[dict, dict]:
    named = [(f"block{i}", block) for i, block in enumerate(net.features)]
    return dict(named[:MOBILENET_V2_TAIL]), dict(named[MOBILENET_V2_TAIL:])


def _mobilenet_v2_channels(net: tvm.MobileNetV2) -> tuple[int, int]:
    return net.features[MOBILENET_V2_TAIL].conv[0][0].in_channels, net.last_channel


BACKBONES = {
    "resnet18": BackboneSpec(tvm.resnet18, tvm.ResNet18_Weights.IMAGENET1K_V1, _resnet_stages, _resnet_channels),
    "resnet34": BackboneSpec(tvm.resnet34, tvm.ResNet34_Weights.IMAGENET1K_V1, _resnet_stages, _resnet_channels),
    "resnet50": BackboneSpec(tvm.resnet50, tvm.ResNet50_Weights.IMAGENET1K_V1, _resnet_stages, _resnet_channels),
    "resnet101": BackboneSpec(tvm.resnet101, tvm.ResNet101_Weights.IMAGENET1K_V1, _resnet_stages, _resnet_channels),
    "mobilenet_v2": BackboneSpec(
        tvm.mobilenet_v2, tvm.MobileNet_V2_Weights.IMAGENET1K_V1, _mobilenet_v2_stages, _mobilenet_v2_channels
    ),
}


def build_backbone(name: str, weights: str = "none") -> Backbone:
    """Make a backbone and load its weights.

    Args:
        name: a key of `BACKBONES`.
        weights: "none" (random), "imagenet" (downloaded by torchvision unless it is in its cache), or the path of a
            state dict with torchvision's names.

    Raises:
        ValueError: unknown name, or a file that does not fit the network.
        FileNotFoundError: the weights file is missing, or it cannot be downloaded.
    """
    if name not in BACKBONES:
        raise ValueError(f"MODEL.BACKBONE.NAME {name!r} is not one of {', '.join(BACKBONES)}")
    spec = BACKBONES[name]
    net = spec.factory(weights=None)
    if weights != "none":
        state = _download(spec.weights) if weights == "imagenet" else _read(Path(weights))
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            fault = " ".join(str(error).split())
            raise ValueError(f"the weights {weights} do not fit backbone {name}: {fault}") from error
    stem, tail = spec.stages(net)
    return Backbone(nn.Sequential(OrderedDict(stem)), new_tail(tail), *spec.channels(net))


def _download(weights: tvm.WeightsEnum) -> dict:
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, OSError) as error:
        raise FileNotFoundError(
            f"the ImageNet weights could not be downloaded ({error}): put {weights.url} at {file}, or set "
            "MODEL.BACKBONE.WEIGHTS to a file or to none"
        ) from error


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"no backbone weights at {path} (MODEL.BACKBONE.WEIGHTS)")
    state = read_tensor_file(path, "file of backbone weights")
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path} holds no backbone weights: set MODEL.BACKBONE.WEIGHTS to another file")
    return state


# ------------------------------------------------------------------------------------------------------------- freezing
BN_SCOPES = ("none", "stem", "all")


@dataclass(frozen=True)
class FreezePolicy:
    """What of the backbone does not learn.

    Attributes:
        stages: stages whose parameters are frozen; stage 1 is the first convolution with its batch norm, stage 2 the
            next block of layers, and so on.
        bn_affine: whose batch-norm weights and biases are frozen besides: "none", "stem", or "all" (tails too).
        bn_statistics: whose running statistics are frozen and used in training; same choices.
    """

    stages: int = 1
    bn_affine: str = "none"
    bn_statistics: str = "none"

    def __post_init__(self):
        for field in ("bn_affine", "bn_statistics"):
            if getattr(self, field) not in BN_SCOPES:
                raise ValueError(f"MODEL.BACKBONE.FROZEN_{field.upper()} must be one of {', '.join(BN_SCOPES)}")
        if self.stages < 0:
            raise ValueError("MODEL.BACKBONE.FROZEN_STAGES must not be negative")

    def freeze_parameters(self, stem: nn.Sequential, tails: list[nn.Module]) -> None:
        """Take gradients off the frozen parameters."""
        for stage in _stages(stem)[: self.stages]:
            stage.requires_grad_(False)
        for norm in self._norms(self.bn_affine, stem, tails):
            norm.requires_grad_(False)

    def freeze_statistics(self, stem: nn.Sequential, tails: list[nn.Module]) -> None:
        """Put the frozen batch-norm layers into eval mode; to be called after each `train()`."""
        for norm in self._norms(self.bn_statistics, stem, tails):
            norm.eval()

    @staticmethod
    def _norms(scope: str, stem: nn.Sequential, tails: list[nn.Module]) -> list[nn.Module]:
        roots = {"none": [], "stem": [stem], "all": [stem, *tails]}[scope]
        return [module for root in roots for module in root.modules() if isinstance(module, nn.BatchNorm2d)]


def _stages(stem: nn.Sequential) -> list[nn.Module]:
    """Stages as people count them: ResNet's conv1 and bn1 are one, and relu and max pool have nothing to freeze."""
    children = [child for child in stem.children() if any(True for _ in child.parameters())]
    if hasattr(stem, "bn1"):
        return [nn.ModuleList(children[:2]), *children[2:]]
    return children
