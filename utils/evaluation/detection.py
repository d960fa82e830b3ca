"""How well people are detected: recall and average precision of boxes."""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.metrics import average_precision_score

from utils.boxes import paired_iou
from utils.errors import UserError
from utils.evaluation.arrays import DETECTION_COLUMNS, joined, ranges

IMAGES_PER_BLOCK = 256
"""Images whose IoUs are computed at once."""


def evaluate_detection(
    gallery_set, gallery_dets: Sequence, score_thresh: float = 0.01, iou_thresh: float = 0.5
) -> dict[str, float]:
    """Recall and average precision over all images.

    A detection is true if its IoU with a ground-truth box reaches `iou_thresh`, that box is its best and it is that
    box's best (of equals, the first).

    Args:
        gallery_set: has `annotations`, see datasets.base.PersonSearchDataset.
        gallery_dets: per annotation n x 5, x1, y1, x2, y2 (pixels of the image) and score.
        score_thresh: detections below it are left out.
        iou_thresh: least IoU.

    Returns:
        `recall`: true detections / ground-truth boxes; `ap`: average precision (scikit-learn's) times recall;
        `recall_labelled`: recall over the people with identity alone (0 where nobody has one).

    Raises:
        ValueError: detections of another shape or number.
        UserError: a gallery without a single person.
    """
    annotations = gallery_set.annotations
    dets, num_dets = joined(gallery_dets, len(annotations), "gallery_dets", DETECTION_COLUMNS)
    num_boxes = np.array([len(annotation["boxes"]) for annotation in annotations], dtype=np.int64)
    if num_boxes.sum() == 0:
        raise UserError("no image of the gallery has an annotated person: detection cannot be scored")
    boxes = np.concatenate([annotation["boxes"] for annotation in annotations])
    labelled = np.concatenate([annotation["pids"] for annotation in annotations]) > 0
    kept = dets[:, 4] >= score_thresh
    num_dets = np.bincount(np.repeat(np.arange(len(annotations)), num_dets)[kept], minlength=len(annotations))
    dets = dets[kept]
    found, found_labelled = np.zeros((2, len(dets)), dtype=bool)
    for box, det in _pairs(num_boxes, num_dets):
        iou = paired_iou(boxes[box], dets[det, :4])
        _mark_true(found, box, det, iou, iou_thresh)
        known = labelled[box]
        _mark_true(found_labelled, box[known], det[known], iou[known], iou_thresh)
    recall = float(found.sum()) / len(boxes)
    return {
        "recall": recall,
        "ap": float(average_precision_score(found, dets[:, 4])) * recall if recall else 0.0,
        "recall_labelled": float(found_labelled.sum()) / max(int(labelled.sum()), 1),
    }


def _pairs(num_boxes: np.ndarray, num_dets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every ground-truth box of an image with every detection of it, as two arrays of indexes, for a block of images.

    The pairs of an image's first box come first, with its detections in order.
    """
    first_box, first_det = np.cumsum(num_boxes) - num_boxes, np.cumsum(num_dets) - num_dets
    for start in range(0, len(num_boxes), IMAGES_PER_BLOCK):
        block = slice(start, start + IMAGES_PER_BLOCK)
        dets_of_box = np.repeat(num_dets[block], num_boxes[block])
        box = np.repeat(first_box[start] + np.arange(len(dets_of_box)), dets_of_box)
        yield box, ranges(np.repeat(first_det[block], num_boxes[block]), dets_of_box)


def _mark_true(true: np.ndarray, box: np.ndarray, det: np.ndarray, iou: np.ndarray, iou_thresh: float) -> None:
    """Mark the detections (indexes of `true`) that are true, given all pairs of some images."""
    if len(box):
        best_det, best_box = _best_partner(box, det, iou), _best_partner(det, box, iou)
        true[det[(best_det == det) & (best_box == box) & (iou >= iou_thresh)]] = True


def _best_partner(members: np.ndarray, partners: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """For each pair the partner with which its member overlaps most; of equals the first."""
    base = members.min()
    highest = np.full(members.max() + 1 - base, -1.0)
    np.maximum.at(highest, members - base, iou)
    equal = np.flatnonzero(iou == highest[members - base])[::-1]
    best = np.zeros(len(highest), dtype=np.int64)
    best[members[equal] - base] = partners[equal]  # where a place is written twice, the last one stands: the first pair
    return best[members - base]
