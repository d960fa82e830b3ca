"""The numbers of a report: how well one run detects and searches, and where it errs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from datasets import FULL_GALLERY, PersonSearchDataset
from engine.feature_files import Features
from engine.scoring import Setting, rank_queries, score_search
from tools.report.errors import count_errors, kinds_of, overlapping_people
from tools.report.runs import Run
from utils.evaluation import (
    CompanionVoting,
    Gallery,
    Ranking,
    evaluate_detection,
    evaluate_detection_by_height,
    precision_recall,
)

TOP = 10
TOP_K = 50
"""Of the curve of top-k."""
HEIGHT_GROUPS = 4
CURVE_POINTS = 400


@dataclass
class Analysis:
    """One run in numbers; shares are 0 ... 1.

    Attributes:
        run: which.
        gallery: its detections.
        people: bool, for each of these whether it is of an annotated person.
        rankings: by re-ranking (`none`, `CBGM`, `companions`), one of each query scored.
        precision, recall: curve of the detections, from high scores to low ones.
        by_height, by_camera: rows with `group`, `people`, their detection `ap`, `queries` and the `mAP` of these; None
            where there are none.
        by_gallery: rows with `images` in a gallery, `re-ranking`, `mAP` and `top1`; one size where a dataset has one.
        features: what the network found.
    """

    run: Run
    gallery: Gallery
    people: np.ndarray
    rankings: dict[str, list[Ranking]]
    precision: np.ndarray
    recall: np.ndarray
    by_height: list[dict]
    by_camera: list[dict]
    by_gallery: list[dict]
    features: Features

    @property
    def image_of(self) -> np.ndarray:
        """The gallery image of each detection."""
        return np.repeat(np.arange(len(self.gallery.counts)), self.gallery.counts)

    def scores(self, reranking: str) -> dict[str, float]:
        """mAP and top-k, as `evaluate_search` has them."""
        rankings = self.rankings[reranking]
        before = np.array([ranking.false_before for ranking in rankings])
        top = {f"top{k}": float((before < k).mean()) for k in (1, 5, 10)}
        return {"mAP": float(np.mean([ranking.ap for ranking in rankings])), **top}

    def top_k(self) -> np.ndarray:
        """Shares of queries with a true detection among the first 1 ... TOP_K, without re-ranking."""
        before = np.array([ranking.false_before for ranking in self.rankings["none"]])
        return (before < np.arange(1, TOP_K + 1)[:, None]).mean(axis=1)

    def errors(self, reranking: str) -> dict[str, int]:
        """See `count_errors`."""
        return count_errors(self.rankings[reranking], self.people)

    def kinds(self, ranking: Ranking) -> list[str]:
        """See `kinds_of`."""
        return kinds_of(ranking, self.people)


def analyse(run: Run, gallery_set: PersonSearchDataset, query_set: PersonSearchDataset) -> Analysis:
    """Score a run's features; errors as `Run.features`."""
    features, cfg = run.features(gallery_set, query_set), run.cfg
    limits = cfg.MODEL.GALLERY_SCORE_THRESH, cfg.EVAL.BLOCK_MB
    common = {"gallery_size": cfg.EVAL.GALLERY_SIZE or None, "cross_camera": cfg.EVAL.CROSS_CAMERA}
    voting = CompanionVoting(cfg.EVAL.COMPANIONS.WEIGHT, cfg.EVAL.COMPANIONS.QUANTILE)
    settings = [Setting(**common), Setting(**common, cbgm=True), Setting(**common, voting=voting)]
    rankings = {}
    for setting in settings:
        gallery, found = rank_queries(features, gallery_set, query_set, setting, *limits, top=TOP)
        rankings[setting.describe()["re-ranking"]] = found
    detected = features.gallery_dets, cfg.EVAL.DETECTION_SCORE_THRESH
    precision, recall, _ = precision_recall(gallery_set, *detected)
    kept = np.unique(np.linspace(0, len(recall) - 1, min(len(recall), CURVE_POINTS)).astype(int))
    return Analysis(
        run,
        gallery,
        overlapping_people(gallery_set.annotations, gallery),
        rankings,
        precision[kept],
        recall[kept],
        _by_height(gallery_set, query_set, *detected, rankings["none"]),
        _by_camera(gallery_set, query_set, *detected, rankings["none"]),
        _by_gallery(features, gallery_set, query_set, cfg.EVAL.CROSS_CAMERA, *limits),
        features,
    )


