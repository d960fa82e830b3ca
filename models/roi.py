"""Regions of interest (RoIs): RoIAlign, the boxes of a feature map, and the backbone's tail, which runs on them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.utils import _pair
from torch.utils.checkpoint import checkpoint
from torchvision.ops import roi_align


class RoIAlign(nn.Module):
    """RoIAlign without the half-pixel shift (aligned=False), as in the published networks.

    Args:
        output_size: bins of a crop: of its height and its width, or of both.
        sampling_ratio: sampling points of a bin along each axis.
        spatial_scale: cells of the feature map per pixel of the image.
    """

    def __init__(self, output_size: int | tuple[int, int], sampling_ratio: int, spatial_scale: float):
        super().__init__()
        self.output_size: tuple[int, int] = _pair(output_size)
        self.sampling_ratio, self.spatial_scale = sampling_ratio, spatial_scale

    def forward(self, feature_map: Tensor, boxes: list[Tensor]) -> Tensor:
        """Crops R x C x output_size of a map B x C x h x w, the boxes of all images one after another.

        Boxes are n x 4 per image, in pixels of the resized image. Half precision would move them by pixels, and lose
        gradients of cells that many RoIs share, so the operator runs in float32.
        """
        boxes = [image_boxes.float() for image_boxes in boxes]
        crops = roi_align(
            feature_map.float(), boxes, self.output_size, self.spatial_scale, self.sampling_ratio, aligned=False
        )
        return crops.to(feature_map.dtype)


class RoIs:
    """A feature map and the boxes of its images.

    Args:
        roi_align: crops the boxes out of the map.
        feature_map: B x C x h x w.
        boxes: per image n x 4, in pixels of the resized image; R in all.

    Attributes:
        counts: number of boxes per image.
    """

    def __init__(self, roi_align: RoIAlign, feature_map: Tensor, boxes: list[Tensor]):
        self.roi_align, self.feature_map, self.boxes = roi_align, feature_map, boxes
        self.counts = [len(image_boxes) for image_boxes in boxes]

    @cached_property
    def crops(self) -> Tensor:
        """The crops R x C x h x w, computed on first use."""
        return self.roi_align(self.feature_map, self.boxes)


class Tail(nn.Sequential):
    """The last stage of a backbone (res5 of a ResNet), from crops R x C x h x w to R x C' x h/2 x w/2.

    Attributes:
        checkpointed: in training, compute activations again in the backward pass instead of keeping them.
    """

    checkpointed = False

    def on_rois(self, rois: RoIs) -> Tensor:
        """The tail's output on the crops of RoIs; `models.fast` replaces this method."""
        return self(rois.crops)

    def forward(self, crops: Tensor) -> Tensor:
        if not (self.checkpointed and self.training):
            return super().forward(crops)
        return checkpoint(
            super().forward,
            crops,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), self._frozen_statistics()),
        )

    @contextmanager
    def _frozen_statistics(self) -> Iterator[None]:
        """Batch norms normalise as in training but do not count the batch a second time."""
        norms = [module for module in self.modules() if isinstance(module, _BatchNorm)]
        saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, counter) in zip(norms, saved, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, counter
