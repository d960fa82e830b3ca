"""Boxes as NumPy arrays: clipping, areas and intersection over union (IoU).

Boxes are x1, y1, x2, y2 in pixels, x2 and y2 being the far edges: a box covers (x2 - x1) * (y2 - y1) pixels.
"""

import numpy as np


def clip_boxes(boxes: np.ndarray, width: float = np.inf, height: float = np.inf) -> np.ndarray:
    """Boxes (n x 4) cut to an image of a size in pixels; of an unknown size, to its left and top edge."""
    return np.clip(boxes, 0, [width, height, width, height]).astype(np.asarray(boxes).dtype)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Areas in pixels, of boxes ... x 4; 0 where a side is not positive."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes and others, ... x 4 each, broadcast against one another.

    Returns:
        float64, the broadcast shape without its last axis; 0 where both boxes are without area.
    """
    boxes, others = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    corners = np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])
    inter = box_areas(np.concatenate(corners, axis=-1))
    union = box_areas(boxes) + box_areas(others) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
