"""What is asked of a drawn dataset: training identities, queries, the demo's images, and what its context tells."""

from collections import Counter

import numpy as np

from utils.labels import UNLABELLED

_CLEAR_VIEW = 0.6  # visibility that a query should have
_DEMO_WITH_PERSON, _DEMO_IMAGES = 4, 8


def _sightings(items):
    return Counter(int(pid) for item in items for pid in item["pids"] if pid != UNLABELLED)


def drop_rare(items, least):
    """The items with identities in fewer than `least` images made people without identity."""
    counts = _sightings(items)
    rare = [pid for pid, count in counts.items() if count < least]
    return [{**item, "pids": np.where(np.isin(item["pids"], rare), UNLABELLED, item["pids"])} for item in items]


def choose_queries(gallery, count, rng):
    """Up to `count` queries (dicts img_name, box, pid): identities take turns, clear views first.

    Only identities in two gallery images or more are asked for. Raises ValueError if there is none.
    """
    counts = _sightings(gallery)
    rounds = {}
    for item in gallery:
        for box, pid, visibility in zip(item["boxes"], item["pids"], item["visibility"], strict=True):
            if pid != UNLABELLED and counts[int(pid)] > 1:
                key = (visibility < _CLEAR_VIEW, rng.random())
                query = {"img_name": item["img_name"], "box": [int(value) for value in box], "pid": int(pid)}
                rounds.setdefault(int(pid), []).append((key, query))
    if not rounds:
        raise ValueError("no identity is in two gallery images: draw more gallery images or fewer test identities")
    ordered = [sorted(entries, key=lambda entry: entry[0]) for _, entries in sorted(rounds.items())]
    turns = [(turn, key, query) for entries in ordered for turn, (key, query) in enumerate(entries)]
    turns.sort(key=lambda entry: entry[:2])
    return [query for _, _, query in turns[:count]]


def choose_demo(gallery, queries, folder, rng):
    """A query and gallery images for demo.py, with paths relative to the dataset: dict query, box, gallery."""
    counts = _sightings(gallery)
    query = max(
        queries, key=lambda entry: (min(counts[entry["pid"]], _DEMO_WITH_PERSON), entry["box"][3] - entry["box"][1])
    )
    others = [item for item in gallery if item["img_name"] != query["img_name"] and len(item["pids"])]
    with_person = [item["img_name"] for item in others if query["pid"] in item["pids"]][:_DEMO_WITH_PERSON]
    without = [item["img_name"] for item in others if query["pid"] not in item["pids"]]
    filling = rng.permutation(without)[: _DEMO_IMAGES - len(with_person)].tolist()
    names = sorted([*with_person, *filling])
    return {
        "query": (folder / query["img_name"]).as_posix(),
        "box": query["box"],
        "gallery": [(folder / name).as_posix() for name in names],
    }


def _together(pids, group_of):
    """Sightings of members of groups of two or more, and how many of them have another member in the image."""
    sizes = Counter(group_of)
    members = total = 0
    for people in pids:
        present = Counter(group_of[pid - 1] for pid in people)
        eligible = [pid for pid in people if sizes[group_of[pid - 1]] > 1]
        total += len(eligible)
        members += sum(present[group_of[pid - 1]] > 1 for pid in eligible)
    return members / total if total else 0.0


def context_figures(config, population, items):
    """How much the context tells: shares of sightings of people with identity, each beside what chance gives.

    `together`: another member of the person's group is in the image; chance deals the same sightings out to the images
    at random. `at_home`: the camera is one of the group's own.
    """
    pids = [[int(pid) for pid in item["pids"] if pid != UNLABELLED] for item in items]
    everyone = np.array([pid for people in pids for pid in people], int)
    if not len(everyone):
        raise ValueError("no person with identity was drawn: lower unlabelled_share or empty_share")
    shuffled = np.random.default_rng(config.seed).permutation(everyone).tolist()
    dealt = [[shuffled.pop() for _ in people] for people in pids]
    at_home = [
        item["cam_id"] in population.homes[population.group_of[pid - 1]]
        for item, people in zip(items, pids, strict=True)
        for pid in people
    ]
    return {
        "images": len(items),
        "boxes": int(sum(len(item["pids"]) for item in items)),
        "identities": len(set(everyone.tolist())),
        "together": round(_together(pids, population.group_of), 3),
        "together_by_chance": round(_together(dealt, population.group_of), 3),
        "at_home": round(float(np.mean(at_home)), 3),
        "at_home_by_chance": round(len(population.homes[0]) / config.cameras, 3),
    }
