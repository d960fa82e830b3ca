"""Similarities of queries to the detections of a gallery, and the average precision of a query's ranking."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from utils.boxes import paired_iou
from utils.evaluation.arrays import DETECTION_COLUMNS, joined

SCORE_THRESH = 0.5
BLOCK_MB = 64
MEBIBYTE = 2**20
QUERIES_PER_PRODUCT = 32
"""Queries of one matrix product. Its last bits depend on its shape, so that must not depend on the block's size: every
size gives the same similarities, ties included."""
MAX_IOU_THRESH = 0.5
IOU_MARGIN = 10
"""Pixels by which a small box may be missed, of which a few pixels are a large part: see `overlapping`."""


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

    def are_in(self, images: np.ndarray) -> np.ndarray:
        """Which detections are in one of some images (indexes): bool n."""
        inside = np.zeros(len(self.counts), dtype=bool)
        inside[images] = True
        return np.repeat(inside, self.counts)

    def detections_of(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indexes of the detections of some images, image after image, and of each one's image within `images`."""
        counts = self.counts[images]
        place = np.repeat(np.arange(len(images)), counts)
        return (self.starts[images] - np.cumsum(counts) + counts)[place] + np.arange(len(place)), place


def join_queries(query_feats: Sequence, number: int) -> np.ndarray:
    """Embeddings of queries, D or 1 x D each, as one array: float32, number x D."""
    rows = [np.atleast_2d(feat) for feat in query_feats]
    return joined(rows, number, "query_feats", dtype=np.float32, expected=np.ones(number, np.int64))[0]


def join_gallery(dets: Sequence, feats: Sequence, number: int, width: int, score_thresh: float) -> Gallery:
    """The detections of `number` images whose score reaches a threshold, with embeddings of `width` numbers."""
    rows, counts = joined(dets, number, "gallery_dets", DETECTION_COLUMNS)
    vectors, _ = joined(feats, number, "gallery_feats", width, np.float32, counts)
    kept = rows[:, 4] >= score_thresh
    if kept.all():  # no copy of the embeddings
        return Gallery(rows[:, :4], vectors, counts)
    counts = np.bincount(np.repeat(np.arange(number), counts)[kept], minlength=number)
    return Gallery(rows[kept, :4], vectors[kept], counts)


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


def overlapping(gallery: Gallery, wanted: Sequence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The detections that overlap the person whom a query asks for enough to be the person.

    Args:
        wanted: per query where the person is: `positives` p and `boxes` p x 4 of datasets.base.QueryGallery.

    Returns:
        int64, n each: the query, the detection, and the place of the person's box among those of all queries.
    """
    query = np.repeat(np.arange(len(wanted)), [len(own.positives) for own in wanted])
    boxes = np.concatenate([np.reshape(own.boxes, (-1, 4)) for own in wanted]).astype(np.float64)
    detections, person = gallery.detections_of(np.concatenate([own.positives for own in wanted]).astype(np.int64))
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    least = np.minimum(MAX_IOU_THRESH, width * height / ((width + IOU_MARGIN) * (height + IOU_MARGIN)))
    good = paired_iou(gallery.boxes[detections], boxes[person]) >= least[person]
    return query[person[good]], detections[good], person[good]


def true_similarities(sims: np.ndarray, gallery: Gallery, wanted: Sequence) -> list[np.ndarray]:
    """Similarities of q queries (of q x n) to the true detection of each image that has one: rising, at most p each.

    It is the most similar of the detections that overlap the person's box there enough; for `wanted` see `overlapping`.
    """
    numbers = [len(own.positives) for own in wanted]
    query, detections, person = overlapping(gallery, wanted)
    best = np.full(sum(numbers), -np.inf, dtype=sims.dtype)
    np.maximum.at(best, person, sims[query, detections])
    return [np.sort(own[np.isfinite(own)]) for own in np.split(best, np.cumsum(numbers)[:-1])]


def score_query(sims: np.ndarray, searched: np.ndarray, found: np.ndarray, num_present: int) -> tuple[float, float]:
    """Average precision times recall, and how many false detections come before the first true one (inf: none found).

    Precision at a true detection is the share of true ones among all that are at least as similar; each adds 1 /
    found to the recall, so average precision is the mean of these precisions.

    Args:
        sims: n, the query's similarity to all detections.
        searched: bool n, which of them are searched.
        found: its similarities to the true ones, rising.
        num_present: how often the person is to be found.
    """
    if len(found) == 0:
        return 0.0, np.inf
    ranked = np.sort(sims[searched & (sims >= found[0])])  # what is less similar than every true one changes nothing
    true = len(found) - np.searchsorted(found, found)
    reached = len(ranked) - np.searchsorted(ranked, found)
    return float((true / reached).mean()) * len(found) / num_present, float(reached[-1] - true[-1])
