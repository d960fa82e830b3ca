"""Deformable convolution by gathering rows of the map: faster on CPUs, and deterministic on CUDA.

torchvision's CPU kernel finds each sample's neighbours again in every channel, on one core. With channels last a sample
is a weighted sum of four rows, which PyTorch's embedding bag computes faster; a matrix product does the rest. On CUDA
torchvision adds up gradients in any order, and raises an error under deterministic algorithms.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.deformable import TAPS, DeformableConv

SAMPLES = 2**24
"""Numbers that are sampled before they are multiplied: 64 MiB."""
KEPT = 2**26
"""Most numbers that a convolution samples, and keeps for the backward pass, in training on CPUs: 256 MiB."""


def gathered_convolution(conv: DeformableConv, x: Tensor) -> Tensor:
    """The output of `conv(x)`, channels last, computed in float32 as torchvision does.

    In training on CPUs it is torchvision's own where more numbers than `KEPT` are sampled.
    """
    height, width = ((side - 1) // conv.stride[0] + 1 for side in x.shape[2:])
    if not x.is_cuda and torch.is_grad_enabled() and len(x) * height * width * TAPS * x.shape[1] > KEPT:
        return type(conv).forward(conv, x)
    cells, weights = _neighbours(conv, x)
    table = x.float().permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    matrix = conv.weight.float().permute(2, 3, 1, 0).reshape(-1, conv.out_channels)
    rows = max(SAMPLES // (TAPS * x.shape[1]), 1) * TAPS
    output = torch.cat(
        [
            F.embedding_bag(some, table, per_sample_weights=own, mode="sum").view(-1, len(matrix)) @ matrix
            for some, own in zip(cells.split(rows), weights.split(rows), strict=True)
        ]
    )
    if conv.bias is not None:
        output = output + conv.bias
    return output.view(len(x), height, width, -1).permute(0, 3, 1, 2).to(x.dtype)


def _neighbours(conv: DeformableConv, x: Tensor) -> tuple[Tensor, Tensor]:
    """For each image, position and tap the four cells of the map (all images' one after another) that a sample lies
    between, int64 S x 4, and their weights; cells beyond the map weigh nothing."""
    offsets, factors = conv.sampling(x)
    batch, _, height, width = x.shape
    down, across = offsets.unflatten(1, (TAPS, 2)).permute(2, 0, 3, 4, 1)  # each B x h' x w' x 9
    taps = torch.arange(TAPS, device=x.device)
    down = down + conv.stride[0] * torch.arange(down.shape[1], device=x.device)[:, None, None] + taps // 3 - 1
    across = across + conv.stride[0] * torch.arange(down.shape[2], device=x.device)[:, None] + taps % 3 - 1
    rows, row_weights = _along(down, height)
    columns, column_weights = _along(across, width)
    first = height * torch.arange(batch, device=x.device).view(-1, 1, 1, 1, 1)
    cells = (first + rows)[..., :, None] * width + columns[..., None, :]
    weights = row_weights[..., :, None] * column_weights[..., None, :]
    if factors is not None:
        weights = weights * factors.permute(0, 2, 3, 1)[..., None, None]
    return cells.reshape(-1, 4), weights.reshape(-1, 4)


def _along(position: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """The two neighbours of positions along an axis of that many cells, and their weights, in a new last dimension.

    At a cell itself, where all positions are before training, the gradient is that towards the next (torchvision's).
    """
    position = position.nan_to_num().clamp(-2, cells + 1)
    before = position.floor()
    neighbours = torch.stack([before, before + 1], dim=-1)
    fraction = position - before
    weights = torch.stack([1 - fraction, fraction], dim=-1) * ((neighbours >= 0) & (neighbours < cells))
    return neighbours.clamp(0, cells - 1).long(), weights
