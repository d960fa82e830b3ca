"""The variants of a network that a benchmark compares: from what is straightforward to what the programs run."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import RoIAlign as LibraryRoIAlign

from models.features import RoIFeatures
from models.person_search import PersonSearch
from models.roi import RoIAlign


class _PlainRoIAlign(nn.Module):
    """torchvision's RoIAlign in place of the project's.

    Args:
        own: the module to stand in for.
        memory_format: of the crops.
    """

    def __init__(self, own: RoIAlign, memory_format: torch.memory_format):
        super().__init__()
        self.align = LibraryRoIAlign(own.size, 1 / own.stride, own.sampling_ratio, aligned=False)
        self.memory_format = memory_format

    def forward(self, feature_map: Tensor, boxes: list[Tensor]) -> Tensor:
        boxes = [image_boxes.float() for image_boxes in boxes]
        crops = self.align(feature_map.float(), boxes)
        return crops.to(feature_map.dtype).contiguous(memory_format=self.memory_format)


def straightforward(model: PersonSearch, memory_format: torch.memory_format = torch.contiguous_format) -> PersonSearch:
    """The network layer by layer as trained, with torchvision's RoIAlign, in one memory format throughout."""
    for part in list(model.modules()):
        for name, child in part.named_children():
            if isinstance(child, RoIAlign):
                setattr(part, name, _PlainRoIAlign(child, memory_format))
    model.to(memory_format=memory_format)
    model.stem.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous(memory_format=memory_format))
    return model


def _contiguous(model: PersonSearch, dtype: torch.dtype | None) -> PersonSearch:  # noqa: ARG001 - as all variants
    return straightforward(model)


def _channels_last(model: PersonSearch, dtype: torch.dtype | None) -> PersonSearch:  # noqa: ARG001 - as all variants
    return straightforward(model, torch.channels_last)


def _fast(model: PersonSearch, dtype: torch.dtype | None) -> PersonSearch:  # noqa: ARG001 - as all variants
    return model


def _compiled(model: PersonSearch, dtype: torch.dtype | None) -> PersonSearch:
    model = _fast(model, dtype)
    tails = [tail for part in model.modules() if isinstance(part, RoIFeatures) for tail in part.tails()]
    for part in (model.stem, *tails):
        part.compile()
    model.stem = nn.Sequential(model.stem)  # hooks on the stem stay outside of what is compiled
    return model


@dataclass(frozen=True)
class Variant:
    """One way to run a network.

    Attributes:
        help: what it is, for the table's legend.
        prepare: from the network in eval mode, on its device, and the dtype of mixed precision (None: float32) to the
            network that is run. The one that was handed in is not used any more.
        tuned_allocator: whether the process keeps freed memory, as the programs do (utils.allocator).
    """

    help: str
    prepare: Callable[[PersonSearch, torch.dtype | None], PersonSearch]
    tuned_allocator: bool = True


VARIANTS = {
    "release": Variant("contiguous maps, the C library's own memory allocator", _contiguous, tuned_allocator=False),
    "straightforward": Variant("contiguous maps, the allocator keeps freed memory", _contiguous),
    "channels-last": Variant("the same with maps in channels-last format", _channels_last),
    "fast": Variant("as the programs run it", _fast),
    "compiled": Variant("the same with stem and tails compiled by torch.compile", _compiled),
}
