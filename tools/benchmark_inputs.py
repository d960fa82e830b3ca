"""Galleries of real sizes with drawn boxes and features, for timing the evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets.base import PersonSearchDataset, QueryGallery, make_annotation
from datasets.cuhk_sysu import CUHKSYSU
from datasets.prw import PRW
from engine.features import Features
from utils.labels import UNLABELLED

DIMENSIONS = 256
"""Numbers of an embedding (SeqNet; GLCNet has more)."""
LIKENESS = 0.2
"""Similarity of two embeddings of a person, about: a gallery in which nobody was found again would be quick to rank."""
FRAME = (1920, 1080)
CAMERAS = 6
SHIFT = 4
"""Pixels by which detections lie beside the people, at most."""


@dataclass(frozen=True)
class World:
    """How much there is in a drawn gallery.

    Attributes:
        images: frames of the gallery.
        people: identities; all of a frame's differ.
        known: boxes with identity of a frame.
        unknown: boxes without.
        false: detections of a frame that show nobody.
        queries: each a known box of the gallery.
        gallery_size: images of a query's gallery; 0 is all of them.
    """

    images: int
    people: int
    known: int
    unknown: int
    false: int
    queries: int
    gallery_size: int = 0


@dataclass
class DrawnGallery:
    """A gallery and its queries, and what a network might say of them."""

    gallery_set: PersonSearchDataset
    query_set: PersonSearchDataset
    features: Features

    @property
    def num_boxes(self) -> int:
        """Detections in the whole gallery."""
        return sum(len(dets) for dets in self.features.gallery_dets)


class _DrawnPRW(PRW):
    """A split of PRW whose annotations are given; nothing is read."""

    def __init__(self, split: str, annotations: list[dict]):
        self.root, self.split, self.annotations = Path(), split, annotations


class _DrawnCUHK(CUHKSYSU):
    """A query split of CUHK-SYSU whose galleries are given; nothing is read."""

    def __init__(self, annotations: list[dict], galleries: list[QueryGallery]):
        self.root, self.split, self.annotations, self._drawn = Path(), "query", annotations, galleries

    def galleries(self, gallery_set, size=None, cross_camera=False) -> Iterator[QueryGallery]:  # noqa: ARG002
        return iter(self._drawn)


class _Painter:
    """Draws a world; the same one each time."""

    def __init__(self, world: World):
        self.world, self.random = world, np.random.default_rng(1)
        self.people = self._directions(world.people)

    def _directions(self, count: int) -> np.ndarray:
        rows = self.random.standard_normal((count, DIMENSIONS), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embeddings(self, pids: np.ndarray) -> np.ndarray:
        """Unit vectors; those of one person are alike, those without identity like nobody's."""
        known = (pids > 0)[:, None]
        own = np.where(known, self.people[pids - 1], 0) * np.float32(LIKENESS**0.5)
        rows = own + self._directions(len(pids)) * np.where(known, np.float32((1 - LIKENESS) ** 0.5), 1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def _boxes(self, count: int) -> np.ndarray:
        corners = self.random.integers(0, (FRAME[0] - 100, FRAME[1] - 200), (count, 2))
        return np.hstack([corners, corners + self.random.integers((40, 100), (100, 200), (count, 2))])

    def frame(self, index: int) -> dict:
        """The annotation of one gallery image."""
        pids = 1 + self.random.choice(self.world.people, self.world.known, replace=False)
        pids = np.concatenate([pids, np.full(self.world.unknown, UNLABELLED)])
        camera = 1 + index % CAMERAS
        return make_annotation(Path(), f"c{camera}s1_{index:06d}.jpg", self._boxes(len(pids)), pids, cam_id=camera)

    def found(self, frame: dict) -> tuple[np.ndarray, np.ndarray]:
        """Detections of a frame, n x 5, and their embeddings."""
        shifted = frame["boxes"] + self.random.integers(-SHIFT, SHIFT + 1, frame["boxes"].shape)
        boxes = np.vstack([shifted, self._boxes(self.world.false)])
        scores = np.sort(self.random.uniform(0.4, 1, len(boxes)))[::-1]
        pids = np.concatenate([frame["pids"], np.full(self.world.false, UNLABELLED)])
        return np.column_stack([boxes, scores]).astype(np.float32), self.embeddings(pids)

    def context(self, frame: dict, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What searching a query's image gives: the query, its first box, and those around it."""
        boxes = np.column_stack([frame["boxes"], np.ones(len(frame["boxes"]))]).astype(np.float32)
        return boxes, np.vstack([query, self.embeddings(frame["pids"][1:])])

    def gallery(self, places: np.ndarray, boxes: np.ndarray) -> QueryGallery:
        """A gallery of the world's size around the frames that hold a person, and its box in each."""
        others = np.setdiff1d(self.random.permutation(self.world.images)[: self.world.gallery_size], places)
        images = np.sort(np.concatenate([places, others])[: self.world.gallery_size])
        return QueryGallery(images, places, boxes, len(places))


def draw(world: World) -> DrawnGallery:
    """A gallery, its queries, and the detections and embeddings that a network might give."""
    painter = _Painter(world)
    frames = [painter.frame(index) for index in range(world.images)]
    dets, feats = zip(*map(painter.found, frames), strict=True)
    own = [frames[index % world.images] for index in range(world.queries)]
    asked = [frame | {"boxes": frame["boxes"][:1], "pids": frame["pids"][:1]} for frame in own]
    query_feats = painter.embeddings(np.array([query["pids"][0] for query in asked]))
    contexts = list(map(painter.context, own, query_feats))
    gallery_set: PersonSearchDataset = _DrawnPRW("gallery", frames)
    query_set: PersonSearchDataset = _DrawnPRW("query", asked)
    if world.gallery_size:
        sized = [painter.gallery(full.positives, full.boxes) for full in query_set.galleries(gallery_set)]
        query_set = _DrawnCUHK(asked, sized)
    return DrawnGallery(gallery_set, query_set, Features(list(dets), list(feats), None, list(query_feats), contexts))


_CUHK = partial(World, images=6978, people=2900, known=2, unknown=3, false=2, queries=2900)
_SEARCHED = partial(World, people=1000, known=4, unknown=0, false=2, queries=1000)
WORLDS: dict[str, Callable[[], World]] = {
    "tiny": partial(World, images=40, people=20, known=3, unknown=1, false=1, queries=10),
    "prw": partial(World, images=6112, people=545, known=4, unknown=0, false=3, queries=2391),
    "cuhk-100": partial(_CUHK, gallery_size=100),
    "cuhk-500": partial(_CUHK, gallery_size=500),
    "10k": partial(_SEARCHED, images=10_000 // 6),
    "100k": partial(_SEARCHED, images=100_000 // 6),
    "1M": partial(_SEARCHED, images=1_000_000 // 6),
}
"""Name of a drawn gallery -> how much there is in it: those of the datasets, and some by their number of boxes."""
