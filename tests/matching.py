"""Comparing the people that two networks find in an image."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def assert_same_people(
    found: dict[str, Tensor], expected: dict[str, Tensor], pixels: float, tolerance: float, unmatched: int = 0
) -> None:
    """The same boxes in any order, as equal scores leave it open, with the same scores and embeddings.

    `unmatched` boxes may lack a partner: rounding decides what happens to a box at the edge of a threshold.
    """
    boxes, wanted = (torch.as_tensor(people["boxes"]) for people in (found, expected))
    distance = (boxes[:, None] - wanted[None]).abs().amax(2).clamp(max=2 * pixels).numpy()
    rows, columns = linear_sum_assignment(distance)
    same = distance[rows, columns] < pixels
    assert max(len(boxes), len(wanted)) - same.sum() <= unmatched, f"{len(boxes)} boxes, {len(wanted)} expected"
    assert same.any() or not len(wanted)
    for name in ("scores", "embeddings"):
        ours, theirs = found[name][rows[same]], torch.as_tensor(np.asarray(expected[name]))[columns[same]]
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def plain_iou(a, b):
    """Intersection over union of two boxes, x1, y1, x2, y2, as its definition is worded."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
