"""Context bipartite graph matching (CBGM; Li and Miao, SeqNet, AAAI 2021): the people around the query vote.

People walk in company. For the gallery images that hold the most similar detections, the first people of the query's
image are matched with the image's detections; the detection that is matched with the query takes the largest weight of
the matching as its similarity.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.boxes import paired_iou
from utils.evaluation.arrays import DETECTION_COLUMNS, joined
from utils.evaluation.ranking import Gallery

MIN_SELF_IOU = 0.5
"""Least IoU of a query's box with the first box of its context, which ought to be the same."""


def context_people(query_context: Sequence, annotations: list[dict], k2: int | None, width: int) -> list[np.ndarray]:
    """Per query, embeddings of the query (first) and of those around it by falling score, at most k2 x D (None: all).

    Args:
        query_context: per query (m x 5, m x D), the query itself first.
        width: D.

    Raises:
        ValueError: shapes differ, or a first row is not the query.
    """
    number, ends = len(annotations), np.cumsum([len(dets) for dets, _ in query_context])[:-1]
    dets, counts = joined([dets for dets, _ in query_context], number, "query_context", DETECTION_COLUMNS)
    feats, _ = joined([feats for _, feats in query_context], number, "query_context", width, np.float32, counts)
    people = []
    for index, (own_dets, own_feats) in enumerate(zip(np.split(dets, ends), np.split(feats, ends), strict=True)):
        if len(own_dets) == 0 or paired_iou(own_dets[0, :4], annotations[index]["boxes"][0]) < MIN_SELF_IOU:
            raise ValueError(f"query_context[{index}]: the first box is not the query's: put the query's own box first")
        order = np.r_[0, 1 + np.argsort(-own_dets[1:, 4], kind="stable")]
        people.append(own_feats[order[:k2]])
    return people


def rerank(sims: np.ndarray, gallery: Gallery, searched: np.ndarray, people: np.ndarray, k1: int) -> None:
    """Change the similarities of one query to all detections, in place.

    Args:
        sims: n, the query's similarity to each detection of the gallery.
        searched: bool n, which detections are searched.
        people: k2 x D, embeddings of the query (first) and those around it.
        k1: how many of the most similar detections choose the images to match with; of equals, the first.
    """
    images = images_of_best(sims, gallery, searched, k1)
    detections, _ = gallery.detections_of(images)
    weights = (people @ gallery.feats[detections].T).astype(np.float64)
    ends = np.cumsum(gallery.counts[images]).tolist()
    for first, end in pairwise([0, *ends]):
        block = weights[:, first:end]
        rows, columns = linear_sum_assignment(block, maximize=True)
        if rows[0] == 0:  # rows rise; where there are fewer detections than people the query may be left over
            sims[detections[first + columns[0]]] = block[rows, columns].max()


def images_of_best(sims: np.ndarray, gallery: Gallery, searched: np.ndarray, k1: int) -> np.ndarray:
    """The images, each once, of the k1 most similar detections that are searched."""
    values = sims[searched]
    least = np.partition(values, -k1)[-k1] if len(values) > k1 else -np.inf
    candidates = np.flatnonzero(searched & (sims >= least))
    best = candidates[np.argsort(-sims[candidates], kind="stable")[:k1]]
    return np.unique(np.searchsorted(gallery.starts, best, side="right") - 1)
