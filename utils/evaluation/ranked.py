"""What a search shows first, query by query: the detections by falling similarity, right and wrong."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from utils.evaluation.ranking import Gallery, overlapping
from utils.evaluation.search import score_block, search_blocks


class Ranking(NamedTuple):
    """What the search for one query shows first.

    Attributes:
        query: its place in the query set.
        ap: average precision, see `evaluate_search`.
        false_before: false detections before the first true one; inf where none is found.
        present: how often the person is to be found.
        found: how often it is found, at any rank.
        detections: int64, n: places in the arrays of the gallery.
        similarities: n, falling.
        true: bool, n.
        duplicate: bool, n: overlaps the person enough, but another detection of the image that does so is more similar.
    """

    query: int
    ap: float
    false_before: float
    present: int
    found: int
    detections: np.ndarray
    similarities: np.ndarray
    true: np.ndarray
    duplicate: np.ndarray


def rank_search(gallery_set, query_set, *args, top: int, **settings) -> tuple[Gallery, list[Ranking]]:
    """Search every query in its gallery, and tell what is found first.

    Args:
        gallery_set, query_set, args, settings: as in `search_blocks`.
        top: how many detections a ranking holds; as many as the person is to be found, where that is more.

    Returns:
        The detections of the gallery, and a ranking for each query whose gallery shows the person. Of equal
        similarities the true ones come last, as in `evaluate_search`.

    Raises:
        ValueError, UserError: as `evaluate_search`.
    """
    gallery, blocks = search_blocks(gallery_set, query_set, *args, **settings)
    rankings: list[Ranking] = []
    first = 0
    for sims, wanted in blocks:
        rankings += _rank_block(sims, gallery, wanted, first, top)
        first += len(sims)
    return gallery, rankings


def _rank_block(sims: np.ndarray, gallery: Gallery, wanted: Sequence, first: int, top: int) -> Iterator[Ranking]:
    """Rankings of q queries, of which the first is the query set's `first`, given q x n similarities."""
    query, overlap, person = overlapping(gallery, wanted)
    scores = score_block(sims, gallery, wanted)
    for place, (row, own, (ap, false_before)) in enumerate(zip(sims, wanted, scores, strict=True)):
        if np.isnan(ap):
            continue
        candidates, people = overlap[query == place], person[query == place]
        order = np.argsort(-row[candidates], kind="stable")
        true = candidates[order[np.unique(people[order], return_index=True)[1]]]
        shown = _first(row, gallery.are_in(own.images), true, max(top, own.num_present))
        is_true, overlaps = np.isin(shown, true), np.isin(shown, candidates)
        found = len(true)
        yield Ranking(
            first + place, ap, false_before, own.num_present, found, shown, row[shown], is_true, overlaps & ~is_true
        )


def _first(sims: np.ndarray, searched: np.ndarray, true: np.ndarray, number: int) -> np.ndarray:
    """The first `number` detections that are searched, by falling similarity, true ones behind equal false ones."""
    places = np.flatnonzero(searched)
    if len(places) > number:
        places = places[sims[places] >= np.partition(sims[places], -number)[-number]]
    order = np.lexsort((np.isin(places, true), -sims[places]))
    return places[order[:number]]