def height_ranges(heights: np.ndarray) -> dict[str, tuple[float, float]]:
    """Ranges of heights in pixels, by name, each with about as many people; fewer where many are of one height."""
    inner = np.unique(np.quantile(heights, np.linspace(0, 1, HEIGHT_GROUPS + 1)[1:-1]).round())
    edges = [0, *inner[inner > heights.min()].tolist(), np.inf]
    names = [f"{low:g} to {high:g} px" for low, high in zip(edges, edges[1:], strict=False)]
    if len(edges) > 2:
        names[0], names[-1] = f"under {edges[1]:g} px", f"{edges[-2]:g} px and more"
    else:
        names = ["all"]
    return dict(zip(names, zip(edges, edges[1:], strict=False), strict=True))


def _heights(annotations: Iterable[dict]) -> np.ndarray:
    """Heights in pixels of all annotated boxes."""
    boxes = np.concatenate([annotation["boxes"] for annotation in annotations])
    return (boxes[:, 3] - boxes[:, 1]).astype(float)


def _by_height(gallery_set, query_set, dets: Sequence, score_thresh: float, rankings: list[Ranking]) -> list[dict]:
    ranges = height_ranges(_heights(gallery_set.annotations))
    rows = evaluate_detection_by_height(gallery_set, dets, score_thresh, ranges=ranges)
    heights = _heights(query_set.annotations)
    aps = {
        name: [each.ap for each in rankings if low <= heights[each.query] < high]
        for name, (low, high) in ranges.items()
    }
    return [
        {"group": row["height"], "people": row["people"], "ap": row["ap"] if row["people"] else None}
        | _mean_ap(aps[row["height"]])
        for row in rows
    ]


def _by_camera(gallery_set, query_set, dets: Sequence, score_thresh: float, rankings: list[Ranking]) -> list[dict]:
    """Detection in the images of each camera, and the search for the queries of each; empty where none are known."""
    rows = []
    cameras = {annotation.get("cam_id") for annotation in gallery_set.annotations} - {None}
    for camera in sorted(cameras):
        images = [place for place, each in enumerate(gallery_set.annotations) if each["cam_id"] == camera]
        own = SimpleNamespace(annotations=[gallery_set.annotations[place] for place in images])
        people = sum(len(annotation["boxes"]) for annotation in own.annotations)
        ap = evaluate_detection(own, [dets[place] for place in images], score_thresh)["ap"] if people else None
        aps = [each.ap for each in rankings if query_set.annotations[each.query]["cam_id"] == camera]
        rows.append({"group": f"camera {camera}", "people": people, "ap": ap} | _mean_ap(aps))
    return rows


def _mean_ap(aps: list[float]) -> dict[str, float | int | None]:
    return {"queries": len(aps), "mAP": float(np.mean(aps)) if aps else None}


def _by_gallery(
    features: Features,
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
    cross_camera: bool,
    score_thresh: float,
    block_mb: int,
) -> list[dict]:
    """mAP and top-1 with galleries of every size that the dataset has, without re-ranking and with CBGM."""
    sizes = [size for size in query_set.protocol_files(query_set.root) if size is not None]
    rows = []
    for size in [*sizes, FULL_GALLERY]:
        for cbgm in (False, True):
            setting = Setting(cbgm=cbgm, gallery_size=size, cross_camera=cross_camera)
            scores = score_search(features, gallery_set, query_set, setting, score_thresh, block_mb)
            images = len(gallery_set) if size == FULL_GALLERY else size
            row = {"images": images, "re-ranking": setting.describe()["re-ranking"]}
            rows.append(row | {name: scores[name] for name in ("mAP", "top1")})
    return rows
