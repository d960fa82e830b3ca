"""Features of a RoI: from its crop of the res4 map to named vectors."""

from torch import Tensor, nn


class GlobalFeatures(nn.Module):
    """Two vectors of the whole RoI: the max pool of its crop (`res4`) and of the tail's output (`res5`).

    `channels` maps each name to its length.
    """

    def __init__(self, tail: nn.Module, stem_channels: int, tail_channels: int):
        super().__init__()
        self.tail = tail
        self.channels = {"res4": stem_channels, "res5": tail_channels}

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        """From crops R x C x s x s to name -> R x channels[name]."""
        return {"res4": crops.amax((2, 3)), "res5": self.tail(crops).amax((2, 3))}
