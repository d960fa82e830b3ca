"""How well a person is found again: mean average precision and top-k accuracy, one ranking for every dataset."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from utils.errors import UserError
from utils.evaluation.arrays import DETECTION_COLUMNS, joined
from utils.evaluation.cbgm import context_people, rerank
from utils.evaluation.ranking import Gallery, score_query, similarities, true_similarities

TOP_K = (1, 5, 10)
SCORE_THRESH = 0.5
BLOCK_MB = 64
MEBIBYTE = 2**20


def evaluate_search(
    gallery_set,
    query_set,
    gallery_dets: Sequence,
    gallery_feats: Sequence,
    query_feats: Sequence,
    query_context: Sequence | None = None,
    cbgm: bool = False,
    gallery_size: int | None = None,
    cross_camera: bool = False,
    score_thresh: float = SCORE_THRESH,
    k1: int | None = None,
    k2: int | None = None,
    block_mb: int = BLOCK_MB,
) -> dict:
    """Search every query in its gallery.

    Similarity is the dot product of the embeddings. In a gallery image that holds the person, the most similar of the
    detections whose IoU with the true box reaches a threshold is true, every other detection false. A query's AP is
    the average precision (scikit-learn's definition) times the share of those images in which the person was found.
    Equal similarities are one threshold: a true detection ranks behind the false ones that equal it, in top-k too.

    Args:
        gallery_set, query_set: the gallery and the query split of one dataset (datasets.base.PersonSearchDataset).
        gallery_dets: per gallery image n x 5, x1, y1, x2, y2 (pixels) and score.
        gallery_feats: per gallery image n x D, embeddings weighted by confidence.
        query_feats: per query D (or 1 x D).
        query_context: with `cbgm`, per query (m x 5, m x D): the people in its image, the query first; unweighted.
        cbgm: context bipartite graph matching, see utils.evaluation.cbgm.
        gallery_size: images per gallery; None is the dataset's usual size, -1 the full set.
        cross_camera: only images of other cameras than the query's.
        score_thresh: detections below it are left out.
        k1, k2: settings of the matching, None for the dataset's own (`query_set.cbgm_k1`, `.cbgm_k2`).
        block_mb: MiB for the similarities of a block of (at least 32) queries. Results do not depend on it.

    Returns:
        `mAP`, `top1`, `top5`, `top10`: means over queries, 0 ... 1; `ap`: float64, AP of each query scored;
        `queries`: int64, which queries these are. Queries whose gallery never shows the person are left out, with a
        warning.

    Raises:
        ValueError: arguments that do not fit each other, or an unknown gallery size.
        UserError: NaN in the arrays, or no query left to score.
    """
    number = len(query_set.annotations)
    rows = [np.atleast_2d(feat) for feat in query_feats]
    queries, _ = joined(rows, number, "query_feats", dtype=np.float32, expected=np.ones(number, np.int64))
    gallery = _join_gallery(gallery_dets, gallery_feats, len(gallery_set.annotations), queries.shape[1], score_thresh)
    people = None
    if cbgm:
        k1, k2 = query_set.cbgm_k1 if k1 is None else k1, query_set.cbgm_k2 if k2 is None else k2
        if query_context is None or min(k1, k2) < 1:
            raise ValueError("cbgm needs query_context, the people around each query, and k1 and k2 of at least 1")
        people = context_people(query_context, query_set.annotations, k2, queries.shape[1])
    blocks = similarities(queries, gallery.feats, block_mb * MEBIBYTE)
    galleries = iter(query_set.galleries(gallery_set, gallery_size, cross_camera))
    return _summary(np.array(list(_scores(blocks, gallery, galleries, people, k1))))


def _scores(
    blocks: Iterable[np.ndarray], gallery: Gallery, galleries: Iterator, people: list[np.ndarray] | None, k1: int | None
) -> Iterator[tuple[float, float]]:
    """Scores of each query, from blocks of similarities (q x n); re-ranked where `people` are given."""
    context = iter(people or ())
    for sims in blocks:
        wanted = list(islice(galleries, len(sims)))
        searched = [gallery.are_in(own.images) for own in wanted]
        for row, inside, own_people in zip(sims, searched, context, strict=False):
            rerank(row, gallery, inside, own_people, k1)
        found = true_similarities(sims, gallery, wanted)
        for row, inside, true, own in zip(sims, searched, found, wanted, strict=True):
            yield score_query(row, inside, true, own.num_present) if len(own.positives) else (np.nan, np.nan)


def _join_gallery(dets: Sequence, feats: Sequence, number: int, width: int, score_thresh: float) -> Gallery:
    """The detections of `number` images whose score reaches a threshold, with embeddings of `width` numbers."""
    rows, counts = joined(dets, number, "gallery_dets", DETECTION_COLUMNS)
    vectors, _ = joined(feats, number, "gallery_feats", width, np.float32, counts)
    kept = rows[:, 4] >= score_thresh
    if kept.all():  # no copy of the embeddings
        return Gallery(rows[:, :4], vectors, counts)
    counts = np.bincount(np.repeat(np.arange(number), counts)[kept], minlength=number)
    return Gallery(rows[kept, :4], vectors[kept], counts)


def _summary(scores: np.ndarray) -> dict:
    """Means of average precision and rank, m x 2, over the queries that have one: NaN stands for none."""
    queries = np.flatnonzero(~np.isnan(scores[:, 0]))
    if len(queries) == 0:
        raise UserError("no query's gallery shows its person: check that gallery and queries belong to one dataset")
    if len(queries) < len(scores):
        missing = len(scores) - len(queries)
        warnings.warn(f"{missing} queries left out of the scores: their gallery never shows the person", stacklevel=3)
    ap, first_rank = scores[queries].T
    top = {f"top{k}": float((first_rank < k).mean()) for k in TOP_K}
    return {"mAP": float(ap.mean()), **top, "ap": ap, "queries": queries}
