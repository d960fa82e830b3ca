"""The variants of a network that a benchmark compares: from what is straightforward to what the programs run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.inference import prepare_for_inference
from models.person_search import PersonSearch
from models.roi_align import RoIAlign, torchvision_crops
from models.tails import Tail


def straightforward(
    model: PersonSearch, dtype: torch.dtype | None, memory_format: torch.memory_format = torch.contiguous_format
) -> PersonSearch:
    """The network layer by layer as trained, in one memory format throughout; the one handed in is changed.

    RoIAlign is torchvision's, tails run on its crops, batch norms are layers of their own, and reduced precision is
    autocast's alone.
    """

    def in_format(_, inputs: tuple[Tensor, ...]) -> Tensor:
        return inputs[0].contiguous(memory_format=memory_format)

    def crops(*arguments) -> Tensor:
        return torchvision_crops(*arguments).contiguous(memory_format=memory_format)

    for part in model.modules():
        if isinstance(part, RoIAlign):
            part.kernel = crops
        elif isinstance(part, Tail):
            part.of_rois = partial(Tail.of_rois, part)
    model.to(memory_format=memory_format)
    model.stem.register_forward_pre_hook(in_format)
    model.precision = dtype
    return model


def _channels_last(model: PersonSearch, dtype: torch.dtype | None) -> PersonSearch:
    return straightforward(model, dtype, torch.channels_last)


def _compiled(model: PersonSearch, dtype: torch.dtype | None) -> PersonSearch:
    model = prepare_for_inference(model, dtype, compiled=True)
    model.stem = nn.Sequential(model.stem)  # hooks on the stem stay outside of what is compiled
    return model


@dataclass(frozen=True)
class Variant:
    """One way to run a network.

    Attributes:
        help: what it is, for the table's legend.
        prepare: from the network in eval mode, on its device, and the dtype of reduced precision (None: float32) to the
            network that is run. The one that was handed in is not used any more.
        tuned_allocator: whether the process keeps freed memory, as the programs do (utils.allocator).
    """

    help: str
    prepare: Callable[[PersonSearch, torch.dtype | None], PersonSearch]
    tuned_allocator: bool = True


VARIANTS = {
    "release": Variant("contiguous maps, the C library's own memory allocator", straightforward, tuned_allocator=False),
    "straightforward": Variant("contiguous maps, the allocator keeps freed memory", straightforward),
    "channels-last": Variant("the same with maps in channels-last format", _channels_last),
    "fast": Variant("as the programs search", prepare_for_inference),
    "compiled": Variant("the same with stem and tails compiled by torch.compile", _compiled),
}
