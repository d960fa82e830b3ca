"""Annotations of a drawn dataset: training identities, queries, the demo's images, and how informative context is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator

from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.world import Population
from utils.errors import UserError
from utils.labels import UNLABELLED

_CLEAR_VIEW = 0.6  # visibility that a query should have
_DEMO_WITH_PERSON, _DEMO_IMAGES = 4, 8


def _sightings(items: Sequence[Mapping]) -> Counter[int]:
    return Counter(int(pid) for item in items for pid in item["pids"] if pid != UNLABELLED)


def drop_rare(items: Sequence[Mapping], least: int) -> list[dict]:
    """The items, with identities seen in fewer than `least` images turned into people without identity."""
    rare = [pid for pid, count in _sightings(items).items() if count < least]
    return [{**item, "pids": np.where(np.isin(item["pids"], rare), UNLABELLED, item["pids"])} for item in items]


def choose_queries(gallery: Sequence[Mapping], count: int, rng: Generator) -> list[dict]:
    """Up to `count` queries (dicts img_name, box, pid) of identities in two gallery images or more.

    Identities take turns: one query of each, then the second of each; clear views first.

    Raises:
        UserError: there is none.
    """
    counts = _sightings(gallery)
    by_pid: dict[int, list] = {}
    for item in gallery:
        for box, pid, visibility in zip(item["boxes"], item["pids"].tolist(), item["visibility"], strict=True):
            if pid != UNLABELLED and counts[pid] > 1:
                key = (visibility < _CLEAR_VIEW, rng.random())
                query = {"img_name": item["img_name"], "box": [int(value) for value in box], "pid": pid}
                by_pid.setdefault(pid, []).append((key, query))
    if not by_pid:
        raise UserError("no identity is in two gallery images: draw more gallery images or fewer test identities")
    ordered = [sorted(entries, key=lambda entry: entry[0]) for _, entries in sorted(by_pid.items())]
    ranked = [(rank, key, query) for entries in ordered for rank, (key, query) in enumerate(entries)]
    return [query for _, _, query in sorted(ranked, key=lambda entry: entry[:2])[:count]]


def choose_demo(gallery: Sequence[Mapping], queries: Sequence[Mapping], folder: Path, rng: Generator) -> dict:
    """A query and gallery images for demo.py, with paths relative to the dataset: dict query, box, gallery."""
    counts = _sightings(gallery)
    query = max(queries, key=lambda q: (min(counts[q["pid"]], _DEMO_WITH_PERSON), q["box"][3] - q["box"][1]))
    others = [item for item in gallery if item["img_name"] != query["img_name"] and len(item["pids"])]
    with_person = [item["img_name"] for item in others if query["pid"] in item["pids"]][:_DEMO_WITH_PERSON]
    without = [item["img_name"] for item in others if query["pid"] not in item["pids"]]
    names = sorted(with_person + rng.permutation(without)[: _DEMO_IMAGES - len(with_person)].tolist())
    return {
        "query": (folder / query["img_name"]).as_posix(),
        "box": query["box"],
        "gallery": [(folder / name).as_posix() for name in names],
    }


def _share_together(images: Sequence[Sequence[int]], group_of: Sequence[int]) -> float:
    """Of the sightings of people in groups of two or more, the share with another member in the image."""
    sizes, together = Counter(group_of), []
    for people in images:
        groups = [group_of[pid - 1] for pid in people]
        together += [groups.count(group) > 1 for group in groups if sizes[group] > 1]
    return float(np.mean(together)) if together else 0.0


def context_figures(config: SyntheticConfig, population: Population, items: Sequence[Mapping]) -> dict[str, float]:
    """How informative context is: shares of sightings of people with identity, each beside that of a random world.

    `together`: another member of the person's group is in the image; the random world has the same sightings shuffled
    over the images. `at_home`: the camera is one of the group's own.

    Raises:
        UserError: there are no people with identity.
    """
    images = [[int(pid) for pid in item["pids"] if pid != UNLABELLED] for item in items]
    everyone = np.array(sum(images, []), int)
    if not len(everyone):
        raise UserError("no person with identity was drawn: lower unlabelled_share or empty_share")
    left = np.random.default_rng(config.seed).permutation(everyone).tolist()
    shuffled = [[left.pop() for _ in people] for people in images]
    seen = [(pid, item["cam_id"]) for item, people in zip(items, images, strict=True) for pid in people]
    at_home = [population.is_home(pid - 1, camera) for pid, camera in seen]
    return {
        "images": len(items),
        "boxes": sum(len(item["pids"]) for item in items),
        "identities": len(set(everyone.tolist())),
        "together": round(_share_together(images, population.group_of), 3),
        "together_by_chance": round(_share_together(shuffled, population.group_of), 3),
        "at_home": round(float(np.mean(at_home)), 3),
        "at_home_by_chance": round(len(population.homes[0]) / config.cameras, 3),
    }
