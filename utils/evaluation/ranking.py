"""Similarities of queries to the detections of a gallery, and the average precision of each query's ranking."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from utils.boxes import paired_iou
from utils.evaluation.arrays import ranges

QUERIES_PER_PRODUCT = 32
"""Queries of one matrix product. Its last bits depend on its shape, so that must not depend on the block's size: every
size gives the same similarities, ties included."""
MAX_IOU_THRESH = 0.5
IOU_MARGIN = 10
"""Pixels by which a small box may be missed: see `_iou_thresholds`."""


@dataclass(frozen=True)
class Gallery:
    """The detections of all gallery images in joint arrays, image after image.

    Attributes:
        boxes: n x 4, x1, y1, x2, y2 in pixels of each one's image.
        feats: n x D, float32.
        counts: per image its number of detections.
    """

    boxes: np.ndarray
    feats: np.ndarray
    counts: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        """Per image the index of its first detection."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def image(self) -> np.ndarray:
        """Per detection its image, int32."""
        return np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)

    def detections_of(self, images: np.ndarray) -> np.ndarray:
        """Indexes of the detections of some images (indexes, any order), image after image."""
        return ranges(self.starts[images], self.counts[images])


class QueryScore(NamedTuple):
    """One query's result: average precision times recall, and the false detections before the first true one.

    `first_rank` is inf where the person was not found.
    """

    ap: float
    first_rank: float


def similarities(queries: np.ndarray, feats: np.ndarray, block_bytes: int) -> Iterator[np.ndarray]:
    """Similarity of queries (m x D) to detections (n x D), for a block of queries at a time: q x n.

    A block holds as many times QUERIES_PER_PRODUCT queries as `block_bytes` has room for, at least one time.
    """
    row_bytes = feats.itemsize * max(1, len(feats))
    step = QUERIES_PER_PRODUCT * max(1, block_bytes // (row_bytes * QUERIES_PER_PRODUCT))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        sims = np.empty((len(block), len(feats)), np.float32)
        for first in range(0, len(block), QUERIES_PER_PRODUCT):
            rows = slice(first, first + QUERIES_PER_PRODUCT)
            np.matmul(block[rows], feats.T, out=sims[rows])
        yield sims


def searched_detections(sims: np.ndarray, gallery: Gallery, images: np.ndarray) -> np.ndarray | slice:
    """Indexes, rising, of the detections in some images, those that a query is to be searched in.

    Where these are most of all images it is all detections, and `sims` becomes -inf for those in other images: a copy
    of nearly everything would take longer.
    """
    inside = np.zeros(len(gallery.counts), dtype=bool)
    inside[images] = True
    if 2 * len(images) <= len(inside):
        return gallery.detections_of(np.flatnonzero(inside))
    sims[gallery.detections_of(np.flatnonzero(~inside))] = -np.inf
    return slice(None)


def score_queries(
    sims: np.ndarray, gallery: Gallery, wanted: Sequence, searched: Sequence[np.ndarray | slice]
) -> list[QueryScore | None]:
    """Scores of a block of queries; None for a query whose gallery never shows the person.

    Args:
        sims: q x n, each query's similarity to all detections.
        wanted: per query where the person is: `positives`, `boxes`, `num_present` of datasets.base.QueryGallery.
        searched: see `searched_detections`.
    """
    found = _true_similarities(sims, gallery, [w.positives for w in wanted], [w.boxes for w in wanted])
    return [
        _score_query(row[own], true, query.num_present) if len(query.positives) else None
        for row, own, true, query in zip(sims, searched, found, wanted, strict=True)
    ]


def _true_similarities(
    sims: np.ndarray, gallery: Gallery, positives: list[np.ndarray], boxes: list[np.ndarray]
) -> list[np.ndarray]:
    """Per query, rising, the similarity of the true detection of each image that has one."""
    query = np.repeat(np.arange(len(sims)), [len(images) for images in positives])
    images = np.concatenate(positives).astype(np.int64)
    people = np.concatenate([np.reshape(own, (-1, 4)) for own in boxes])
    detections, person = gallery.detections_of(images), np.repeat(np.arange(len(images)), gallery.counts[images])
    good = paired_iou(gallery.boxes[detections], people[person]) >= _iou_thresholds(people)[person]
    detections, person = detections[good], person[good]
    best = np.full(len(images), -np.inf, dtype=sims.dtype)
    np.maximum.at(best, person, sims[query[person], detections])
    order = np.lexsort((best, query))
    order = order[np.isfinite(best[order])]
    return np.split(best[order], np.cumsum(np.bincount(query[order], minlength=len(sims)))[:-1])


def _iou_thresholds(boxes: np.ndarray) -> np.ndarray:
    """Least IoU with each true box (p x 4): lower for small boxes, of which a few pixels are a large part."""
    width, height = (np.asarray(boxes, np.float64)[:, 2:] - np.asarray(boxes, np.float64)[:, :2]).T
    return np.minimum(MAX_IOU_THRESH, width * height / ((width + IOU_MARGIN) * (height + IOU_MARGIN)))


def _score_query(ranked: np.ndarray, found: np.ndarray, num_present: int) -> QueryScore:
    """Score one query from its similarities to the searched detections and, rising, to the true ones.

    Precision at a true detection is the share of true ones among all that are at least as similar; each adds 1 /
    found to the recall, so average precision is the mean of these precisions.
    """
    if len(found) == 0:
        return QueryScore(0.0, np.inf)
    ranked = np.sort(ranked[ranked >= found[0]])  # what is less similar than every true one changes nothing
    true = len(found) - np.searchsorted(found, found)
    reached = len(ranked) - np.searchsorted(ranked, found)
    recall = len(found) / num_present
    return QueryScore(float((true / reached).mean()) * recall, reached[-1] - true[-1])
