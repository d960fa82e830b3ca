"""Companion voting: who was seen in company once is likely to be seen in the same company again.

A re-ranking of this project, beside CBGM (`cbgm.py`), for any network and without training. Every detection of the
gallery gains from its image what the people around the query, its companions, find there: each companion's similarity
to the detection most similar to it, as far as that is more than it finds in people who are certainly somebody else.
These are all but the most similar one of each image, as an image shows a person once at most. So a companion who
resembles many people says little, nobody gains where the query is alone, and the similarities of any network are their
own measure.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from utils.evaluation.ranking import Gallery


class CompanionVoting(NamedTuple):
    """Settings of companion voting.

    Attributes:
        weight: factor of a vote, which is added to the similarity.
        quantile: share, 0 ... 1, of a companion's similarities to other people that count as chance.
    """

    weight: float = 0.2
    quantile: float = 0.998


def companion_votes(
    sims: Iterable[np.ndarray], gallery: Gallery, images: np.ndarray, quantile: float
) -> tuple[np.ndarray, np.ndarray]:
    """The largest vote of a query's companions for each detection of some images, 0 or more.

    A companion's vote for a detection is its largest similarity to another detection of the same image, minus what is
    chance: the smallest of its similarities to certain others that is above the `quantile` of them.

    Args:
        sims: per companion n, the similarities to all detections of the gallery.
        images: indexes of the gallery images that are searched.

    Returns:
        Indexes of the images' detections, and the vote for each.
    """
    images = images[gallery.counts[images] > 0]
    detections, place = gallery.detections_of(images)
    votes = np.zeros(len(detections), np.float32)
    starts = np.cumsum(gallery.counts[images]) - gallery.counts[images]
    for row in sims if len(detections) else ():
        own = row[detections]
        best = np.maximum.reduceat(own, starts)
        is_best = own >= best[place]
        by_chance = _quantile(own[~is_best], quantile)
        heard = np.flatnonzero((best > by_chance)[place])
        if len(heard):
            others = _best_of_others(own[heard], is_best[heard], place[heard])
            votes[heard] = np.maximum(votes[heard], others - by_chance)
    return detections, votes


def _quantile(values: np.ndarray, share: float) -> float:
    """The smallest of the values that is not below this share of them; inf where there are none."""
    if not len(values):
        return np.inf
    place = min(int(share * len(values)), len(values) - 1)
    return float(np.partition(values, place)[place])


def _best_of_others(sims: np.ndarray, is_best: np.ndarray, image: np.ndarray) -> np.ndarray:
    """For each of n detections the largest similarity to another one of its image, -inf where it is alone.

    Args:
        sims: n, image after image.
        is_best: bool n, which are the largest of their image.
        image: n, each one's image, rising.
    """
    _, starts, image = np.unique(image, return_index=True, return_inverse=True)
    best = np.maximum.reduceat(sims, starts)[image]
    second = np.maximum.reduceat(np.where(is_best, -np.inf, sims), starts)[image]
    several = np.add.reduceat(is_best, starts, dtype=np.int32)[image] > 1
    return np.where(is_best & ~several, second, best)
