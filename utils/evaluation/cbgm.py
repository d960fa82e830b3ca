"""Context bipartite graph matching (Li and Miao, SeqNet, AAAI 2021): the people around the query vote.

People walk in company. For the images that hold the most similar detections, the query image's first people are
matched with the image's detections; the detection that is matched with the query takes the largest weight of the
matching.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.boxes import paired_iou
from utils.evaluation.gallery_index import GalleryIndex
from utils.evaluation.inputs import check_detections, check_features

MIN_SELF_IOU = 0.5
"""Least overlap of a query's box with the first box of its context, which ought to be the same."""


def check_context(query_context: Sequence, annotations: list[dict]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The context of each query: (m x 5, m x D), the query itself first, the others in falling score.

    Raises:
        ValueError: shapes differ, or a first row is not the query.
    """
    dets = check_detections([boxes for boxes, _ in query_context], len(annotations), "query_context")
    feats = check_features([feats for _, feats in query_context], dets, "query_context")
    context = []
    for index, (annotation, boxes, vectors) in enumerate(zip(annotations, dets, feats, strict=True)):
        if len(boxes) == 0 or paired_iou(boxes[0, :4], annotation["boxes"][0]) < MIN_SELF_IOU:
            raise ValueError(f"query_context[{index}]: the first box is not the query's: put the query's own box first")
        order = np.r_[0, 1 + np.argsort(-boxes[1:, 4], kind="stable")]
        context.append((boxes[order], vectors[order]))
    return context


def rerank(sims: np.ndarray, index: GalleryIndex, members: np.ndarray | slice, people: np.ndarray, k1: int) -> None:
    """Change the similarities of one query to all detections, in place.

    Args:
        sims: n, the query's similarity to each detection of `index`; -inf outside its gallery where `members` are all.
        members: positions of the detections of the query's gallery, rising.
        people: k2 x D, embeddings of the query (first) and those around it.
        k1: how many of the most similar detections choose the images to match with; of equals, the first.
    """
    images = images_of_best(sims, index, members, k1)
    if len(images) == 0:
        return
    weights = (people @ index.features(images).T).astype(np.float64)
    ends = np.cumsum(index.counts[images]).tolist()
    for first, stop, start in zip([0, *ends], ends, index.starts[images].tolist(), strict=False):
        block = weights[:, first:stop]
        rows, columns = linear_sum_assignment(block, maximize=True)
        if rows[0] == 0:  # rows come in rising order; where there are fewer detections the query may be left over
            sims[start + columns[0]] = block[rows, columns].max()


def images_of_best(sims: np.ndarray, index: GalleryIndex, members: np.ndarray | slice, k1: int) -> np.ndarray:
    """The images, each once, of the k1 most similar detections of a gallery."""
    values = sims[members]
    least = np.partition(values, -k1)[-k1] if len(values) > k1 else -np.inf
    candidates = np.flatnonzero((values >= least) & (values > -np.inf))
    best = candidates[np.argsort(-values[candidates], kind="stable")[:k1]]
    return np.unique(index.image[best if isinstance(members, slice) else members[best]])
