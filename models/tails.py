"""The tail of a backbone, which every head runs on its RoIs."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck

from models.roi_align import RoIs

MANY_BINS = 2.0
"""Bins a cell of the map from which a convolution is cheaper on the map than on the crops, its crops included."""


class Tail(nn.Sequential):
    """The last stage of a backbone, from crops R x C x s x s to R x C' x s/2 x s/2.

    Attributes:
        checkpointed: in training, compute activations again in the backward pass instead of keeping them.
    """

    checkpointed = False

    def of_rois(self, rois: RoIs) -> Tensor:
        """The tail's output on RoIs."""
        return self._recomputed(rois.crops) if self._recomputes else self(rois.crops)

    @property
    def _recomputes(self) -> bool:
        return self.checkpointed and self.training

    def _recomputed(self, crops: Tensor) -> Tensor:
        return checkpoint(
            self,
            crops,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing in a tail is random
            context_fn=lambda: (nullcontext(), self._without_new_statistics()),
        )

    @contextmanager
    def _without_new_statistics(self) -> Iterator[None]:
        """Batch norms normalise as in training but do not count the batch a second time."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, counter) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, counter


class BottleneckTail(Tail):
    """The last stage of a ResNet of bottleneck blocks (`layer4`).

    Its first block begins with two 1 x 1 convolutions, the main path's and the shortcut's. They and RoIAlign are both
    linear, so they can change places: RoIs overlap, and a map has far fewer cells than 300 crops have bins. On CPUs
    they do where that saves time; on other devices the crops are convolved.
    """

    def of_rois(self, rois: RoIs) -> Tensor:
        """The tail's output on RoIs, up to rounding that of their crops."""
        first, *others = self.layer4
        step = first.stride
        on_cpu = rois.feature_map.device.type == "cpu"
        if not on_cpu or self._recomputes or rois.bins_per_cell() < MANY_BINS:
            return super().of_rois(rois)
        x = first.relu(first.bn1(_projected(rois, first.conv1)))
        x = first.relu(first.bn2(first.conv2(x)))
        x = first.bn3(first.conv3(x))
        shortcut, norm = first.downsample
        if rois.bins_per_cell(step) < MANY_BINS:
            x += first.downsample(rois.crops)
        else:
            x += norm(_projected(rois, shortcut, step))
        x = first.relu(x)
        for block in others:
            x = block(x)
        return x


def _projected(rois: RoIs, conv: nn.Conv2d, step: int = 1) -> Tensor:
    """A 1 x 1 convolution of the RoIs' crops (of every `step`-th bin), computed on the map.

    Its bias, which folded batch norms leave, is added to the crops: samples outside the map count 0, not the bias.
    """
    crops = rois.crops_of(conv2d(rois.feature_map, conv.weight), step)
    return crops if conv.bias is None else crops.add_(conv.bias[:, None, None])


def new_tail(stages: dict[str, nn.Module]) -> Tail:
    """The tail made of these named stages."""
    layer4 = stages.get("layer4")
    is_bottleneck = layer4 is not None and isinstance(layer4[0], Bottleneck) and layer4[0].conv1.stride == (1, 1)
    return (BottleneckTail if is_bottleneck else Tail)(OrderedDict(stages))
