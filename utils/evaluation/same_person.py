"""Same person or somebody else: how similar both are, and the thresholds that tell them apart."""

from collections.abc import Sequence
from itertools import islice

import numpy as np

from utils.evaluation.ranking import (
    BLOCK_MB,
    MEBIBYTE,
    SCORE_THRESH,
    join_gallery,
    join_queries,
    overlapping,
    similarities,
    true_similarities,
)

STEP = 0.001
"""Similarities are counted in steps, from -1 to 1; thresholds are multiples."""
LIMITS = (-1.0, 1.0)
STEPS_PER_BAR = 20
"""Of the histogram, which is there to be drawn."""
FALSE_MATCH_RATES = (1e-2, 1e-3, 1e-4)


def evaluate_same_person(
    gallery_set,
    query_set,
    gallery_dets: Sequence,
    gallery_feats: Sequence,
    query_feats: Sequence,
    gallery_size: int | None = None,
    cross_camera: bool = False,
    score_thresh: float = SCORE_THRESH,
    block_mb: int = BLOCK_MB,
) -> dict:
    """Similarities of queries to the same person and to others, and the thresholds at three false-match rates.

    The same person is what a search counts as true (see `evaluate_search`): one detection in each gallery image with
    the person. Further detections that overlap the person there count as neither; all others are somebody else.

    Args:
        gallery_set, query_set, gallery_dets, gallery_feats, query_feats, gallery_size, cross_camera, score_thresh,
            block_mb: as in `utils.evaluation.search.search_blocks`.

    Returns:
        `pairs`: numbers of pairs of query and detection, `same` and `different`. `histogram`: these in bars of width
        `width`, the first of which begins at `lowest`. `thresholds`, a row for each of FALSE_MATCH_RATES:
        `false_match_rate`; `threshold`, the least multiple of STEP that at most this share of pairs of different people
        reaches, None where fewer than one pair would be that share; `true_matches_kept`, the share of pairs of the same
        person that reach it, None where there is no threshold or no such pair.

    Raises:
        ValueError, UserError: as `evaluate_search`.
    """
    queries = join_queries(query_feats, len(query_set.annotations))
    gallery = join_gallery(gallery_dets, gallery_feats, len(gallery_set.annotations), queries.shape[1], score_thresh)
    galleries = iter(query_set.galleries(gallery_set, gallery_size, cross_camera))
    same, different = _count([]), _count([])
    for sims in similarities(queries, gallery.feats, block_mb * MEBIBYTE):
        wanted = list(islice(galleries, len(sims)))
        for row, own in zip(sims, wanted, strict=True):
            different += _count(row[gallery.are_in(own.images)])
        query, detections, _ = overlapping(gallery, wanted)
        different -= _count(sims[query, detections])
        same += _count(np.concatenate(true_similarities(sims, gallery, wanted)))
    return {
        "pairs": {"same": int(same.sum()), "different": int(different.sum())},
        "histogram": _histogram(same, different),
        "thresholds": [_threshold(rate, same, different) for rate in FALSE_MATCH_RATES],
    }


def _count(sims: Sequence) -> np.ndarray:
    """How many similarities lie in each step; those that rounding puts beyond the limits, in the outermost ones."""
    steps = round((LIMITS[1] - LIMITS[0]) / STEP)
    places = ((np.asarray(sims, np.float32) - LIMITS[0]) / STEP).astype(np.int64)
    return np.bincount(places.clip(0, steps - 1), minlength=steps)


def _histogram(same: np.ndarray, different: np.ndarray) -> dict[str, object]:
    """Bars of several steps each, from the first that holds a pair to the last."""
    bars = np.stack([same, different]).reshape(2, -1, STEPS_PER_BAR).sum(2)
    filled = np.flatnonzero(bars.any(axis=0))
    first, end = (filled[0], filled[-1] + 1) if len(filled) else (0, 0)
    width = STEPS_PER_BAR * STEP
    lowest = round(LIMITS[0] + width * int(first), 3)
    counts = bars[:, first:end].tolist()
    return {"lowest": lowest, "width": width, "same": counts[0], "different": counts[1]}


def _threshold(rate: float, same: np.ndarray, different: np.ndarray) -> dict[str, float | None]:
    row = {"false_match_rate": rate, "threshold": None, "true_matches_kept": None}
    allowed = rate * different.sum()
    if allowed < 1:
        return row
    reached = different[::-1].cumsum()[::-1]  # pairs in a step or above it
    step = int((reached > allowed).sum())  # the first that few enough reach
    row["threshold"] = round(LIMITS[0] + STEP * step, 3)
    if same.any():
        row["true_matches_kept"] = float(same[step:].sum() / same.sum())
    return row
