"""Backbones: torchvision's classification networks, cut at stride 16 into stem and tail, or giving maps C3, C4 and C5.

What of them does not learn is a `FreezePolicy`. Another torchvision network is one more entry in `BACKBONES`.
"""

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision.models as tvm
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import StochasticDepth

from models.roi import Tail
from utils.errors import UserError
from utils.tensor_files import read_tensor_file

STRIDE = 16  # pixels of the resized image per cell of the stem's map (C4), the same for every backbone

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)  # the first: batch and instance norms
NORM_SCOPES = ("none", "stem", "all")
SCALES = r"(?:^|\.)layer_scale$"  # names of weights that act as those of a normalisation layer do
UNUSED = r"^(?:fc|classifier)\.|\.num_batches_tracked$"  # keys of torchvision's networks

Layers = OrderedDict[str, nn.Module]


@dataclass(frozen=True)
class BackboneSpec:
    """How a torchvision network is cut.

    Attributes:
        layers: function that returns the network's layers by name, in order, without the classifier.
        ends: names of the layers whose outputs are C3, C4 and C5.
        channels: of C3, C4 and C5.
        batch_norm: whether it has batch norms.
        stochastic_depth: whether its residual branches are dropped at random in training.
    """

    layers: Callable[[nn.Module], Layers]
    ends: tuple[str, str, str]
    channels: tuple[int, int, int]
    batch_norm: bool = True
    stochastic_depth: bool = False


def _resnet_layers(net: nn.Module) -> Layers:
    return OrderedDict((name, layer) for name, layer in net.named_children() if name not in ("avgpool", "fc"))


def _mobilenet_v2_layers(net: nn.Module) -> Layers:
    return OrderedDict((f"block{name}", block) for name, block in net.features.named_children())


def _stage_layers(net: nn.Module) -> Layers:
    """The patch embedding, and each stage together with the downsampling before it."""
    embedding, first, *others = net.features
    stages = [embedding, first, *map(nn.Sequential, others[::2], others[1::2])]
    return OrderedDict((f"stage{number}", stage) for number, stage in enumerate(stages, start=1))


def _convnext(*channels: int) -> BackboneSpec:
    ends = ("stage3", "stage4", "stage5")
    return BackboneSpec(_stage_layers, ends, channels, batch_norm=False, stochastic_depth=True)


RESNET_ENDS = ("layer2", "layer3", "layer4")
BACKBONES = {
    "resnet18": BackboneSpec(_resnet_layers, RESNET_ENDS, (128, 256, 512)),
    "resnet34": BackboneSpec(_resnet_layers, RESNET_ENDS, (128, 256, 512)),
    "resnet50": BackboneSpec(_resnet_layers, RESNET_ENDS, (512, 1024, 2048)),
    "resnet101": BackboneSpec(_resnet_layers, RESNET_ENDS, (512, 1024, 2048)),
    "mobilenet_v2": BackboneSpec(_mobilenet_v2_layers, ("block6", "block13", "block18"), (32, 96, 1280)),
    "convnext_tiny": _convnext(192, 384, 768),
    "convnext_small": _convnext(192, 384, 768),
    "convnext_base": _convnext(256, 512, 1024),
    "convnext_large": _convnext(384, 768, 1536),
}
"""torchvision's name of a network -> how it is cut."""


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


def build_backbone(name: str, weights: str = "none", drop_path: float = -1.0) -> SplitBackbone:
    """A backbone cut into stem and tail; for arguments and errors see `build_feature_maps`."""
    spec = BACKBONES[name]
    layers = list(_layers(name, weights, drop_path).items())
    cut = 1 + [layer for layer, _ in layers].index(spec.ends[1])
    stem, tail = OrderedDict(layers[:cut]), OrderedDict(layers[cut:])
    return SplitBackbone(nn.Sequential(stem), Tail(tail), *spec.channels[1:])


