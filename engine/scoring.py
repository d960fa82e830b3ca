"""Search scores of the features of a test run, under any number of settings."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from datasets import PersonSearchDataset
from engine.feature_files import Features
from models.base import GalleryFilter
from utils.evaluation import (
    BLOCK_MB,
    CompanionVoting,
    Gallery,
    Ranking,
    evaluate_same_person,
    evaluate_search,
    filtered_share,
    rank_search,
)

SEARCH_METRICS = ("mAP", "top1", "top5", "top10")


@dataclass(frozen=True)
class Setting:
    """One way to score the search.

    Attributes:
        cbgm: re-rank by context bipartite graph matching.
        voting: re-rank by companion voting.
        gallery_filter: re-rank by its scores of gallery images.
        ground_truth: search among the annotated boxes instead of the detected ones (an upper bound).
        gallery_size: images per gallery; None the dataset's usual number, -1 all.
        cross_camera: leave out images of the query's own camera.
    """

    cbgm: bool = False
    voting: CompanionVoting | None = None
    gallery_filter: GalleryFilter | None = None
    ground_truth: bool = False
    gallery_size: int | None = None
    cross_camera: bool = False

    def describe(self) -> dict[str, str]:
        """The setting in words, for a row of a table."""
        rerankings = {"CBGM": self.cbgm, "companions": self.voting, "GFN": self.gallery_filter}
        size = {None: "usual", -1: "all"}.get(self.gallery_size, self.gallery_size)
        return {
            "boxes": "ground truth" if self.ground_truth else "detected",
            "re-ranking": next((name for name, given in rerankings.items() if given), "none"),
            "gallery": f"{size}, other cameras" if self.cross_camera else str(size),
        }


def check_galleries(
    settings: Iterable[Setting], gallery_set: PersonSearchDataset, query_set: PersonSearchDataset
) -> None:
    """Read each setting's galleries once; raises as `query_set.galleries` where the dataset has none of such a size."""
    for size, cross_camera in dict.fromkeys((setting.gallery_size, setting.cross_camera) for setting in settings):
        next(iter(query_set.galleries(gallery_set, size, cross_camera)))


def columns_of(widths: dict[str, int]) -> dict[str, slice]:
    """The columns of each feature of an embedding, by name; widths as in `PersonSearchModel.embedding_widths`."""
    ends = np.cumsum([0, *widths.values()]).tolist()
    return {name: slice(start, end) for name, start, end in zip(widths, ends[:-1], ends[1:], strict=True)}


def share_of_squared_norm(features: Features, columns: slice) -> float:
    """Mean share of a feature in the squared norm of an embedding, 0 ... 1.

    The mean is over the people detected in the gallery; where nobody is, over its annotated people, if the features
    hold those.
    """
    detected = any(len(rows) for rows in features.gallery_feats)
    given = features.gallery_feats if detected else features.ground_truth_feats
    squares = [np.square(rows) for rows in given if len(rows)]
    shares = [rows[:, columns].sum(1) / rows.sum(1) for rows in squares]
    return float(np.concatenate(shares).mean()) if shares else 0.0


