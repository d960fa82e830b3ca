"""How well people are detected: recall and average precision of boxes."""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.metrics import average_precision_score

from utils.boxes import paired_iou
from utils.errors import UserError
from utils.evaluation.arrays import DETECTION_COLUMNS, joined

IMAGES_PER_BLOCK = 32
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
    box_image, det_image = (np.repeat(np.arange(len(annotations)), counts) for counts in (num_boxes, num_dets))
    kept = dets[:, 4] >= score_thresh
    dets, det_image = dets[kept], det_image[kept]
    found, found_labelled = np.zeros((2, len(dets)), dtype=bool)
    for box, det in _pairs(box_image, det_image):
        iou = paired_iou(boxes[box], dets[det, :4])
        found[det[_mutual_best(box, det, iou) & (iou >= iou_thresh)]] = True
        box, det, iou = (values[labelled[box]] for values in (box, det, iou))
        found_labelled[det[_mutual_best(box, det, iou) & (iou >= iou_thresh)]] = True
    recall = float(found.sum()) / len(boxes)
    return {
        "recall": recall,
        "ap": float(average_precision_score(found, dets[:, 4])) * recall if recall else 0.0,
        "recall_labelled": float(found_labelled.sum()) / max(int(labelled.sum()), 1),
    }


def _pairs(box_image: np.ndarray, det_image: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every ground-truth box of an image with every detection of it, as two arrays of indexes, for a block of images.

    The pairs of an image's first box come first, with its detections in order.

    Args:
        box_image, det_image: the image of each box and of each detection, rising.
    """
    for start in range(0, box_image[-1] + 1, IMAGES_PER_BLOCK):
        ends = start, start + IMAGES_PER_BLOCK
        (first_box, end_box), (first_det, end_det) = np.searchsorted(box_image, ends), np.searchsorted(det_image, ends)
        box, det = np.nonzero(box_image[first_box:end_box, None] == det_image[first_det:end_det])
        yield first_box + box, first_det + det


def _mutual_best(box: np.ndarray, det: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """Which pairs overlap most among those of their box and among those of their detection; of equals the first."""
    mutual = np.zeros(len(iou), dtype=np.int64)
    order = np.argsort(-iou, kind="stable")
    for member in (box, det):
        mutual[order[np.unique(member[order], return_index=True)[1]]] += 1
    return mutual == 2
