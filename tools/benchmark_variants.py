"""The variants of a network that a benchmark compares: from what is straightforward to what the programs run."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.base import PersonSearchModel
from models.fast import accelerate, prepare_for_inference


def straightforward(
    model: PersonSearchModel, dtype: torch.dtype | None, memory_format: torch.memory_format
) -> PersonSearchModel:
    """The network layer by layer as trained, in one memory format throughout; the one handed in is changed.

    Reduced precision is autocast's alone.
    """

    def in_format(_, inputs: tuple[Tensor, ...]) -> Tensor:
        return inputs[0].contiguous(memory_format=memory_format)

    model.to(memory_format=memory_format)
    model.stem.register_forward_pre_hook(in_format)
    if dtype is not None:
        device = next(model.parameters()).device
        model.forward = torch.autocast(device.type, dtype)(model.forward)
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

    def searcher(self, model: PersonSearchModel, dtype: torch.dtype | None) -> PersonSearchModel:
        """The network that searches, in reduced precision unless `dtype` is None.

        `model` is in eval mode and on its device, and not to be used any more.
        """
        if self.plain is not None:
            return straightforward(model, dtype, self.plain)
        model = prepare_for_inference(model, dtype, self.compiled)
        if self.compiled:
            model.stem = nn.Sequential(model.stem)  # hooks on the stem stay outside of what is compiled
        return model

    def learner(self, model: PersonSearchModel) -> PersonSearchModel:
        """The network that is trained; `model` is not to be used any more."""
        return accelerate(model) if self.plain is None else straightforward(model, None, self.plain)


VARIANTS = {
    "release": Variant(
        "contiguous maps, the C library's own memory allocator", plain=torch.contiguous_format, tuned_allocator=False
    ),
    "straightforward": Variant("contiguous maps, the allocator keeps freed memory", plain=torch.contiguous_format),
    "channels-last": Variant("the same with maps in channels-last format", plain=torch.channels_last),
    "fast": Variant("as the programs search and train"),
    "compiled": Variant("the same with stem and tails compiled by torch.compile; inference alone", compiled=True),
}
