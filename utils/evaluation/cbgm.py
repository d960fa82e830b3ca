"""Context bipartite graph matching (CBGM; Li and Miao, SeqNet, AAAI 2021): the people around the query vote.

People walk in company. For the gallery images that hold the most similar detections, the first people of the query's
image are matched with the image's detections; the detection that is matched with the query takes the largest weight of
the matching as its similarity.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.boxes import paired_iou
from utils.evaluation.arrays import DETECTION_COLUMNS, joined, joined_features
from utils.evaluation.ranking import Gallery

MIN_SELF_IOU = 0.5
"""Least IoU of a query's box with the first box of its context, which ought to be the same."""


def context_people(query_context: Sequence, annotations: list[dict], k2: int, width: int) -> list[np.ndarray]:
    """Per query, embeddings of the query (first) and of the people around it by falling score, at most k2 x D.

    Args:
        query_context: per query (m x 5, m x D), the query itself first.
        width: D.

    Raises:
        ValueError: shapes differ, or a first row is not the query.
    """
    dets, counts = joined([dets for dets, _ in query_context], len(annotations), "query_context", DETECTION_COLUMNS)
    feats = joined_features([feats for _, feats in query_context], counts, "query_context", width)
    people = []
    for index, (annotation, end) in enumerate(zip(annotations, np.cumsum(counts).tolist(), strict=True)):
        rows = slice(end - counts[index], end)
        if counts[index] == 0 or paired_iou(dets[rows][0, :4], annotation["boxes"][0]) < MIN_SELF_IOU:
            raise ValueError(f"query_context[{index}]: the first box is not the query's: put the query's own box first")
        order = np.r_[0, 1 + np.argsort(-dets[rows][1:, 4], kind="stable")]
        people.append(feats[rows][order[:k2]])
    return people


def rerank(sims: np.ndarray, gallery: Gallery, searched: np.ndarray | slice, people: np.ndarray, k1: int) -> None:
    """Change the similarities of one query to all detections, in place.

    Args:
        sims: n, the query's similarity to each detection of the gallery; -inf where it is not searched.
        searched: which detections are searched, see `ranking.searched_detections`.
        people: k2 x D, embeddings of the query (first) and those around it.
        k1: how many of the most similar detections choose the images to match with; of equals, the first.
    """
    images = images_of_best(sims, gallery, searched, k1)
    weights = (people @ gallery.feats[gallery.detections_of(images)].T).astype(np.float64)
    ends = np.cumsum(gallery.counts[images]).tolist()
    for first, end, start in zip([0, *ends], ends, gallery.starts[images].tolist(), strict=False):
        block = weights[:, first:end]
        rows, columns = linear_sum_assignment(block, maximize=True)
        if rows[0] == 0:  # rows rise; where there are fewer detections than people the query may be left over
            sims[start + columns[0]] = block[rows, columns].max()


def images_of_best(sims: np.ndarray, gallery: Gallery, searched: np.ndarray | slice, k1: int) -> np.ndarray:
    """The images, each once, of the k1 most similar detections that are searched."""
    values = sims[searched]
    least = np.partition(values, -k1)[-k1] if len(values) > k1 else -np.inf
    candidates = np.flatnonzero((values >= least) & (values > -np.inf))
    best = candidates[np.argsort(-values[candidates], kind="stable")[:k1]]
    return np.unique(gallery.image[best if isinstance(searched, slice) else searched[best]])