def only_columns(features: Features, columns: slice) -> Features:
    """The features with embeddings that consist of these columns alone, each as long as the whole one was."""

    def cut(rows: np.ndarray) -> np.ndarray:
        part = rows[:, columns]
        length = np.linalg.norm(part, axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
        return part / length * np.linalg.norm(rows, axis=1, keepdims=True)

    names = ("gallery_feats", "ground_truth_feats", "query_feats", "context_feats")
    return replace(features, **{name: [cut(rows) for rows in getattr(features, name)] for name in names})


def filter_scores(features: Features, gallery_filter: GalleryFilter) -> np.ndarray:
    """Scores of all gallery images for all queries, Q x G; the features must hold scenes."""
    parts = (features.query_feats, features.query_scenes, features.gallery_scenes)
    with torch.inference_mode():
        return gallery_filter.scores(*(torch.from_numpy(np.concatenate(rows)) for rows in parts)).cpu().numpy()


def score_filter(
    features: Features, gallery_set: PersonSearchDataset, query_set: PersonSearchDataset, setting: Setting
) -> dict[str, str | float]:
    """How many images without the person the filter of a setting leaves out, as a row of a table."""
    galleries = query_set.galleries(gallery_set, setting.gallery_size, setting.cross_camera)
    share = filtered_share(filter_scores(features, setting.gallery_filter), galleries)
    return {"gallery": setting.describe()["gallery"], "frac_filter": share}


def score_search(
    features: Features,
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
    setting: Setting,
    score_thresh: float,
    block_mb: int = BLOCK_MB,
) -> dict[str, float]:
    """Search mAP and top-k, 0 ... 1, under one setting.

    `score_thresh` and `block_mb` are as in `utils.evaluation.search.search_blocks`.

    Raises:
        ValueError: the setting needs ground-truth boxes, and the features hold none.
    """
    scores = evaluate_search(**_search_arguments(features, gallery_set, query_set, setting, score_thresh, block_mb))
    return {name: float(scores[name]) for name in SEARCH_METRICS}


def rank_queries(
    features: Features,
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
    setting: Setting,
    score_thresh: float,
    block_mb: int = BLOCK_MB,
    top: int = 10,
) -> tuple[Gallery, list[Ranking]]:
    """What a search finds first under one setting, see `rank_search`; other arguments and errors as `score_search`."""
    given = _search_arguments(features, gallery_set, query_set, setting, score_thresh, block_mb)
    return rank_search(**given, top=top)


def _search_arguments(
    features: Features,
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
    setting: Setting,
    score_thresh: float,
    block_mb: int,
) -> dict[str, object]:
    """Arguments of `evaluate_search`; ValueError as `searched_people`."""
    dets, feats = searched_people(features, gallery_set, setting.ground_truth)
    gallery_filter = setting.gallery_filter
    return {
        "gallery_set": gallery_set,
        "query_set": query_set,
        "gallery_dets": dets,
        "gallery_feats": feats,
        "query_feats": features.query_feats,
        "query_context": list(zip(features.context_dets, features.context_feats, strict=True)),
        "cbgm": setting.cbgm,
        "voting": setting.voting,
        "image_scores": None if gallery_filter is None else filter_scores(features, gallery_filter),
        "gallery_size": setting.gallery_size,
        "cross_camera": setting.cross_camera,
        "score_thresh": score_thresh,
        "block_mb": block_mb,
    }


def score_same_person(
    features: Features,
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
    setting: Setting,
    score_thresh: float,
    block_mb: int = BLOCK_MB,
) -> dict:
    """Similarities of the same person and of others, see `evaluate_same_person`; without the setting's re-ranking.

    Arguments and errors as `score_search`.
    """
    return evaluate_same_person(
        gallery_set,
        query_set,
        *searched_people(features, gallery_set, setting.ground_truth),
        features.query_feats,
        gallery_size=setting.gallery_size,
        cross_camera=setting.cross_camera,
        score_thresh=score_thresh,
        block_mb=block_mb,
    )


def searched_people(
    features: Features, gallery_set: PersonSearchDataset, ground_truth: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per gallery image n x 5 boxes with score and n x D embeddings: those detected, or those of the annotated boxes.

    Raises:
        ValueError: the features hold no embeddings of annotated boxes.
    """
    if not ground_truth:
        return features.gallery_dets, features.gallery_feats
    if not features.ground_truth_feats:
        raise ValueError("these features hold no ground-truth boxes")
    boxes = [annotation["boxes"].astype(np.float32) for annotation in gallery_set.annotations]
    dets = [np.concatenate([own, np.ones((len(own), 1), np.float32)], axis=1) for own in boxes]
    return dets, features.ground_truth_feats
