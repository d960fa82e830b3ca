"""RoIAlign: crops of a feature map, by torchvision's kernel or, on CPUs, by gathering rows of the map.

torchvision's CPU kernel goes through the map channel by channel. With channels last, a bin is a weighted sum of a few
rows of C numbers, which PyTorch's embedding bag computes 30 to 40 times as fast, its gradient 15 times.
"""

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

Kernel = Callable[[Tensor, list[Tensor], int, float, int, int], Tensor]
"""From (map B x C x h x w, boxes per image in pixels, bins a side, map cells a pixel, samples a bin, step) to crops."""


def torchvision_crops(
    feature_map: Tensor, boxes: list[Tensor], size: int, scale: float, sampling_ratio: int, step: int
) -> Tensor:
    """Every `step`-th bin along both axes of torchvision's RoIAlign, computed in float32."""
    crops = roi_align(feature_map.float(), boxes, size, scale, sampling_ratio, aligned=False)
    return crops[:, :, ::step, ::step].to(feature_map.dtype).contiguous(memory_format=torch.channels_last)


def gathered_crops(
    feature_map: Tensor, boxes: list[Tensor], size: int, scale: float, sampling_ratio: int, step: int
) -> Tensor:
    """The same; bins that the step leaves out are not computed."""
    batch, channels, height, width = feature_map.shape
    all_boxes = torch.cat(boxes) * scale
    left, top, right, bottom = all_boxes.unbind(1)
    columns, column_weights = _samples(left, right, size, sampling_ratio, width, step)
    rows, row_weights = _samples(top, bottom, size, sampling_ratio, height, step)
    counts = torch.tensor([len(image_boxes) for image_boxes in boxes], device=feature_map.device)
    image = torch.repeat_interleave(counts, output_size=len(all_boxes)) * height
    # R x bin row x bin column x sample row x sample column
    cells = (image[:, None, None] + rows)[:, :, None, :, None] * width + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    taps = cells.shape[3] * cells.shape[4]
    # A cell's gradient is the sum of many crops': in half precision the later of them would vanish.
    precise = torch.promote_types(feature_map.dtype, torch.float32) if feature_map.requires_grad else feature_map.dtype
    table = feature_map.to(precise).permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    crops = F.embedding_bag(
        cells.reshape(-1, taps), table, per_sample_weights=weights.reshape(-1, taps).to(table.dtype), mode="sum"
    )
    crops = crops.to(feature_map.dtype).view(len(all_boxes), rows.shape[1], columns.shape[1], channels)
    return crops.permute(0, 3, 1, 2)


def _samples(low: Tensor, high: Tensor, size: int, sampling_ratio: int, cells: int, step: int) -> tuple[Tensor, Tensor]:
    """Along one axis: for every `step`-th bin of each RoI the cells that its samples lie between, and their weights.

    As torchvision's kernel has it: a RoI is at least one cell long, a sample beyond the map by more than a cell counts
    0, one beyond it by less takes the border's value. Samples of boxes that are not finite count 0.

    Args:
        low, high: R, edges of the RoIs, in cells.
        size: bins of a RoI.
        sampling_ratio: samples of a bin.
        cells: length of the map.

    Returns:
        int64 and float, R x bins x (2 sampling_ratio): each sample has two neighbours.
    """
    offsets = (torch.arange(size * sampling_ratio, device=low.device) + 0.5) / (size * sampling_ratio)
    position = low[:, None] + offsets * (high - low).clamp(min=1)[:, None]
    inside = (position >= -1) & (position <= cells)
    position = position.where(inside, 0).clamp(0, cells - 1)
    before = position.floor()
    neighbours = torch.stack([before, (before + 1).clamp(max=cells - 1)], dim=-1).long()
    share = position - before
    weights = torch.stack([1 - share, share], dim=-1) * (inside / sampling_ratio)[..., None]
    shape = (len(low), size, 2 * sampling_ratio)
    return neighbours.view(shape)[:, ::step], weights.view(shape)[:, ::step]


KERNELS: dict[str, Kernel] = {"cpu": gathered_crops}
"""Device type -> the kernel that is fastest there; torchvision's elsewhere."""


class RoIAlign(nn.Module):
    """Crop boxes out of maps of one stride: R x C x size x size, the boxes of all images in turn, channels last.

    Without the half-pixel shift (aligned=False), as in the releases.

    Args:
        size: bins of a crop's side.
        sampling_ratio: samples of a bin along each axis.
        stride: pixels a cell of the map.
        kernel: how; None takes the device's of `KERNELS`.
    """

    def __init__(self, size: int, sampling_ratio: int, stride: int, kernel: Kernel | None = None):
        super().__init__()
        if size < 1 or sampling_ratio < 1:
            raise ValueError("MODEL.ROI_ALIGN.SIZE and MODEL.ROI_ALIGN.SAMPLING_RATIO must be 1 or more")
        self.size, self.sampling_ratio, self.stride, self.kernel = size, sampling_ratio, stride, kernel

    def forward(self, feature_map: Tensor, boxes: list[Tensor], step: int = 1) -> Tensor:
        """Crops of the boxes (per image n x 4, pixels of the resized image); of their bins every `step`-th."""
        boxes = [image_boxes.float() for image_boxes in boxes]  # half precision would move them by pixels
        kernel = self.kernel or KERNELS.get(feature_map.device.type, torchvision_crops)
        return kernel(feature_map, boxes, self.size, 1 / self.stride, self.sampling_ratio, step)


class RoIs:
    """The regions of interest of a batch: its res4 map and the boxes that a head looks at.

    Args:
        roi_align: crops them.
        feature_map: the res4 map, B x C x h x w.
        boxes: per image n_i x 4, pixels of the resized image.
    """

    def __init__(self, roi_align: RoIAlign, feature_map: Tensor, boxes: list[Tensor]):
        self.roi_align, self.feature_map, self.boxes = roi_align, feature_map, boxes
        self.counts = [len(image_boxes) for image_boxes in boxes]

    @cached_property
    def crops(self) -> Tensor:
        """Crops of the res4 map, R x C x s x s, the boxes of all images in turn."""
        return self.roi_align(self.feature_map, self.boxes)

    def crops_of(self, other_map: Tensor, step: int = 1) -> Tensor:
        """Crops of another map with the res4 map's height and width; of their bins every `step`-th."""
        return self.roi_align(other_map, self.boxes, step)

    def bins_per_cell(self, step: int = 1) -> float:
        """How many bins of the crops (every `step`-th) there are for each cell of the map."""
        batch, _, height, width = self.feature_map.shape
        return sum(self.counts) * len(range(0, self.roi_align.size, step)) ** 2 / (batch * height * width)
