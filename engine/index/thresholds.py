"""Thresholds of a match that an index itself tells: people seen at once in one image are different people."""

from collections.abc import Sequence

import numpy as np

from engine.index.rows import Hit
from engine.index.store import PeopleIndex
from utils.boxes import paired_iou
from utils.match_thresholds import MATCH_RATE, POSSIBLE_RATE, MatchThresholds

SAMPLE = 4_000
"""About so many people are looked at: the search begins after they are read."""
LEAST_PAIRS = 500
"""Pairs of people from which thresholds are derived, at least: two similarities each, one of a thousand is a match."""
SPACING = 60.0
"""Seconds of a video of which one frame counts: those beside it show the same people in the same way."""


def thresholds_of(index: PeopleIndex) -> MatchThresholds | None:
    """The similarities that a share of POSSIBLE_RATE and of MATCH_RATE of the pairs of different people reach.

    These are people of one picture or frame whose boxes do not overlap: one who is found twice does.

    Returns:
        None where a sample of the index has fewer than LEAST_PAIRS.
    """
    scenes = {_moment(hits[0]): (hits, vectors) for hits, vectors in index.sample(SAMPLE).values()}
    similarities = np.concatenate([*(similarities_apart(*scene) for scene in scenes.values()), []])
    if len(similarities) < 2 * LEAST_PAIRS:
        return None
    return MatchThresholds(*np.quantile(similarities, [1 - POSSIBLE_RATE, 1 - MATCH_RATE]).tolist())


def similarities_apart(hits: Sequence[Hit], vectors: np.ndarray) -> np.ndarray:
    """How similar people of an image are, each as the query, to the others who do not overlap: two for each pair.

    Args:
        hits: n people of the image.
        vectors: n x D, their embeddings weighted by detection scores.
    """
    boxes = np.array([hit.box for hit in hits])
    queries = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (queries @ vectors.T)[paired_iou(boxes[:, None], boxes) == 0]


def _moment(hit: Hit) -> tuple[int, float]:
    """The picture, or the part of a video, that shows a hit."""
    return hit.source.id, (hit.position or 0.0) // SPACING
