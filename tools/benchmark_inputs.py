"""Galleries of real sizes with drawn boxes and features, for timing the evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import make_annotation
from datasets.prw import PRW
from engine.features import Features

DIMENSIONS = 256
"""Numbers of an embedding (SeqNet; GLCNet has more)."""


@dataclass
class DrawnGallery:
    """A gallery and its queries, and what a network might say of them."""

    gallery_set: PRW
    query_set: PRW
    features: Features

    @property
    def num_boxes(self) -> int:
        """Detections in the whole gallery."""
        return sum(len(dets) for dets in self.features.gallery_dets)


class _DrawnPRW(PRW):
    """A split of PRW whose annotations are given; nothing is read."""

    def __init__(self, split: str, annotations: list[dict]):
        self.root, self.split, self.annotations = Path(), split, annotations


def _draw_prw(images: int, queries: int, people: int, boxes: int) -> DrawnGallery:
    generator = np.random.default_rng(1)

    def vectors(count: int) -> np.ndarray:
        rows = generator.standard_normal((count, DIMENSIONS), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def annotation(index: int) -> dict:
        corners = generator.integers(0, (1200, 600), (boxes, 2))
        sizes = generator.integers((40, 100), (200, 400), (boxes, 2))
        pids = generator.permutation(people)[:boxes] + 1
        name = f"c{index % 6 + 1}s1_{index:06d}.jpg"
        return make_annotation(Path(), name, np.hstack([corners, corners + sizes]), pids, cam_id=index % 6 + 1)

    annotations = [annotation(index) for index in range(images)]
    asked = [
        image | {"boxes": image["boxes"][:1], "pids": image["pids"][:1]}
        for image in (annotations[index % images] for index in range(queries))
    ]
    dets = [np.hstack([a["boxes"], np.ones((boxes, 1))]).astype(np.float32) for a in annotations]
    features = Features(
        gallery_dets=dets,
        gallery_feats=[vectors(boxes) for _ in annotations],
        truth_feats=None,
        query_feats=list(vectors(queries)),
        query_context=[(dets[index % images], vectors(boxes)) for index in range(queries)],
    )
    return DrawnGallery(_DrawnPRW("gallery", annotations), _DrawnPRW("query", asked), features)


GALLERIES: dict[str, Callable[[], DrawnGallery]] = {
    "tiny": lambda: _draw_prw(images=40, queries=10, people=20, boxes=4),
    "prw": lambda: _draw_prw(images=6112, queries=2057, people=450, boxes=6),
}
"""Name of a drawn gallery -> what draws it; the same one each time."""


def drawn_gallery(name: str) -> DrawnGallery:
    """The drawn gallery of a name of `GALLERIES`."""
    return GALLERIES[name]()
