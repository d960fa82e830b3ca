"""Similarities of queries to a gallery, block by block, and what each query's ranking is worth."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from utils.boxes import paired_iou
from utils.evaluation.gallery_index import GalleryIndex

QUERIES_TOGETHER = 32
"""Queries of one matrix product. A product's last bits depend on its shape, so it must not depend on the block's size:
every size gives the same similarities, ties included."""
MAX_IOU_THRESH = 0.5
IOU_MARGIN = 10
"""Pixels by which a small box may be missed: see `_iou_thresholds`."""


class QueryScore(NamedTuple):
    """One query's result: average precision (times recall), and the false detections before the first true one."""

    ap: float
    first_rank: float
    """inf where the person was not found."""


def similarities(queries: np.ndarray, index: GalleryIndex, block_bytes: int) -> Iterator[np.ndarray]:
    """Similarity of the queries to every detection, for some queries at a time: q x n, float32; it may be changed.

    Blocks hold as many times QUERIES_TOGETHER queries as `block_bytes` has room for, at least one time.
    """
    row_bytes = np.dtype(np.float32).itemsize * max(1, len(index))
    step = QUERIES_TOGETHER * max(1, block_bytes // (row_bytes * QUERIES_TOGETHER))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        sims = np.empty((len(block), len(index)), np.float32)
        for positions, feats in index.tiles():
            for first in range(0, len(block), QUERIES_TOGETHER):
                rows = slice(first, first + QUERIES_TOGETHER)
                np.matmul(block[rows], feats.T, out=sims[rows, positions])
        yield sims


def gallery_members(index: GalleryIndex, images: np.ndarray, sims: np.ndarray) -> np.ndarray | slice:
    """Positions, rising, of the detections of a query's gallery.

    Where these are most of all detections, it is all of them, and those outside get the similarity -inf: a copy of
    nearly everything would take longer.
    """
    inside = np.zeros(len(index.counts), dtype=bool)
    inside[images] = True
    if 2 * len(images) <= len(inside):
        return index.positions(np.flatnonzero(inside))
    sims[index.positions(np.flatnonzero(~inside))] = -np.inf
    return slice(None)


def score_block(
    sims: np.ndarray, index: GalleryIndex, galleries: Sequence, members: Sequence[np.ndarray | slice]
) -> list[QueryScore | None]:
    """Scores of a block of queries.

    Args:
        sims: q x n, each query's similarity to all detections.
        galleries: each query's gallery: `positives`, `boxes` and `num_present` of datasets.base.QueryGallery.
        members: see `gallery_members`.

    Returns:
        None for a query whose gallery never shows the person.
    """
    found = _true_similarities(sims, index, [g.positives for g in galleries], [g.boxes for g in galleries])
    return [
        _score_query(row[positions], true, gallery.num_present) if len(gallery.positives) else None
        for row, positions, true, gallery in zip(sims, members, found, galleries, strict=True)
    ]


def _true_similarities(
    sims: np.ndarray, index: GalleryIndex, positives: list[np.ndarray], boxes: list[np.ndarray]
) -> list[np.ndarray]:
    """Per query, rising, the similarity of the true detection of each image that has one."""
    query = np.repeat(np.arange(len(sims)), [len(images) for images in positives])
    images = np.concatenate(positives).astype(np.int64)
    people = np.concatenate([np.reshape(own, (-1, 4)) for own in boxes])
    positions, person = index.positions(images), np.repeat(np.arange(len(images)), index.counts[images])
    good = paired_iou(index.boxes[positions], people[person]) >= _iou_thresholds(people)[person]
    positions, person = positions[good], person[good]
    best = np.full(len(images), -np.inf, dtype=sims.dtype)
    np.maximum.at(best, person, sims[query[person], positions])
    order = np.lexsort((best, query))
    order = order[np.isfinite(best[order])]
    return np.split(best[order], np.cumsum(np.bincount(query[order], minlength=len(sims)))[:-1])


def _iou_thresholds(boxes: np.ndarray) -> np.ndarray:
    """Least IoU with each true box (p x 4): lower for small boxes, of which a few pixels are a large part."""
    width, height = (np.asarray(boxes, np.float64)[:, 2:] - np.asarray(boxes, np.float64)[:, :2]).T
    return np.minimum(MAX_IOU_THRESH, width * height / ((width + IOU_MARGIN) * (height + IOU_MARGIN)))


def _score_query(ranked: np.ndarray, found: np.ndarray, num_present: int) -> QueryScore:
    """Score one query from its similarity to its gallery's detections, and, rising, to the true ones.

    Precision at a true detection is the share of true ones among all that are at least as similar; each adds 1 /
    found to the recall, so average precision is the mean of these precisions.
    """
    if len(found) == 0:
        return QueryScore(0.0, np.inf)
    ranked = np.sort(ranked[ranked >= found[0]])  # what is less similar than every true one counts nowhere
    true = len(found) - np.searchsorted(found, found)
    reached = len(ranked) - np.searchsorted(ranked, found)
    recall = len(found) / num_present
    return QueryScore(float((true / reached).mean()) * recall, reached[-1] - true[-1])
