"""The variants of a network that a benchmark compares: from what is straightforward to what the programs run."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.inference import prepare_for_inference
from models.person_search import PersonSearch
from models.roi_align import RoIAlign, torchvision_crops
from models.tails import Tail


def straightforward(model: PersonSearch, dtype: torch.dtype | None, memory_format: torch.memory_format) -> PersonSearch:
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


@dataclass(frozen=True)
class Variant:
    """One way to run a network.

    Attributes:
        help: what it is, for the table's legend.
        plain: the memory format of a straightforward network; None for the project's own way.
        compiled: stem and tails are compiled, for searching alone.
        tuned_allocator: whether the process keeps freed memory, as the programs do (utils.allocator).
    """

    help: str
    plain: torch.memory_format | None = None
    compiled: bool = False
    tuned_allocator: bool = True

    def searcher(self, model: PersonSearch, dtype: torch.dtype | None) -> PersonSearch:
        """The network that searches, in reduced precision unless `dtype` is None.

        `model` is in eval mode and on its device, and not to be used any more.
        """
        if self.plain is not None:
            return straightforward(model, dtype, self.plain)
        model = prepare_for_inference(model, dtype, self.compiled)
        if self.compiled:
            model.stem = nn.Sequential(model.stem)  # hooks on the stem stay outside of what is compiled
        return model

    def learner(self, model: PersonSearch) -> PersonSearch:
        """The network that is trained; `model` is not to be used any more."""
        return model if self.plain is None else straightforward(model, None, self.plain)


VARIANTS = {
    "release": Variant(
        "contiguous maps, the C library's own memory allocator", plain=torch.contiguous_format, tuned_allocator=False
    ),
    "straightforward": Variant("contiguous maps, the allocator keeps freed memory", plain=torch.contiguous_format),
    "channels-last": Variant("the same with maps in channels-last format", plain=torch.channels_last),
    "fast": Variant("as the programs search and train"),
    "compiled": Variant("the same with stem and tails compiled by torch.compile; inference alone", compiled=True),
}
