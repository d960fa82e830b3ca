"""How well a person is found again: mean average precision and top-k accuracy, one ranking for every dataset."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

import numpy as np

from utils.errors import UserError
from utils.evaluation.cbgm import context_people, rerank
from utils.evaluation.companions import CompanionVoting, companion_votes
from utils.evaluation.ranking import (
    BLOCK_MB,
    MEBIBYTE,
    SCORE_THRESH,
    Gallery,
    join_gallery,
    join_queries,
    score_query,
    similarities,
    true_similarities,
)

TOP_K = (1, 5, 10)

Reranking = Callable[[np.ndarray, np.ndarray], None]
"""Changes a query's similarities to all detections in place, given the indexes of the images that are searched."""


def evaluate_search(gallery_set, query_set, *args, **settings) -> dict:
    """Search every query in its gallery.

    Similarity is the dot product of the embeddings. In a gallery image that holds the person, the most similar of the
    detections whose IoU with the true box reaches a threshold is true, every other detection false. A query's AP is
    the average precision (scikit-learn's definition) times the share of those images in which the person was found.
    Equal similarities are one threshold: a true detection ranks behind the false ones that equal it, in top-k too.

    Args:
        gallery_set, query_set, args, settings: as in `search_blocks`.

    Returns:
        `mAP`, `top1`, `top5`, `top10`: means over queries, 0 ... 1; `ap`: float64, AP of each query scored;
        `queries`: int64, which queries these are. Queries whose gallery never shows the person are left out, with a
        warning.

    Raises:
        ValueError: arguments that do not fit each other, or an unknown gallery size.
        UserError: NaN in the arrays, or no query left to score.
    """
    gallery, blocks = search_blocks(gallery_set, query_set, *args, **settings)
    return _summary(np.array([score for sims, wanted in blocks for score in score_block(sims, gallery, wanted)]))


def search_blocks(
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
    voting: CompanionVoting | None = None,
    image_scores: np.ndarray | None = None,
) -> tuple[Gallery, Iterator[tuple[np.ndarray, list]]]:
    """The similarities by which queries are searched.

    Args:
        gallery_set, query_set: the gallery and the query split of one dataset (datasets.base.PersonSearchDataset).
        gallery_dets: per gallery image n x 5, x1, y1, x2, y2 (pixels) and score.
        gallery_feats: per gallery image n x D, embeddings weighted by confidence.
        query_feats: per query D (or 1 x D).
        query_context: to re-rank, per query (m x 5, m x D): the people in its image, the query first; unweighted.
        cbgm: context bipartite graph matching, see utils.evaluation.cbgm.
        gallery_size: images per gallery; None is the dataset's usual size, -1 the full set.
        cross_camera: only images of other cameras than the query's.
        score_thresh: detections below it are left out.
        k1, k2: settings of the matching, None for the dataset's own (`query_set.cbgm_k1`, `.cbgm_k2`).
        block_mb: MiB for the similarities of a block of (at least 32) queries. Results do not depend on it.
        voting: re-rank by the people around the query, see utils.evaluation.companions.
        image_scores: re-rank by a gallery filter: Q x G, factors on a query's similarities to the people of an image.
            There can be one re-ranking.

    Returns:
        The gallery with its n detections; and for each block of q queries, in order, their similarities to all
        detections (q x n, re-ranked where that is asked for) and where each is searched (datasets.base.QueryGallery).

    Raises:
        ValueError, UserError: as `evaluate_search`.
    """
    queries = join_queries(query_feats, len(query_set.annotations))
    gallery = join_gallery(gallery_dets, gallery_feats, len(gallery_set.annotations), queries.shape[1], score_thresh)
    if cbgm + (voting is not None) + (image_scores is not None) > 1:
        raise ValueError("there can be one re-ranking: cbgm, voting or image_scores")
    if (cbgm or voting) and query_context is None:
        raise ValueError("re-ranking, by cbgm or by voting, needs query_context, the people around each query")
    rerankings: Iterator[Reranking] = iter(())
    if cbgm:
        rerankings = _matching(gallery, query_set, query_context, k1, k2)
    if voting:
        rerankings = _voting(gallery, query_set, query_context, voting, block_mb * MEBIBYTE)
    if image_scores is not None:
        rerankings = _weighting(gallery, image_scores)
    blocks = similarities(queries, gallery.feats, block_mb * MEBIBYTE)
    galleries = iter(query_set.galleries(gallery_set, gallery_size, cross_camera))
    return gallery, _searched(blocks, galleries, rerankings)


def _searched(
    blocks: Iterable[np.ndarray], galleries: Iterator, rerankings: Iterator[Reranking]
) -> Iterator[tuple[np.ndarray, list]]:
    """Blocks of similarities (q x n) with their queries' galleries, re-ranked where there are re-rankings."""
    for sims in blocks:
        wanted = list(islice(galleries, len(sims)))
        for row, own, change in zip(sims, wanted, rerankings, strict=False):
            change(row, own.images)
        yield sims, wanted


def score_block(sims: np.ndarray, gallery: Gallery, wanted: Sequence) -> Iterator[tuple[float, float]]:
    """What `score_query` says of each of q queries, given q x n similarities; NaN where nobody is to be found."""
    found = true_similarities(sims, gallery, wanted)
    for row, true, own in zip(sims, found, wanted, strict=True):
        scores = score_query(row, gallery.are_in(own.images), true, own.num_present)
        yield scores if len(own.positives) else (np.nan, np.nan)


def _matching(gallery: Gallery, query_set, context: Sequence, k1: int | None, k2: int | None) -> Iterator[Reranking]:
    """CBGM for each query; k1 and k2 are None for the dataset's own."""
    k1, k2 = query_set.cbgm_k1 if k1 is None else k1, query_set.cbgm_k2 if k2 is None else k2
    if min(k1, k2) < 1:
        raise ValueError(f"k1 and k2 must be 1 or more, not {k1} and {k2}")

    def match(people: np.ndarray, sims: np.ndarray, images: np.ndarray) -> None:
        rerank(sims, gallery, gallery.are_in(images), people, k1)

    people = context_people(context, query_set.annotations, k2, gallery.feats.shape[1])
    return (partial(match, own) for own in people)


def _voting(
    gallery: Gallery, query_set, context: Sequence, voting: CompanionVoting, block_bytes: int
) -> Iterator[Reranking]:
    """Companion voting for each query."""
    people = context_people(context, query_set.annotations, None, gallery.feats.shape[1])
    companions = np.concatenate([own[1:] for own in people])
    # The similarities of many queries' companions at once: a product for one query takes as long to read the gallery.
    rows = chain.from_iterable(similarities(companions, gallery.feats, block_bytes))

    def vote(number: int, sims: np.ndarray, images: np.ndarray) -> None:
        detections, votes = companion_votes(list(islice(rows, number)), gallery, images, voting.quantile)
        sims[detections] += voting.weight * votes

    return (partial(vote, len(own) - 1) for own in people)


def _weighting(gallery: Gallery, image_scores: np.ndarray) -> Iterator[Reranking]:
    """Multiplication by the score of each one's image, for each query."""

    def weigh(scores: np.ndarray, sims: np.ndarray, _: np.ndarray) -> None:
        sims *= np.repeat(scores, gallery.counts)

    return (partial(weigh, own) for own in image_scores)


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
