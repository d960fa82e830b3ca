"""Search scored image by image, as published code does: what the evaluation is measured against."""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import average_precision_score

from datasets.base import QueryGallery
from engine.features import Features
from utils.boxes import pairwise_iou

SCORE_THRESH = 0.5
IOU_THRESH, MARGIN = 0.5, 10
"""Least overlap with the true box, and the pixels by which a small one may be missed."""


def search_by_loops(features: Features, gallery_set, query_set, cbgm: bool) -> dict[str, float]:
    """`mAP` and `top1` of engine.scoring.score_search in the dataset's usual setting, by loops over gallery images."""
    kept = [dets[:, 4] >= SCORE_THRESH for dets in features.gallery_dets]
    found = [
        (dets[keep, :4], feats[keep])
        for dets, feats, keep in zip(features.gallery_dets, features.gallery_feats, kept, strict=True)
    ]
    aps, hits = [], []
    for number, gallery in enumerate(query_set.galleries(gallery_set)):
        if gallery.num_present == 0:
            continue
        query = np.ravel(features.query_feats[number])
        sims = {image: found[image][1] @ query for image in gallery.images.tolist() if len(found[image][0])}
        if cbgm:
            people = features.query_context[number][1][: query_set.cbgm_k2]
            _match(sims, found, people, query_set.cbgm_k1)
        labels = np.concatenate(list(_labels(sims, found, gallery)))
        values = np.concatenate(list(sims.values()))
        share = labels.sum() / gallery.num_present
        aps.append(average_precision_score(labels, values) * share if share else 0.0)
        hits.append(labels[values.argmax()])
    return {"mAP": float(np.mean(aps)), "top1": float(np.mean(hits))}


def _labels(sims: dict[int, np.ndarray], found: list, gallery: QueryGallery) -> Iterator[np.ndarray]:
    """Per image which detection is true: of those that overlap the true box enough the most similar one."""
    true_boxes = dict(zip(gallery.positives.tolist(), gallery.boxes, strict=True))
    for image, image_sims in sims.items():
        labels = np.zeros(len(image_sims), dtype=bool)
        if image in true_boxes:
            width, height = true_boxes[image][2:] - true_boxes[image][:2]
            least = min(IOU_THRESH, width * height / ((width + MARGIN) * (height + MARGIN)))
            overlap = pairwise_iou(found[image][0], true_boxes[image][None])[:, 0]
            order = np.argsort(-image_sims, kind="stable")
            labels[order[overlap[order] >= least][:1]] = True
        yield labels


def _match(sims: dict[int, np.ndarray], found: list, people: np.ndarray, k1: int) -> None:
    """CBGM: in the images of the k1 most similar detections, what the query is matched with takes the best weight."""
    images = np.repeat(list(sims), [len(values) for values in sims.values()])
    best = np.argsort(-np.concatenate(list(sims.values())), kind="stable")[:k1]
    for image in set(images[best].tolist()):
        weights = people @ found[image][1].T
        rows, columns = linear_sum_assignment(weights, maximize=True)
        if rows[0] == 0:
            sims[image][columns[0]] = weights[rows, columns].max()
