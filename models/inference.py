"""A trained network made ready for searching: the same results, up to rounding, in less time."""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.person_search import PersonSearch


def prepare_for_inference(
    model: PersonSearch, dtype: torch.dtype | None = None, compiled: bool = False
) -> PersonSearch:
    """A copy of a network, in eval mode, that searches faster and cannot be trained.

    Batch norms are folded into the convolutions before them. In reduced precision the convolutions' weights are
    converted once instead of in every pass; boxes, embeddings and scores stay float32.

    Args:
        model: the network, in any mode, on its device; it is left as it is.
        dtype: bfloat16 or float16 for reduced precision, None for float32.
        compiled: compile the stem by torch.compile, and tails where they run on crops (not on CPUs, see
            `models.tails`). The first images take long, those of a second size again.
    """
    searcher = copy.deepcopy(model).eval().requires_grad_(False)
    _fold_batch_norms(searcher)
    if dtype is not None:
        for convolutions in _convolutional_parts(searcher):
            convolutions.to(dtype)
        searcher.precision = dtype
    searcher.to(memory_format=torch.channels_last)
    if compiled:
        for part in (searcher.stem, *searcher.tails()):
            part.compile()
    return searcher


def _fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm that is registered right behind a convolution, as in all networks here, into it."""
    for parent in list(network.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())


def _convolutional_parts(network: PersonSearch) -> list[nn.Module]:
    """The parts that compute in reduced precision; the heads' linear layers do not."""
    return [network.stem, network.rpn.head, *network.tails(), *network.search_head.contexts.values()]
