"""Seconds and memory of scoring galleries of real size, with drawn boxes and embeddings."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import timer
from yacs.config import CfgNode

from datasets.base import QueryGallery
from tools.benchmark.case import SIZES, Case, Figures, Size
from tools.benchmark.network import peak_memory
from utils.evaluation import CompanionVoting, evaluate_detection, evaluate_search

DIMENSIONS = 256  # of an embedding (SeqNet; GLCNet has more)
SIMILARITY = 0.2  # of two embeddings of a person: a gallery in which nobody is found again would be ranked faster


def draw_gallery(size: Size) -> dict[str, Any]:
    """Arguments of `evaluate_search`: a gallery, queries, and what a network might find; the same each time."""
    rng = np.random.default_rng(1)
    first = rng.integers(size.people, size=(size.images, 1))
    pids = 1 + (first + np.arange(size.known)) % size.people
    corners = rng.integers((1800, 880), size=(size.images, size.known + size.others, 2))
    boxes = np.concatenate([corners, corners + rng.integers((40, 100), (100, 200), corners.shape)], axis=2)
    scores = np.sort(rng.uniform(0.4, 1, boxes.shape[:2]))[:, ::-1, None]
    detections = np.concatenate([boxes + rng.integers(-4, 5, boxes.shape), scores], axis=2).astype(np.float32)
    images = [{"boxes": b[: size.known], "pids": p} for b, p in zip(boxes, pids, strict=True)]
    own = np.arange(size.queries) % size.images
    queries = [{name: values[:1] for name, values in images[i].items()} for i in own]

    people = rng.standard_normal((size.people + 1, DIMENSIONS), dtype=np.float32)
    people[0] = 0  # of boxes without identity

    def embeddings(pids: np.ndarray) -> np.ndarray:
        rows = rng.standard_normal((len(pids), DIMENSIONS), dtype=np.float32)
        rows = SIMILARITY**0.5 * people[pids] + (1 - SIMILARITY) ** 0.5 * rows
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    galleries = partial(_galleries, images, queries, size.gallery_size)
    return {
        "gallery_set": SimpleNamespace(annotations=images),
        "query_set": SimpleNamespace(annotations=queries, galleries=galleries, cbgm_k1=30, cbgm_k2=4),
        "gallery_dets": list(detections),
        "gallery_feats": [embeddings(image_pids) for image_pids in np.pad(pids, ((0, 0), (0, size.others)))],
        "query_feats": [embeddings(pids[i, :1])[0] for i in own],
        "query_context": [(detections[i, : size.known], embeddings(pids[i])) for i in own],
    }


def _galleries(images: list[dict], queries: list[dict], size: int, *_: object) -> Iterator[QueryGallery]:
    """Of each query all other images, or `size` of them, among them all that show the person."""
    rng, seen = np.random.default_rng(2), defaultdict(dict)
    for index, image in enumerate(images):
        for pid, box in zip(image["pids"].tolist(), image["boxes"], strict=True):
            seen[pid][index] = box
    for number, query in enumerate(queries):
        own = number % len(images)
        shown = {index: box for index, box in seen[int(query["pids"][0])].items() if index != own}
        positives, others = np.array(list(shown), int), np.delete(np.arange(len(images)), own)
        if size:
            others = np.setdiff1d(rng.choice(others, size, replace=False), positives)
            others = np.sort(np.concatenate([positives, others])[:size])
        yield QueryGallery(others, positives, np.array(list(shown.values())).reshape(-1, 4), len(positives))


def measure_evaluation(case: Case, cfg: CfgNode, _: torch.device) -> Figures:
    """Seconds of detection, search, and search with each re-ranking, for the gallery of the case's name, on the CPU."""
    given, cpu = draw_gallery(SIZES[case.name]), torch.device("cpu")
    figures = {"inputs MiB": [peak_memory(cpu)], "boxes": [sum(map(len, given["gallery_dets"]))]}
    works = {
        "detection s": lambda: evaluate_detection(given["gallery_set"], given["gallery_dets"]),
        "search s": lambda: evaluate_search(**given, block_mb=cfg.EVAL.BLOCK_MB),
        "CBGM s": lambda: evaluate_search(**given, cbgm=True, block_mb=cfg.EVAL.BLOCK_MB),
        "companions s": lambda: evaluate_search(**given, voting=CompanionVoting(), block_mb=cfg.EVAL.BLOCK_MB),
    }
    for title, work in works.items():
        start = timer()
        work()
        figures[title] = [timer() - start]
    return figures | {"peak MiB": [peak_memory(cpu)]}
