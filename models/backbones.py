"""Backbones: torchvision's classification networks, cut at stride 16 into stem and tail, or giving maps C3, C4 and C5.

What of them does not learn is a `FreezePolicy`. The networks are in `models/backbone_specs.py`.
"""

import copy
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision.models as tvm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import StochasticDepth

from models.backbone_specs import BACKBONES, Layers
from models.roi import Tail
from utils.errors import UserError
from utils.tensor_files import read_tensor_file

STRIDE = 16  # pixels of the resized image per cell of the stem's map (C4), the same for every backbone

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)  # the first: batch and instance norms
NORM_SCOPES = ("none", "stem", "all")
SCALES = r"(?<!weight)(?<!bias)$|\.cpb_mlp\."
"""Names of what is neither weight nor bias, such as layer scales and position tables, and of Swin v2's network that
computes such a table."""
DISPENSABLE = r"^(?:fc|classifier|head|norm[45]?)\.|\.(?:num_batches_tracked|relative_position_index)$"
"""Keys that a file of weights may lack: of what is not used or computed, and of layers that torchvision's networks do
not have."""
IMAGENET = {"imagenet": "IMAGENET1K_V1", "imagenet_v2": "IMAGENET1K_V2"}
"""Our names of weights that are downloaded -> torchvision's."""


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
        weights: "none" (random); "imagenet" or "imagenet_v2", torchvision's first or second ones (downloaded unless in
            its cache); or the path of a state dict with torchvision's names, perhaps under `state_dict`, which may lack
            what is not used: classifier and counters of batch norms. For SOLIDER's networks, the path of its file.
        drop_path: for networks with stochastic depth, the probability that the last block's residual branch is dropped
            in training; it rises linearly from 0 in the first block. Below 0: torchvision's.

    Raises:
        UserError: a file that does not fit the network, or weights that torchvision does not have of it.
        FileNotFoundError: the weights file is missing, or it cannot be downloaded.
    """
    levels = dict(zip(BACKBONES[name].ends, ("c3", "c4", "c5"), strict=True))
    return IntermediateLayerGetter(nn.Sequential(_layers(name, weights, drop_path)), levels)


def _layers(name: str, weights: str, drop_path: float) -> Layers:
    spec = BACKBONES[name]
    net = spec.network()
    if drop_path >= 0:
        _set_drop_path(net, drop_path)
    if weights != "none":
        state = _download(name, weights) if weights in IMAGENET else _read(Path(weights))
        own = {key: value for key, value in net.state_dict().items() if re.search(DISPENSABLE, key)}
        try:
            net.load_state_dict(own | (spec.translate(state, net) if spec.translate else state))
        except (RuntimeError, ValueError) as error:
            fault = " ".join(str(error).split())
            raise UserError(f"the weights {weights} do not fit backbone {name}: {fault}") from error
    return spec.layers(net)


def _set_drop_path(net: nn.Module, last: float) -> None:
    """Scale the probabilities of stochastic depth so that the last one is as given."""
    drops = [module for module in net.modules() if isinstance(module, StochasticDepth)]
    factor = last / drops[-1].p
    for drop in drops:
        drop.p *= factor


def _download(name: str, weights: str) -> dict:
    versions = tvm.get_model_weights(name).__members__ if name in tvm.list_models() else {}
    if IMAGENET[weights] not in versions:
        others = " or ".join(["a file", *(ours for ours, theirs in IMAGENET.items() if theirs in versions)])
        raise UserError(f"backbone {name} has no weights {weights}: name {others}")
    version = versions[IMAGENET[weights]]
    file = Path(torch.hub.get_dir()) / "checkpoints" / version.url.rpartition("/")[2]
    try:
        return version.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise FileNotFoundError(
            f"the ImageNet weights could not be downloaded ({error}): put {version.url} at {file}, or train from other "
            "weights or none"
        ) from error


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"no backbone weights at {path}")
    state = read_tensor_file(path, "file of backbone weights")
    if isinstance(state, dict):
        state = state.get("state_dict", state.get("teacher", state))
    if not isinstance(state, dict) or not all(isinstance(key, str) and isinstance(state[key], Tensor) for key in state):
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
    """Parameters that are usually trained without weight decay, biases of other layers aside.

    Those of normalisation layers, layer scales (Liu et al., A ConvNet for the 2020s, 2022), learnt positions (Liu et
    al., Swin Transformer, 2021) and single factors.
    """
    for module_name, module in network.named_modules():
        for name, parameter in module.named_parameters(module_name, recurse=False):
            if isinstance(module, NORMS) or re.search(SCALES, name):
                yield parameter
