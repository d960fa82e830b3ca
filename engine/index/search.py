"""Search an index for people: by similarity, by the people around them, and as appearances in videos."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.index.rows import EVERYBODY, Hit, Where
from engine.index.store import MOST_HITS, PeopleIndex
from engine.requests import ImageSource, SearchRequest, check_inside, tensor_of
from engine.searcher import Searcher
from utils.evaluation.cbgm import context_people, rerank
from utils.evaluation.ranking import Gallery
from utils.match_thresholds import MatchThresholds

HITS_OF_RESULT = 8
"""Hits that are fetched for each result asked for, at first: those of a video that follow each other are one result."""
GAP_SECONDS, GAP_PERIODS = 3.0, 2.5
"""Hits of a video follow each other where no more time is between them, or no more frames that were searched."""
STEP, WALK = 0.5, 1.5
"""How far a person gets between two hits, at most: heights of the person, and heights a second."""
ALIKE = 0.2
"""Most by which the similarities of two hits of an appearance that follow each other differ. On PETS09-S2L1 92 % of the
hits of the best appearances were of one person, without this limit 89 %."""
CBGM_K1, CBGM_K2 = 30, 4
"""The most similar detections whose images are re-ranked, and the people of the query's image: SeqNet's, on PRW."""


@dataclass(frozen=True)
class Query:
    """A person to search for.

    Attributes:
        embedding: D, a unit vector.
        context: k x D, the person and the people around in the same image; the person alone where nobody is known.
        path: a file whose people are left out of the results, the query's own; None for none.
        image: number of a picture or frame of the index that is left out, the query's own; None for none.
    """

    embedding: np.ndarray
    context: np.ndarray
    path: str | None = None
    image: int | None = None


@dataclass(frozen=True)
class Appearance:
    """A result: a person in a picture, or in frames of a video that follow each other.

    Attributes:
        hits: one a frame, by time; one for a picture.
        verdict: "match", "possible", "unlikely"; "" without thresholds.
    """

    hits: tuple[Hit, ...]
    verdict: str = ""

    @property
    def best(self) -> Hit:
        """The most similar hit."""
        return max(self.hits, key=lambda hit: hit.similarity)

    @property
    def span(self) -> tuple[float, float] | None:
        """Where it begins and ends in the video, in seconds; None for a picture."""
        first, last = self.hits[0].position, self.hits[-1].position
        return None if first is None or last is None else (first, last)


def embed(searcher: Searcher, image: ImageSource, box: Sequence[float], path: str | None = None) -> Query:
    """The person in a box (x1, y1, x2, y2 in pixels) of an image, see SearchRequest, as a query.

    Raises:
        UserError: the image cannot be read, or the box is not inside it or too small.
    """
    pixels = tensor_of(image, searcher.read, searcher.max_pixels)
    check_inside(box, pixels, path or "the query image")
    [(_, _, asked)] = searcher.with_images([SearchRequest(pixels, [box])])
    around = [(asked.contexts[0].rows, asked.contexts[0].embeddings)]
    annotations = [{"boxes": np.array([box], np.float32)}]
    [context] = context_people(around, annotations, CBGM_K2, asked.query_embeddings.shape[1])
    return Query(asked.query_embeddings[0], context, path)


def person_of(index: PeopleIndex, image: int, person: int) -> Query | None:
    """A person of the index as a query, given the numbers of its picture or frame and its own; None if missing."""
    hits, vectors = index.people_of([image]).get(image, ([], None))
    row = next((row for row, hit in enumerate(hits) if hit.id == person), None)
    if row is None:
        return None
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    others = sorted((other for other in range(len(hits)) if other != row), key=lambda other: -hits[other].score)
    return Query(units[row], units[[row, *others][:CBGM_K2]], image=image)


def search(
    index: PeopleIndex,
    queries: Sequence[Query],
    top: int,
    where: Where = EVERYBODY,
    thresholds: MatchThresholds | None = None,
    cbgm: bool = False,
) -> list[list[Appearance]]:
    """For each query the best results, at most `top`, best first.

    Args:
        where: who is searched.
        thresholds: by which results get a verdict.
        cbgm: re-rank the images of the best hits by the people around the query (`utils.evaluation.cbgm`).
    """
    limit = HITS_OF_RESULT * top
    while True:
        found = index.search(np.stack([query.embedding for query in queries]), limit, where)
        results = []
        for query, hits in zip(queries, found, strict=True):
            others = [hit for hit in hits if hit.path != query.path and hit.image != query.image]
            others = rerank_hits(index, query, others) if cbgm and others else others
            results.append(appearances(others, thresholds)[:top])
        short = any(len(own) < top and len(hits) == limit for own, hits in zip(results, found, strict=True))
        if not short or limit >= MOST_HITS:
            return results
        limit = min(4 * limit, MOST_HITS)


def rerank_hits(index: PeopleIndex, query: Query, hits: Sequence[Hit]) -> list[Hit]:
    """The hits, and everybody else in the images of the best, after context bipartite graph matching; best first."""
    images = list(dict.fromkeys(hit.image for hit in hits[:CBGM_K1]))
    people = index.people_of(images)
    if not people:  # another process has just removed them
        return list(hits)
    scenes = list(people.values())
    everybody = [hit for own, _ in scenes for hit in own]
    feats = np.concatenate([vectors for _, vectors in scenes])
    boxes = np.array([hit.box for hit in everybody], np.float32)
    gallery = Gallery(boxes, feats, np.array([len(own) for own, _ in scenes]))
    similarities = feats @ query.embedding
    rerank(similarities, gallery, np.ones(len(feats), bool), query.context, CBGM_K1)
    changed = [replace(hit, similarity=float(new)) for hit, new in zip(everybody, similarities, strict=True)]
    others = [hit for hit in hits if hit.image not in people]
    return sorted([*changed, *others], key=lambda hit: -hit.similarity)


def appearances(hits: Sequence[Hit], thresholds: MatchThresholds | None = None) -> list[Appearance]:
    """Results of hits (best first): those of one video that follow each other are one, see `_follows`; best first."""
    chains: list[list[Hit]] = []
    of_video: dict[int, list[list[Hit]]] = defaultdict(list)
    for hit in sorted(hits, key=lambda hit: (hit.position or 0.0, -hit.similarity)):
        recent = of_video[hit.source.id] = [chain for chain in of_video[hit.source.id] if _is_soon(chain[-1], hit)]
        fitting = [chain for chain in recent if _follows(chain[-1], hit)]
        if fitting:
            min(fitting, key=lambda chain: _distance(chain[-1], hit)).append(hit)
        else:
            chains.append([hit])
            recent.append(chains[-1])
    results = [Appearance(tuple(chain)) for chain in chains]
    if thresholds:
        results = [replace(each, verdict=thresholds.verdict(each.best.similarity)) for each in results]
    return sorted(results, key=lambda each: -each.best.similarity)


def _is_soon(earlier: Hit, later: Hit) -> bool:
    """Whether a hit is soon after another one of the same video, or at the same time; False for pictures."""
    if earlier.position is None or later.position is None:
        return False
    return later.position - earlier.position <= max(GAP_SECONDS, GAP_PERIODS / earlier.source.fps)


def _follows(earlier: Hit, later: Hit) -> bool:
    """Whether of two hits of a video, one soon after the other, both are one appearance: within reach, as similar."""
    seconds = later.position - earlier.position
    if seconds <= 0:
        return False
    height = max(hit.box[3] - hit.box[1] for hit in (earlier, later))
    if _distance(earlier, later) > (STEP + WALK * seconds) * height:
        return False
    return abs(earlier.similarity - later.similarity) <= ALIKE


def _distance(one: Hit, other: Hit) -> float:
    """Between the centres of two boxes, in pixels."""
    (a, b, c, d), (e, f, g, h) = one.box, other.box
    return float(np.hypot(a + c - e - g, b + d - f - h)) / 2
