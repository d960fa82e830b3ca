"""How well people are found: recall and average precision of boxes."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score

from utils.boxes import pairwise_iou
from utils.evaluation.inputs import check_detections


def evaluate_detection(
    gallery_set, gallery_dets: Sequence, score_thresh: float = 0.01, iou_thresh: float = 0.5
) -> dict:
    """Recall and average precision over all images.

    A detection is true if its IoU with a true box reaches `iou_thresh`, that box is its best and it is that box's
    best (of equals, the first).

    Args:
        gallery_set: has `annotations`, see datasets.base.PersonSearchDataset.
        gallery_dets: per annotation n x 5, x1, y1, x2, y2 (pixels of the image) and score.
        score_thresh: detections below it do not take part.

    Returns:
        `recall`: true detections / true boxes; `ap`: average precision (scikit-learn's) times recall;
        `recall_labelled`: recall over the people with identity alone (0 where nobody has one).

    Raises:
        ValueError: detections of another shape or number, or a gallery without a single person.
    """
    annotations = gallery_set.annotations
    dets = check_detections(gallery_dets, len(annotations), "gallery_dets")
    dets = [image_dets[image_dets[:, 4] >= score_thresh] for image_dets in dets]
    boxes = [annotation["boxes"] for annotation in annotations]
    labelled = [annotation["boxes"][annotation["pids"] > 0] for annotation in annotations]
    count = sum(map(len, boxes))
    if count == 0:
        raise ValueError("no image of the gallery has an annotated person: detection cannot be scored")
    true = _true_detections(boxes, dets, iou_thresh)
    recall = float(true.sum()) / count
    scores = np.concatenate([image_dets[:, 4] for image_dets in dets])
    ap = float(average_precision_score(true, scores)) * recall if recall else 0.0
    found = float(_true_detections(labelled, dets, iou_thresh).sum())
    return {"recall": recall, "ap": ap, "recall_labelled": found / max(sum(map(len, labelled)), 1)}


def _true_detections(boxes: list[np.ndarray], dets: list[np.ndarray], iou_thresh: float) -> np.ndarray:
    """Whether each detection is true, images one after the other."""
    return np.concatenate(
        [
            _match(image_boxes, image_dets[:, :4], iou_thresh)
            for image_boxes, image_dets in zip(boxes, dets, strict=True)
        ]
    )


def _match(boxes: np.ndarray, detected: np.ndarray, iou_thresh: float) -> np.ndarray:
    true = np.zeros(len(detected), dtype=bool)
    if len(boxes) and len(detected):
        iou = pairwise_iou(boxes, detected)
        best_box, best_detection = iou.argmax(axis=0), iou.argmax(axis=1)
        detections = np.arange(len(detected))
        true = (best_detection[best_box] == detections) & (iou[best_box, detections] >= iou_thresh)
    return true
