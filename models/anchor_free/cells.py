"""The cells of the map of stride 8: where they lie in the image, and which of them show which person."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.base import Targets

STRIDE = 8  # pixels of the resized image per cell
REACH = 1.5 * STRIDE  # of positive cells from the centre of their box, along both axes (as released)


def cell_centres(height: int, width: int, device: torch.device) -> Tensor:
    """x and y of the centres of a map's cells, row by row, in pixels of the resized image: float32 N x 2."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2) * STRIDE + STRIDE / 2


def cells_under_centres(boxes: Tensor, height: int, width: int) -> Tensor:
    """The cell (int64 g) that holds the centre of each box (g x 4, pixels of the resized image), or the nearest one."""
    column, row = ((boxes[:, :2] + boxes[:, 2:]) / 2 // STRIDE).long().unbind(1)
    return row.clamp(0, height - 1) * width + column.clamp(0, width - 1)


@dataclass
class Positives:
    """The cells of a batch that show people.

    Attributes:
        cells: int64 p, their places among the B N cells, image after image, row by row.
        distances: p x 4, of the left, top, right and bottom side of their box, in strides, all greater than 0.
        labels: int64 p, identities from 1, -1 without.
    """

    cells: Tensor
    distances: Tensor
    labels: Tensor

    @property
    def centreness(self) -> Tensor:
        """How near each cell is to the centre of its box, p, in (0, 1] (FCOS, equation 3)."""
        left, top, right, bottom = self.distances.unbind(1)
        horizontal, vertical = (torch.minimum(a, b) / torch.maximum(a, b) for a, b in ((left, right), (top, bottom)))
        return (horizontal * vertical).sqrt()


def find_positives(centres: Tensor, targets: Targets) -> Positives:
    """The positive cells of images with these cell centres (N x 2) and targets, whose boxes are in the same pixels.

    They lie strictly inside a box and within `REACH` of its centre, at most nine to a box. A cell in several boxes
    belongs to the smallest, the first of equal ones.
    """
    owners = [_owners(centres, target["boxes"]) for target in targets]
    cells = [torch.where(owner >= 0)[0] for owner in owners]
    persons = [owner[chosen] for owner, chosen in zip(owners, cells, strict=True)]
    boxes = torch.cat([target["boxes"][chosen] for target, chosen in zip(targets, persons, strict=True)])
    labels = torch.cat([target["labels"][chosen] for target, chosen in zip(targets, persons, strict=True)])
    points = centres[torch.cat(cells)]
    distances = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=1) / STRIDE
    return Positives(torch.cat([len(centres) * i + chosen for i, chosen in enumerate(cells)]), distances, labels)


def _owners(centres: Tensor, boxes: Tensor) -> Tensor:
    """The box (int64 N) that each cell is positive for, -1 for none."""
    if not len(boxes):
        return torch.full_like(centres[:, 0], -1, dtype=torch.int64)
    low, high = boxes[:, :2], boxes[:, 2:]
    middle, areas = (low + high) / 2, (high - low).prod(dim=1)
    low, high = torch.maximum(low, middle - REACH), torch.minimum(high, middle + REACH)
    inside = ((centres[:, None] > low) & (centres[:, None] < high)).all(dim=2)
    smallest = areas.expand_as(inside).masked_fill(~inside, torch.inf).argmin(dim=1)
    return smallest.where(inside.any(dim=1), -1)
