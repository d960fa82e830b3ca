"""How well people are detected: recall and average precision of boxes, of all people and by their height."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score

from utils.boxes import paired_iou
from utils.errors import UserError
from utils.evaluation.arrays import DETECTION_COLUMNS, joined

IMAGES_PER_BLOCK = 32
"""Images whose IoUs are computed at once."""
HEIGHT_RANGES = {"under 150 px": (0, 150), "150 to 300 px": (150, 300), "300 px and more": (300, np.inf)}
"""Heights of people, in pixels of their image, from the first number to below the second.

150 px is where COCO's large objects begin, 96 x 96 px, for a person, who is 0.41 times as wide as high (Dollar et al.,
Pedestrian Detection, PAMI 2012); 300 px is twice that. COCO's small objects, likewise below 50 px, hardly occur in
person search. PRW's test boxes are 43, 38 and 19 % in the three ranges, the people whom CUHK-SYSU's queries ask for, as
they appear in the galleries of 100 images, 22, 49 and 29 %.
"""


class _Boxes(NamedTuple):
    """The people and the detections of all images, in the images' order.

    Attributes:
        boxes: n x 4, x1, y1, x2, y2 (pixels): the people.
        labelled: bool, n: whether they have an identity.
        box_image: int64, n: their images.
        dets: m x 5, x1, y1, x2, y2 and score.
        det_image: int64, m.
    """

    boxes: np.ndarray
    labelled: np.ndarray
    box_image: np.ndarray
    dets: np.ndarray
    det_image: np.ndarray


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
    given = _collected(gallery_set, gallery_dets, score_thresh)
    true, true_labelled = _found_boxes(given, iou_thresh) >= 0
    return {
        **_recall_and_ap(true, given.dets[:, 4], len(given.boxes)),
        "recall_labelled": float(true_labelled.sum()) / max(int(given.labelled.sum()), 1),
    }


def precision_recall(
    gallery_set, gallery_dets: Sequence, score_thresh: float = 0.01, iou_thresh: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall of the detections from each score on; true detections are those of `evaluate_detection`.

    Args, Raises: as `evaluate_detection`.

    Returns:
        float64, n each, for the n scores that occur, falling: precision, recall and these scores.
    """
    given = _collected(gallery_set, gallery_dets, score_thresh)
    order = np.argsort(-given.dets[:, 4], kind="stable")
    scores, true = given.dets[order, 4], (_found_boxes(given, iou_thresh)[0] >= 0)[order].cumsum()
    last = np.flatnonzero(np.append(scores[1:] < scores[:-1], True)[: len(scores)])  # of equal scores
    return true[last] / (last + 1), true[last] / len(given.boxes), scores[last]


def evaluate_detection_by_height(
    gallery_set,
    gallery_dets: Sequence,
    score_thresh: float = 0.01,
    iou_thresh: float = 0.5,
    ranges: Mapping[str, tuple[float, float]] = HEIGHT_RANGES,
) -> list[dict[str, object]]:
    """Recall and average precision of small, medium and large people, as COCO has them by area.

    Detections are true as in `evaluate_detection`, found among all people. In each range, true
    detections of people of other heights are left out, and so are false detections that are of another height
    themselves.

    Args:
        gallery_set, gallery_dets, score_thresh, iou_thresh: as in `evaluate_detection`.
        ranges: by name, from the first number of pixels to below the second.

    Returns:
        A row for each range: `height`, its name; `people`, the ground-truth boxes in it; `recall` and `ap` as in
        `evaluate_detection`, 0 where there are no people.

    Raises:
        ValueError, UserError: as `evaluate_detection`.
    """
    given = _collected(gallery_set, gallery_dets, score_thresh)
    found, _ = _found_boxes(given, iou_thresh)
    true, heights = found >= 0, given.boxes[:, 3] - given.boxes[:, 1]
    counted_height = given.dets[:, 3] - given.dets[:, 1]
    counted_height[true] = heights[found[true]]
    rows = []
    for name, (low, high) in ranges.items():
        counted = (low <= counted_height) & (counted_height < high)
        people = int(((low <= heights) & (heights < high)).sum())
        scores = _recall_and_ap(true[counted], given.dets[counted, 4], people)
        rows.append({"height": name, "people": people, **scores})
    return rows


def _collected(gallery_set, gallery_dets: Sequence, score_thresh: float) -> _Boxes:
    """All people, and the detections whose score reaches a threshold; errors as `evaluate_detection`."""
    annotations = gallery_set.annotations
    dets, num_dets = joined(gallery_dets, len(annotations), "gallery_dets", DETECTION_COLUMNS)
    num_boxes = np.array([len(annotation["boxes"]) for annotation in annotations], dtype=np.int64)
    if num_boxes.sum() == 0:
        raise UserError("no image of the gallery has an annotated person: detection cannot be scored")
    boxes = np.concatenate([annotation["boxes"] for annotation in annotations])
    labelled = np.concatenate([annotation["pids"] for annotation in annotations]) > 0
    box_image, det_image = (np.repeat(np.arange(len(annotations)), counts) for counts in (num_boxes, num_dets))
    kept = dets[:, 4] >= score_thresh
    return _Boxes(boxes, labelled, box_image, dets[kept], det_image[kept])


def _found_boxes(given: _Boxes, iou_thresh: float) -> np.ndarray:
    """Whom each detection finds among all people, and among those with identity.

    Returns:
        int64, 2 x m: indexes of people, -1 for false detections.
    """
    found = np.full((2, len(given.dets)), -1)
    for box, det in _pairs(given.box_image, given.det_image):
        iou = paired_iou(given.boxes[box], given.dets[det, :4])
        true = _mutual_best(box, det, iou) & (iou >= iou_thresh)
        found[0, det[true]] = box[true]
        box, det, iou = (values[given.labelled[box]] for values in (box, det, iou))
        true = _mutual_best(box, det, iou) & (iou >= iou_thresh)
        found[1, det[true]] = box[true]
    return found


def _recall_and_ap(true: np.ndarray, scores: np.ndarray, number: int) -> dict[str, float]:
    """`recall` and `ap`, given which detections are true, their scores and the number of people."""
    recall = float(true.sum()) / max(number, 1)
    return {"recall": recall, "ap": float(average_precision_score(true, scores)) * recall if recall else 0.0}


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
