"""The ranking lists of a report: which queries it shows, and what it says of each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datasets import PersonSearchDataset
from tools.report.analysis import TOP, Analysis
from tools.report.pictures import Pictures
from utils.evaluation import Ranking

GROUP = 5
"""People around the query that have pictures of their own, at most."""


class Hit(NamedTuple):
    """A detection in a ranking, as the page shows it; the box is left, top, width and height in % of its scene."""

    picture: str
    similarity: float
    kind: str
    scene: str
    box: list[float]


class RankingList(NamedTuple):
    """What one network finds for one query by one re-ranking."""

    title: str
    ap: float
    present: int
    found: int
    first_right: int | None
    hits: list[Hit]


class Query(NamedTuple):
    """A query with its scene, the boxes of the people around it, the pictures of some of these, and its rankings."""

    number: int
    name: str
    camera: str
    scene: str
    picture: str
    box: list[float]
    around: list[list[float]]
    group: list[str]
    lists: list[RankingList]


def list_titles(analyses: Sequence[Analysis]) -> list[tuple[str, int, str]]:
    """Title, run and re-ranking of each list: first all runs without re-ranking."""
    titles = []
    for reranking in analyses[0].rankings:
        for place, analysis in enumerate(analyses):
            suffix = "" if reranking == "none" else f" + {reranking}"
            titles.append((f"{analysis.run.name}{suffix}", place, reranking))
    return titles


def choose_queries(analyses: Sequence[Analysis], number: int) -> np.ndarray:
    """Places of the rankings to show, the worst first: half are the worst, half are spread evenly over the others.

    The order is by the mean AP of all runs, without re-ranking.
    """
    ap = np.mean([[ranking.ap for ranking in each.rankings["none"]] for each in analyses], axis=0)
    order = np.argsort(ap, kind="stable")
    if len(order) <= number:
        return order
    worst, others = order[: number // 2], order[number // 2 :]
    return np.concatenate([worst, others[np.linspace(0, len(others) - 1, number - len(worst)).astype(int)]])


def build_queries(
    analyses: Sequence[Analysis],
    places: np.ndarray,
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
    pictures: Pictures,
) -> list[Query]:
    """What the page shows of some queries (places of rankings); reads their images and those of the hits."""
    titles = list_titles(analyses)
    queries = []
    for place in places.tolist():
        number = analyses[0].rankings["none"][place].query
        annotation = query_set.annotations[number]
        path, [box] = annotation["img_path"], annotation["boxes"].tolist()
        around = analyses[0].features.context_dets[number][1:, :4].tolist()
        lists = [
            _ranking_list(title, analyses[run], analyses[run].rankings[reranking][place], gallery_set, pictures)
            for title, run, reranking in titles
        ]
        queries.append(
            Query(
                number + 1,
                annotation["img_name"],
                f"camera {annotation['cam_id']}" if "cam_id" in annotation else "",
                pictures.scene(path),
                pictures.person(path, box),
                _in_percent(box, *pictures.size(path)),
                [_in_percent(other, *pictures.size(path)) for other in around],
                [pictures.person(path, other) for other in around[:GROUP]],
                lists,
            )
        )
    return queries


def _ranking_list(
    title: str, analysis: Analysis, ranking: Ranking, gallery_set: PersonSearchDataset, pictures: Pictures
) -> RankingList:
    hits = []
    shown = slice(0, TOP)
    kinds = analysis.kinds(ranking)
    images = analysis.image_of[ranking.detections[shown]]
    for kind, image, detection, similarity in zip(
        kinds, images, ranking.detections[shown], ranking.similarities[shown], strict=False
    ):
        path, box = gallery_set.annotations[image]["img_path"], analysis.gallery.boxes[detection].tolist()
        box_shown = _in_percent(box, *pictures.size(path))
        hits.append(Hit(pictures.person(path, box), float(similarity), kind, pictures.scene(path), box_shown))
    first = None if np.isinf(ranking.false_before) else int(ranking.false_before) + 1
    return RankingList(title, ranking.ap, ranking.present, ranking.found, first, hits)


def _in_percent(box: Sequence[float], width: int, height: int) -> list[float]:
    """Left, top, width and height of a box (x1, y1, x2, y2), in % of an image of a size in pixels, cut to it."""
    x1, x2 = np.clip(box[::2], 0, width) / width * 100
    y1, y2 = np.clip(box[1::2], 0, height) / height * 100
    return [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)]
