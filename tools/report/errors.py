"""What a search finds instead of the person: the kinds of its errors."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from utils.boxes import paired_iou
from utils.evaluation import Gallery, Ranking

RIGHT, DUPLICATE, WRONG_PERSON, BACKGROUND = "right", "duplicate", "wrong person", "background"
LOWER, MISSED = "ranked lower", "missed"
MIN_IOU = 0.5
"""Least IoU of a detection with an annotated person, below which it is of the background."""


def overlapping_people(annotations: Sequence[dict], gallery: Gallery) -> np.ndarray:
    """For each detection of the gallery whether it overlaps an annotated person of its image: bool n."""
    boxes = np.split(gallery.boxes, np.cumsum(gallery.counts)[:-1])
    found = [
        (paired_iou(own[:, None], np.reshape(annotation["boxes"], (1, -1, 4))) >= MIN_IOU).any(axis=1)
        for own, annotation in zip(boxes, annotations, strict=True)
    ]
    return np.concatenate(found)


def kinds_of(ranking: Ranking, people: np.ndarray) -> list[str]:
    """The kind of each detection of a ranking: right, duplicate, wrong person or background.

    Args:
        people: bool, for each detection of the gallery whether it is of an annotated person.
    """
    wrong = np.where(people[ranking.detections], WRONG_PERSON, BACKGROUND)
    return np.where(ranking.true, RIGHT, np.where(ranking.duplicate, DUPLICATE, wrong)).tolist()


def count_errors(rankings: Sequence[Ranking], people: np.ndarray) -> dict[str, int]:
    """How the appearances of the people asked for end, and what stands in their places.

    A person who appears m times in a gallery would fill the first m places of a perfect ranking.

    Args:
        people: as in `kinds_of`.

    Returns:
        `appearances`; of these, `right` are among the first m places, `ranked lower` are found behind them, `missed`
        are not detected. The first m places that are not right hold `wrong person`, `background` or `duplicate`, or
        nothing, where there are fewer detections.
    """
    counts: Counter[str] = Counter()
    for ranking in rankings:
        first = Counter(kinds_of(ranking, people)[: ranking.present])
        counts += first
        counts["appearances"] += ranking.present
        counts[LOWER] += ranking.found - first[RIGHT]
        counts[MISSED] += ranking.present - ranking.found
    names = ("appearances", RIGHT, LOWER, MISSED, WRONG_PERSON, BACKGROUND, DUPLICATE)
    return {name: counts[name] for name in names}
