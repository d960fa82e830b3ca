"""How many gallery images a filter would spare a search, by its scores of pairs of a query and an image."""

from collections.abc import Iterable

import numpy as np

KEPT = 0.99
"""Share of the images with the person that a threshold keeps (GFN)."""


def filtered_share(image_scores: np.ndarray, galleries: Iterable) -> float:
    """Share of the images without the person that are below the threshold which keeps `KEPT` of those with it, 0 ... 1.

    One threshold for all queries.

    Args:
        image_scores: Q x G, the score of each gallery image for each query.
        galleries: of each query, see datasets.base.QueryGallery; some show the person.
    """
    shown, others = [], []
    for scores, own in zip(image_scores, galleries, strict=True):
        shows = np.isin(own.images, own.positives)
        shown.append(scores[own.images[shows]])
        others.append(scores[own.images[~shows]])
    falling = -np.sort(-np.concatenate(shown))
    below = np.concatenate(others) < falling[int(KEPT * len(falling))]
    return float(below.mean()) if len(below) else 0.0
