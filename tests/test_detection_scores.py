"""Detection scores against plain slow twins, which walk image by image as the definitions are worded."""

from types import SimpleNamespace

import numpy as np
import pytest
from matching import plain_iou
from sklearn.metrics import average_precision_score

from utils.boxes import box_areas, clip_boxes, paired_iou
from utils.evaluation import detection, evaluate_detection, evaluate_detection_by_height, precision_recall


def plain_true_detections(boxes, detected):
    """For each detection whether it and a box are one another's best, the first of equals, with IoU of 0.5 or more."""
    if not len(boxes):
        return [False] * len(detected)
    iou = [[plain_iou(box, det) for det in detected] for box in boxes]
    true = []
    for j in range(len(detected)):
        i = max(range(len(boxes)), key=lambda i: iou[i][j])
        true.append(j == max(range(len(detected)), key=lambda j: iou[i][j]) and iou[i][j] >= 0.5)
    return true


def drawn_detections(step):
    """60 images: people and detections at places and of sizes that are multiples of `step` pixels."""
    rng = np.random.default_rng(4)
    annotations, dets = [], []
    for _ in range(60):
        count, num_dets = rng.integers(0, 4), rng.integers(0, 6)
        boxes = rng.integers(0, 4, (count, 4)) * step
        boxes[:, 2:] += boxes[:, :2] + 4 * step
        annotations.append({"boxes": boxes, "pids": rng.choice([-1, 1, 2], count)})
        detected = rng.integers(0, 4, (num_dets, 4)) * step
        detected[:, 2:] += detected[:, :2] + 4 * step
        dets.append(np.c_[detected, rng.choice([0.005, 0.2, 0.4, 0.6], num_dets)])
    return annotations, dets


@pytest.mark.parametrize("images_per_block", [detection.IMAGES_PER_BLOCK, 7])
def test_detection_equals_the_plain_twin(images_per_block, monkeypatch):
    monkeypatch.setattr(detection, "IMAGES_PER_BLOCK", images_per_block)
    annotations, dets = drawn_detections(step=5)
    result = evaluate_detection(SimpleNamespace(annotations=annotations), dets)
    kept = [image[image[:, 4] >= 0.01] for image in dets]
    true = [plain_true_detections(a["boxes"], d) for a, d in zip(annotations, kept, strict=True)]
    labelled = [plain_true_detections(a["boxes"][a["pids"] > 0], d) for a, d in zip(annotations, kept, strict=True)]
    recall = sum(map(sum, true)) / sum(len(a["boxes"]) for a in annotations)
    assert result["recall"] == pytest.approx(recall)
    assert result["recall_labelled"] == pytest.approx(
        sum(map(sum, labelled)) / sum((a["pids"] > 0).sum() for a in annotations)
    )
    expected = average_precision_score(sum(true, []), np.concatenate(kept)[:, 4]) * recall
    assert result["ap"] == pytest.approx(expected)


def test_precision_and_recall_equal_the_plain_twin():
    annotations, dets = drawn_detections(step=5)
    precision, recall, scores = precision_recall(SimpleNamespace(annotations=annotations), dets)
    kept = [image[image[:, 4] >= 0.01] for image in dets]
    true = np.array(sum((plain_true_detections(a["boxes"], d) for a, d in zip(annotations, kept, strict=True)), []))
    of_det, people = np.concatenate(kept)[:, 4], sum(len(annotation["boxes"]) for annotation in annotations)
    assert scores.tolist() == sorted(set(of_det), reverse=True)
    for k, score in enumerate(scores):
        assert precision[k] == pytest.approx(true[of_det >= score].mean())
        assert recall[k] == pytest.approx(true[of_det >= score].sum() / people)
    nobody = precision_recall(SimpleNamespace(annotations=annotations), [[]] * len(dets))
    assert [len(values) for values in nobody] == [0, 0, 0]


def plain_by_height(annotations, kept, low, high):
    """People, recall and AP of a range of heights; detections of people out of it, or false and out of it, ignored."""
    people, counted = 0, []
    for annotation, detected in zip(annotations, kept, strict=True):
        boxes = annotation["boxes"].tolist()
        people += sum(low <= y2 - y1 < high for _, y1, _, y2 in boxes)
        true = plain_true_detections(boxes, detected)
        for is_true, (x1, y1, x2, y2, score) in zip(true, detected, strict=True):
            overlapped = max(boxes, key=lambda box: plain_iou(box, (x1, y1, x2, y2)), default=None)
            height = overlapped[3] - overlapped[1] if is_true else y2 - y1
            if low <= height < high:
                counted.append((is_true, score))
    recall = sum(is_true for is_true, _ in counted) / people
    return people, recall, average_precision_score(*zip(*counted, strict=True)) * recall


def test_detection_by_height_equals_the_plain_twin():
    annotations, dets = drawn_detections(step=50)  # 200 to 350 px high
    dets[0] = np.array([[0, 0, 30, 140, 0.9]])  # false, and small
    annotations[1] = {"boxes": np.array([[0, 0, 60, 149], [500, 0, 560, 140]]), "pids": np.array([1, -1])}
    dets[1] = np.array([[0, 0, 60, 160, 0.3]])  # true: the person is small, the detection is not
    rows = evaluate_detection_by_height(SimpleNamespace(annotations=annotations), dets)
    kept = [image[image[:, 4] >= 0.01] for image in dets]
    for row, (low, high) in zip(rows, [(0, 150), (150, 300), (300, 10**6)], strict=True):
        people, recall, ap = plain_by_height(annotations, kept, low, high)
        assert row["people"] == people and (row["recall"], row["ap"]) == pytest.approx((recall, ap))
    assert rows[0] == {"height": "under 150 px", "people": 2, "recall": 0.5, "ap": 0.25}
    assert sum(row["people"] for row in rows) == sum(len(annotation["boxes"]) for annotation in annotations)


def test_detection_finds_nothing_or_has_nothing_to_find():
    annotation = {"boxes": np.array([[0, 0, 10, 10]]), "pids": np.array([-1])}
    result = evaluate_detection(SimpleNamespace(annotations=[annotation]), [[]])
    assert result == {"recall": 0, "ap": 0, "recall_labelled": 0}
    [small, medium, _] = evaluate_detection_by_height(SimpleNamespace(annotations=[annotation]), [[]])
    assert small == {"height": "under 150 px", "people": 1, "recall": 0, "ap": 0} and medium["people"] == 0
    empty = {"boxes": np.zeros((0, 4)), "pids": np.zeros(0)}
    with pytest.raises(ValueError, match="no image of the gallery has an annotated person"):
        evaluate_detection(SimpleNamespace(annotations=[empty]), [np.array([[0, 0, 5, 5, 0.9]])])


def test_boxes():
    assert clip_boxes(np.array([[-5, -5, 30, 40]]), 100, 20).tolist() == [[0, 0, 30, 20]]
    assert clip_boxes(np.array([[-5, 3, 30, 40]])).tolist() == [[0, 3, 30, 40]]
    assert box_areas(np.array([[0, 0, 2, 3], [2, 0, 0, 3]])).tolist() == [6, 0]
    boxes, others = np.array([[0, 0, 10, 10], [0, 0, 0, 0]]), np.array([[0, 5, 10, 15], [20, 0, 30, 10], [0, 0, 0, 0]])
    np.testing.assert_allclose(paired_iou(boxes[:, None], others), [[1 / 3, 0, 0], [0, 0, 0]])