def build_feature_maps(name: str, weights: str = "none", drop_path: float = -1.0) -> nn.Module:
    """A network from images B x 3 x H x W to a dict of its maps `c3`, `c4` and `c5`, at strides 8, 16 and 32.

    Args:
        name: a key of `BACKBONES`.
        weights: "none" (random), "imagenet" (downloaded by torchvision unless it is in its cache), or the path of a
            state dict with torchvision's names, perhaps under `state_dict`, which may lack what is not used: classifier
            and counters of batch norms.
        drop_path: for networks with stochastic depth, the probability that the last block's residual branch is dropped
            in training; it rises linearly from 0 in the first block. Below 0: torchvision's.

    Raises:
        UserError: a file that does not fit the network.
        FileNotFoundError: the weights file is missing, or it cannot be downloaded.
    """
    levels = dict(zip(BACKBONES[name].ends, ("c3", "c4", "c5"), strict=True))
    return IntermediateLayerGetter(nn.Sequential(_layers(name, weights, drop_path)), levels)


def _layers(name: str, weights: str, drop_path: float) -> Layers:
    net = tvm.get_model(name, weights=None)
    if drop_path >= 0:
        _set_drop_path(net, drop_path)
    if weights != "none":
        state = _download(name) if weights == "imagenet" else _read(Path(weights))
        unused = {key: value for key, value in net.state_dict().items() if re.search(UNUSED, key)}
        try:
            net.load_state_dict(unused | state)
        except RuntimeError as error:
            fault = " ".join(str(error).split())
            raise UserError(f"the weights {weights} do not fit backbone {name}: {fault}") from error
    return BACKBONES[name].layers(net)


def _set_drop_path(net: nn.Module, last: float) -> None:
    """Scale the probabilities of stochastic depth so that the last one is as given."""
    drops = [module for module in net.modules() if isinstance(module, StochasticDepth)]
    factor = last / drops[-1].p
    for drop in drops:
        drop.p *= factor


def _download(name: str) -> dict:
    weights = tvm.get_model_weights(name)["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise FileNotFoundError(
            f"the ImageNet weights could not be downloaded ({error}): put {weights.url} at {file}, or train from other "
            "weights or none"
        ) from error


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"no backbone weights at {path}")
    state = read_tensor_file(path, "file of backbone weights")
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UserError(f"{path} holds no backbone weights: take another file")
    return state


@dataclass(frozen=True)
class FreezePolicy:
    """What of a backbone does not learn.

    Attributes:
        stages: stages whose parameters are frozen, counted from the image; 1 is the first convolution with its
            normalisation, 2 the next block of layers, and so on.
        norm_affine: whose normalisation layers have frozen weights and biases: "none" (beyond `stages`), "stem", or
            "all" (tails too).
        norm_statistics: whose batch norms normalise by their running statistics in training, and leave them as they
            are; the same choices.
    """

    stages: int = 1
    norm_affine: str = "none"
    norm_statistics: str = "none"

    def freeze_parameters(self, stem: nn.Module, tails: list[nn.Module]) -> None:
        """Take gradients off the frozen parameters."""
        for stage in _stages(stem)[: self.stages]:
            stage.requires_grad_(False)
        for norm in _norms(self.norm_affine, stem, tails):
            norm.requires_grad_(False)

    def freeze_statistics(self, stem: nn.Module, tails: list[nn.Module]) -> None:
        """Put the frozen normalisation layers into eval mode; to be called after each `train()`."""
        for norm in _norms(self.norm_statistics, stem, tails):
            norm.eval()


def _norms(scope: str, stem: nn.Module, tails: list[nn.Module]) -> list[nn.Module]:
    roots = {"none": [], "stem": [stem], "all": [stem, *tails]}[scope]
    return [module for root in roots for module in root.modules() if isinstance(module, NORMS)]


def _stages(stem: nn.Module) -> list[nn.Module]:
    """The children with parameters; a first convolution and a normalisation beside it are one stage."""
    children = [child for child in stem.children() if any(True for _ in child.parameters())]
    if len(children) > 1 and isinstance(children[1], NORMS):
        return [nn.ModuleList(children[:2]), *children[2:]]
    return children


def scale_parameters(network: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters that weight decay serves badly, biases outside normalisation layers aside.

    Those of normalisation layers, and layer scales (Liu et al., A ConvNet for the 2020s, 2022, train so).
    """
    for module_name, module in network.named_modules():
        for name, parameter in module.named_parameters(module_name, recurse=False):
            if isinstance(module, NORMS) or re.search(SCALES, name):
                yield parameter
