"""Faster replacements of the plain modules: the same results up to rounding.

They replace methods of instances (`module.forward`), never classes, so weights and their names stay, and copies work.
"""

import copy
from collections.abc import Callable
from itertools import pairwise
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.base import PersonSearchModel
from models.deformable import DeformableConv
from models.fast.deformable import gathered_convolution
from models.fast.nms import filter_proposals
from models.fast.roi_align import gathered_crops
from models.fast.tails import begins_with_bottleneck, tail_on_rois
from models.roi import RoIAlign, Tail

IN_ORDER = tuple(kind.forward for kind in (nn.Sequential, IntermediateLayerGetter, Tail, BasicBlock, Bottleneck))
"""Forward methods that apply a batch norm registered right behind a convolution to that convolution's output."""


def accelerate(model: PersonSearchModel) -> PersonSearchModel:
    """Put the faster replacements into a network, for training and searching; the same network is returned.

    On CPUs: RoIAlign and deformable convolutions by gathering rows, non-maximum suppression in blocks, the tails' first
    convolutions on the map. On CUDA, under deterministic algorithms: RoIAlign and deformable convolutions. Everywhere
    weights, and with them feature maps, are channels-last.

    Args:
        model: already on its device, which decides what is replaced.
    """
    model.to(memory_format=torch.channels_last)
    on_cpu = model.preprocess.mean.device.type == "cpu"
    by_rows = on_cpu or torch.are_deterministic_algorithms_enabled()
    for module in model.modules():
        if isinstance(module, RoIAlign) and by_rows:
            module.forward = MethodType(gathered_crops, module)
        elif isinstance(module, DeformableConv) and by_rows:
            module.forward = MethodType(gathered_convolution, module)
        elif isinstance(module, RegionProposalNetwork) and on_cpu:
            module.filter_proposals = MethodType(filter_proposals, module)
        elif isinstance(module, Tail) and on_cpu and begins_with_bottleneck(module):
            module.on_rois = MethodType(tail_on_rois, module)
    return model


def prepare_for_inference(
    model: PersonSearchModel, dtype: torch.dtype | None = None, compiled: bool = False
) -> PersonSearchModel:
    """A copy of a network, in eval mode, that searches faster and cannot be trained.

    In the network's `inference_modules`, batch norms are folded into the convolutions before them where the order is
    certain: in nn.Sequential and in ResNet's blocks. In reduced precision weights are converted once; boxes,
    embeddings and scores stay float32.

    Args:
        model: the network, in any mode, on its device; it is left as it is.
        dtype: bfloat16 or float16 for reduced precision, None for float32.
        compiled: compile these modules by torch.compile; on CPUs not the tails, whose convolutions on the map are not
            compiled. The first images take long, those of a second size again.
    """
    searcher = accelerate(copy.deepcopy(model)).eval().requires_grad_(False)
    for module in searcher.inference_modules():
        fold_batch_norms(module)
        if dtype is not None:
            module.to(dtype)
            module.register_forward_pre_hook(_cast_to(dtype))
        module.to(memory_format=torch.channels_last)
        if compiled:
            module.compile()
    return searcher


def fold_batch_norms(network: nn.Module) -> None:
    """Fold batch norms into convolutions, in modules whose forward method is known to apply them in that order."""
    for parent in [module for module in network.modules() if type(module).forward in IN_ORDER]:
        # Not by `named_children`, which leaves out what comes a second time, such as a ReLU between the two.
        for (conv_name, conv), (norm_name, norm) in pairwise(list(parent._modules.items())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())


def _cast_to(dtype: torch.dtype) -> Callable[[nn.Module, tuple], tuple]:
    """A hook that casts a module's inputs, which are a map or a list of maps."""

    def cast(_: nn.Module, inputs: tuple) -> tuple:
        (x,) = inputs
        return (x.to(dtype),) if isinstance(x, Tensor) else ([level.to(dtype) for level in x],)

    return cast
