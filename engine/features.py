"""Run a network over a dataset: the features of its gallery and its queries, which are then scored."""

from collections import Counter, defaultdict

import numpy as np
import torch.distributed as dist

from datasets import PersonSearchDataset
from engine.feature_files import Features, PartialResults
from engine.requests import SearchRequest, check_boxes
from engine.searcher import ImageResult, Searcher
from utils.distributed import is_distributed, is_main, rank, world_size
from utils.errors import UserError


def extract_features(
    searcher: Searcher,
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
    with_ground_truth: bool = False,
    partial: PartialResults | None = None,
) -> Features | None:
    """Search every gallery image and embed every query; an image that is both is searched once.

    With several processes each takes a share of the images. The main one gets all features, the others None.

    Args:
        with_ground_truth: embed the annotated boxes of the gallery too.
        partial: keeps features on disk as they come, and holds those of an interrupted call.

    Raises:
        UserError: a box has no area or the gallery holds an image twice, before anything is searched; or an image
            cannot be read.
    """
    gallery_names, query_names = names_of(gallery_set, query_set)
    queries_in = defaultdict(list)
    for name, query in zip(query_names, query_set.annotations, strict=True):
        queries_in[query["img_name"]].append(name)
    requests = _requests(gallery_set.annotations, query_set.annotations, with_ground_truth)
    found, done = partial.read() if partial is not None else (Features(), set())
    own = [name for name in requests if name not in done][rank() :: world_size()]
    try:
        for index, result in searcher([requests[name] for name in own]):
            features = _features_of_image(own[index], queries_in[own[index]], result, with_ground_truth)
            found.extend(features)
            if partial is not None:
                partial.add(features)
    finally:
        if partial is not None:
            partial.write()
    everything = _gather(found)
    return everything.in_order(gallery_names, query_names) if everything is not None else None


def names_of(gallery_set: PersonSearchDataset, query_set: PersonSearchDataset) -> tuple[list[str], list[str]]:
    """Names of a dataset's gallery images and queries, by which features are known to belong to it."""
    return (
        [annotation["img_name"] for annotation in gallery_set.annotations],
        [f"{query['img_name']} {query['boxes'][0].tolist()}" for query in query_set.annotations],
    )


def _requests(gallery: list[dict], queries: list[dict], with_ground_truth: bool) -> dict[str, SearchRequest]:
    """A request per image, by name: the boxes of its queries, then with ground truth the annotated ones."""
    for name, times in Counter(annotation["img_name"] for annotation in gallery).items():
        if times > 1:
            raise UserError(f"{name} is in the gallery {times} times: list each image once")
    query_boxes, true_boxes = defaultdict(list), defaultdict(lambda: np.zeros((0, 4)))
    for query in queries:
        query_boxes[query["img_name"]].append(query["boxes"][0])
    if with_ground_truth:
        true_boxes.update({annotation["img_name"]: annotation["boxes"] for annotation in gallery})
    requests = {}
    for annotation in [*gallery, *queries]:
        name, path = annotation["img_name"], str(annotation["img_path"])
        own = query_boxes[name]
        requests[name] = SearchRequest(path, np.concatenate([np.reshape(own, (-1, 4)), true_boxes[name]]), len(own))
        check_boxes(requests[name].boxes, path)
    return requests


def _features_of_image(name: str, query_names: list[str], result: ImageResult, with_ground_truth: bool) -> Features:
    number = len(query_names)
    scene = [] if result.scene is None else [result.scene[None]]
    return Features(
        gallery_dets=[result.rows],
        gallery_feats=[result.embeddings],
        ground_truth_feats=[result.query_embeddings[number:]] if with_ground_truth else [],
        query_feats=[embedding[None] for embedding in result.query_embeddings[:number]],
        context_dets=[context.rows for context in result.contexts],
        context_feats=[context.embeddings for context in result.contexts],
        gallery_scenes=scene,
        query_scenes=scene * number,
        gallery_names=[name],
        query_names=query_names,
    )


def _gather(found: Features) -> Features | None:
    """The features of all processes in the main one, None in the others."""
    if not is_distributed():
        return found
    shares = [Features()] * world_size() if is_main() else None
    dist.gather_object(found, shares)
    for share in shares[1:] if is_main() else []:
        found.extend(share)
    return found if is_main() else None
