"""Thresholds of a match that an index itself tells: people seen at once in one image are different people."""

import numpy as np

from engine.index.store import PeopleIndex
from utils.boxes import paired_iou
from utils.match_thresholds import MATCH_RATE, POSSIBLE_RATE, MatchThresholds

SAMPLE = 4_000
"""People whose similarities are compared: with more, thresholds hardly change, and the search begins later."""
LEAST_PAIRS = 1_000
"""Pairs from which thresholds are derived: with fewer, hardly any reaches that of a match."""


def thresholds_of(index: PeopleIndex) -> MatchThresholds | None:
    """The similarities that a share of POSSIBLE_RATE and of MATCH_RATE of the pairs of different people reach.

    These are people of one picture or frame whose boxes do not overlap: one who is found twice does.

    Returns:
        None where there are fewer than LEAST_PAIRS.
    """
    pairs = [similarities_apart(hits, vectors) for hits, vectors in index.sample(SAMPLE).values()]
    similarities = np.concatenate([*pairs, []])
    if len(similarities) < LEAST_PAIRS:
        return None
    return MatchThresholds(*np.quantile(similarities, [1 - POSSIBLE_RATE, 1 - MATCH_RATE]).tolist())


def similarities_apart(hits: list, vectors: np.ndarray) -> np.ndarray:
    """How similar people of an image are, each as the query, to the others who do not overlap.

    Args:
        hits: n people of the image.
        vectors: n x D, their embeddings weighted by detection scores.
    """
    boxes = np.array([hit.box for hit in hits])
    queries = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (queries @ vectors.T)[paired_iou(boxes[:, None], boxes) == 0]
