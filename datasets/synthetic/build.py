"""Builds a synthetic dataset: plans it, draws its images, in several processes on request, and annotates it."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, starmap
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.render import Task, draw_frames
from datasets.synthetic.world import Population, draw_population, plan_frames
from datasets.writers import image_folder, image_name, write_annotations
from utils.errors import UserError
from utils.labels import UNLABELLED

SPLITS = ("train", "gallery")
CONFIG_FILE, DEMO_FILE = "synthetic.json", "demo.json"
_CHUNK = 80  # images of a camera drawn at a time: its background is drawn once for them
_WORLD_STREAM, _PROTOCOL_STREAM = 0, 1  # first numbers of the random streams, see also render.py
_CLEAR_VIEW = 0.6  # visibility that a query should have
_DEMO_IMAGES = 4  # that show the person, and that do not


def plan_dataset(config: SyntheticConfig) -> tuple[dict[str, Population], list[Task]]:
    """The populations by split and the images to draw."""
    populations, tasks = {}, []
    sizes = [(config.train_identities, config.train_images), (config.test_identities, config.gallery_images)]
    for index, (split, (people, images)) in enumerate(zip(SPLITS, sizes, strict=True)):
        rng = np.random.default_rng([config.seed, _WORLD_STREAM, index])
        populations[split] = draw_population(config, people, rng)
        for plan in plan_frames(config, populations[split], images, rng):
            number = len(tasks) + 1
            tasks.append(Task(number, split, plan, image_name(config.format, number, plan.camera)))
    return populations, tasks


def _draw_all(
    config: SyntheticConfig, folder: Path, populations: dict[str, Population], tasks: Sequence[Task], workers: int
) -> dict[int, dict]:
    """What `draw_frames` tells of each image, by number."""
    jobs = []
    for camera in range(1, config.cameras + 1):
        own = [task for task in tasks if task.plan.camera == camera]
        chunks = [own[start : start + _CHUNK] for start in range(0, len(own), _CHUNK)]
        jobs += [(config, folder, camera, populations, chunk) for chunk in chunks]
    if workers <= 1:
        return dict(chain.from_iterable(starmap(draw_frames, jobs)))
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return dict(chain.from_iterable(pool.map(draw_frames, *zip(*jobs, strict=True))))


def build_synthetic(config: SyntheticConfig, root: str | Path, workers: int = 1) -> dict:
    """Draw the dataset of a `SyntheticConfig` into the folder `root`.

    Besides what the format asks for, `root` gets `synthetic.json` (the options, and how informative the context is;
    written last, so that it stands for a finished dataset) and `demo.json` (a query and a few gallery images). The
    bytes do not depend on `workers`, the number of processes that draw.

    Returns:
        the content of `synthetic.json`.

    Raises:
        FileExistsError: the folder holds anything.
        UserError: the options leave no identity or query.
    """
    root = Path(root)
    folder = image_folder(config.format, root)
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty: choose another folder, or remove what it holds")
    folder.mkdir(parents=True, exist_ok=True)
    populations, tasks = plan_dataset(config)
    drawn = _draw_all(config, folder, populations, tasks, workers)
    items = {split: [drawn[task.number] for task in tasks if task.split == split] for split in SPLITS}
    figures = {split: context_figures(config, populations[split], items[split]) for split in SPLITS}
    rng = np.random.default_rng([config.seed, _PROTOCOL_STREAM])
    train = drop_rare(items["train"])
    shift = config.train_identities  # identities of the gallery are numbered after those of the training set
    gallery = [item | {"pids": item["pids"] + shift * (item["pids"] > 0)} for item in items["gallery"]]
    queries = choose_queries(gallery, config.queries, rng)
    write_annotations(config.format, root, train, gallery, queries)
    for path in root.rglob("*.mat"):  # their headers, without the time of writing: equal options give equal bytes
        with path.open("r+b") as file:
            file.write(b"MATLAB 5.0 MAT-file".ljust(116))
    demo = choose_demo(gallery, queries, folder.relative_to(root), config.width)
    (root / DEMO_FILE).write_text(json.dumps(demo, indent=1) + "\n")
    summary = {"config": dataclasses.asdict(config), "queries": len(queries), "context": figures}
    (root / CONFIG_FILE).write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _sightings(items: Sequence[Mapping]) -> Counter[int]:
    return Counter(int(pid) for item in items for pid in item["pids"] if pid != UNLABELLED)


def drop_rare(items: Sequence[Mapping]) -> list[dict]:
    """The items, with identities seen in a single image turned into people without identity."""
    rare = [pid for pid, count in _sightings(items).items() if count == 1]
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
                query = {"img_name": item["img_name"], "box": box.tolist(), "pid": pid}
                by_pid.setdefault(pid, []).append((visibility < _CLEAR_VIEW, rng.random(), query))
    if not by_pid:
        raise UserError("no identity is in two gallery images: draw more gallery images or fewer test identities")
    ranked = [(rank, *view) for views in by_pid.values() for rank, view in enumerate(sorted(views))]
    return [query for *_, query in sorted(ranked)[:count]]


def choose_demo(gallery: Sequence[Mapping], queries: Sequence[Mapping], folder: Path, width: int) -> dict:
    """A query and gallery images for demo.py, with paths relative to the dataset.

    The query is of a person seen often, in a large box that no edge of the image cuts.

    Args:
        width: of the images.

    Returns:
        `query`, its `box`, `gallery`, and `truth`: the person's box in the gallery images that show it, by name.
    """
    counts = _sightings(gallery)

    def rank(query: Mapping) -> tuple:
        x1, y1, x2, y2 = query["box"]
        return min(counts[query["pid"]], _DEMO_IMAGES), x1 > 0 and x2 < width, (x2 - x1) * (y2 - y1)

    query = max(queries, key=rank)
    truth, others = {}, []
    for item in gallery:
        path, is_person = (folder / item["img_name"]).as_posix(), item["pids"] == query["pid"]
        if item["img_name"] != query["img_name"] and is_person.any() and len(truth) < _DEMO_IMAGES:
            truth[path] = item["boxes"][is_person][0].tolist()
        elif len(item["pids"]) and not is_person.any():
            others.append(path)
    names = sorted([*truth, *others[:_DEMO_IMAGES]])
    return {"query": (folder / query["img_name"]).as_posix(), "box": query["box"], "gallery": names, "truth": truth}


def _share_together(images: Sequence[np.ndarray], group_of: Sequence[int]) -> float:
    """Of the sightings of people in groups of two or more, the share with another member in the image."""
    sizes, together = Counter(group_of), []
    for people in images:
        groups = [group_of[person] for person in people]
        together += [groups.count(group) > 1 for group in groups if sizes[group] > 1]
    return float(np.mean(together)) if together else 0.0


def context_figures(config: SyntheticConfig, population: Population, items: Sequence[Mapping]) -> dict[str, float]:
    """How informative context is: shares of sightings of people with identity, each beside that of a random world.

    `together`: another member of the person's group is in the image; the random world has the same sightings shuffled
    over the images. `at_home`: the camera is one of the group's own.

    Raises:
        UserError: there are no people with identity.
    """
    images = [item["pids"][item["pids"] != UNLABELLED] - 1 for item in items]
    everyone, sizes = np.concatenate(images), [len(people) for people in images]
    if not len(everyone):
        raise UserError("no person with identity was drawn: lower unlabelled_share or empty_share")
    shuffled = np.split(np.random.default_rng(config.seed).permutation(everyone), np.cumsum(sizes)[:-1])
    cameras = np.repeat([item["cam_id"] for item in items], sizes)
    at_home = [population.is_home(*seen) for seen in zip(everyone, cameras, strict=True)]
    return {
        "images": len(items),
        "boxes": sum(len(item["pids"]) for item in items),
        "identities": len(set(everyone.tolist())),
        "together": round(_share_together(images, population.group_of), 3),
        "together_by_chance": round(_share_together(shuffled, population.group_of), 3),
        "at_home": round(float(np.mean(at_home)), 3),
        "at_home_by_chance": round(len(population.homes[0]) / config.cameras, 3),
    }
