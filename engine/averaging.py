"""An exponential moving average of a network's weights, which often searches better than the weights themselves."""

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models.base import PersonSearchModel


class WeightAverage:
    """A copy of a network whose weights follow those of the network that learns.

    At an update each weight becomes d x itself + (1 - d) x the network's; so do the statistics of batch norms, which
    belong to the weights. Identity tables and counters are those of the network. d is `decay`, but after n steps at
    most (1 + n) / (10 + n), so that the average soon forgets the first weights (`num_updates` of TensorFlow's
    ExponentialMovingAverage).

    Args:
        network: the network that learns.
        decay: between 0 and 1.

    Attributes:
        model: the copy, in eval mode.
    """

    def __init__(self, network: PersonSearchModel, decay: float):
        self.network, self.decay = network, decay
        self.model = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Follow an optimiser step of the network, the `steps`-th, from 1."""
        state, average = self.network.state_dict(), self.model.state_dict()
        moving = [key for key in state if state[key].is_floating_point() and key not in self.network.identity_memory]
        decay = min(self.decay, (1 + steps) / (10 + steps))
        get_ema_multi_avg_fn(decay)([average[key] for key in moving], [state[key] for key in moving], steps)
        for key in state.keys() - moving:
            average[key].copy_(state[key])
