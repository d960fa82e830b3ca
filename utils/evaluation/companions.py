"""Companion voting: who was seen in company once is likely to be seen in the same company again.

A re-ranking of this project, beside CBGM (`cbgm.py`), for any network and without training. Every detection of the
gallery gains from its image what the people around the query, its companions, find there: each companion's similarity
to the detection most similar to it, as far as that is more than it finds in people who are certainly somebody else.
These are all but the most similar one of each image, as an image shows a person once at most. So a companion who
resembles many people says little, nobody gains where the query is alone, and the similarities of any network are their
own measure.
"""

from typing import NamedTuple

import numpy as np

from utils.evaluation.ranking import Gallery


class CompanionVoting(NamedTuple):
    """Settings of companion voting.

    Attributes:
        weight: factor of a vote, which is added to the similarity.
        quantile: share, 0 ... 1, of a companion's similarities to other people that count as chance.
    """

    weight: float = 0.4
    quantile: float = 0.998


def companion_votes(
    companions: np.ndarray, gallery: Gallery, images: np.ndarray, quantile: float
) -> tuple[np.ndarray, np.ndarray]:
    """The largest vote of a query's companions for each detection of some images, 0 or more.

    A companion's vote for a detection is its largest similarity to another detection of the same image, minus the
    `quantile` of its similarities to those detections that are not the most similar of their image.

    Args:
        companions: m x D, embeddings of the people around the query.
        images: indexes of the gallery images that are searched.

    Returns:
        Indexes of the images' detections, and the vote for each.
    """
    images = images[gallery.counts[images] > 0]
    detections, place = gallery.detections_of(images)
    if not len(companions) or not len(detections):
        return detections, np.zeros(len(detections), np.float32)
    everything = len(detections) == len(gallery.feats)
    sims = companions @ (gallery.feats if everything else gallery.feats[detections]).T
    counts = gallery.counts[images]
    starts = np.cumsum(counts) - counts
    best = np.maximum.reduceat(sims, starts, axis=1)[:, place]
    is_best = sims == best
    is_alone = (np.add.reduceat(is_best, starts, axis=1, dtype=np.int32) == 1)[:, place]
    second = np.maximum.reduceat(np.where(is_best, -np.inf, sims), starts, axis=1)[:, place]
    others = np.where(is_best & is_alone, second, best)  # beside each detection the best of the others
    votes = np.zeros(len(detections), np.float32)
    for own, row, top in zip(others, sims, is_best, strict=True):
        if not top.all():
            np.maximum(votes, own - np.quantile(row[~top], quantile), out=votes)
    return detections, votes
