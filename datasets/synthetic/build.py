"""Builds a synthetic dataset: plans it, draws its images, in several processes on request, and writes it all."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.frames import Task, draw_frames
from datasets.synthetic.protocol import choose_demo, choose_queries, context_figures, drop_rare
from datasets.synthetic.world import Population, draw_population, plan_frames
from datasets.writers import image_folder, image_name, write_annotations

SPLITS = ("train", "gallery")
CONFIG_FILE, DEMO_FILE = "synthetic.json", "demo.json"
_CHUNK = 80  # images of a camera drawn at a time: its background is drawn once for them
_WORLD_STREAM, _PROTOCOL_STREAM = 0, 1  # first numbers of the random streams, see also frames.py
_MATLAB_TEXT, _MATLAB_TEXT_SIZE = b"MATLAB 5.0 MAT-file", 116  # free text at the start of such a file


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


def _chunks(
    config: SyntheticConfig, folder: Path, populations: Mapping[str, Population], tasks: Sequence[Task]
) -> Iterator[tuple]:
    """Arguments of `draw_frames`: the images by camera, a bounded number at a time."""
    for camera in range(1, config.cameras + 1):
        own = [task for task in tasks if task.plan.camera == camera]
        for start in range(0, len(own), _CHUNK):
            yield config, folder, camera, populations, own[start : start + _CHUNK]


def _draw_all(jobs: Sequence[tuple], workers: int) -> list[list[dict]]:
    if workers <= 1:
        return list(starmap(draw_frames, jobs))
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(pool.map(draw_frames, *zip(*jobs, strict=True)))


def build_synthetic(config: SyntheticConfig, root: str | Path, workers: int = 1) -> dict:
    """Draw the dataset of a `SyntheticConfig` into the folder `root`.

    Besides what the format asks for, `root` gets `synthetic.json` (the options, and how informative the context is;
    written last, so that it stands for a finished dataset) and `demo.json` (a query and a few gallery images). The
    bytes do not depend on `workers`, the number of processes that draw.

    Returns:
        the content of `synthetic.json`.

    Raises:
        FileExistsError: the folder holds images already.
        UserError: the options leave no identity or query.
    """
    root = Path(root)
    folder = image_folder(config.format, root)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds images already: choose an empty folder or remove them")
    folder.mkdir(parents=True, exist_ok=True)
    populations, tasks = plan_dataset(config)
    drawn = _draw_all(list(_chunks(config, folder, populations, tasks)), workers)
    items = {item["number"]: item for chunk in drawn for item in chunk}
    by_split = {split: [items[task.number] for task in tasks if task.split == split] for split in SPLITS}
    figures = {split: context_figures(config, populations[split], by_split[split]) for split in SPLITS}
    rng = np.random.default_rng([config.seed, _PROTOCOL_STREAM])
    train = drop_rare(by_split["train"], least=2)
    shift = config.train_identities  # identities of the gallery are numbered after those of the training set
    gallery = [
        item | {"pids": np.where(item["pids"] > 0, item["pids"] + shift, item["pids"])} for item in by_split["gallery"]
    ]
    queries = choose_queries(gallery, config.queries, rng)
    write_annotations(config.format, root, _public(train), _public(gallery), queries)
    _fix_headers(root)
    demo = choose_demo(gallery, queries, folder.relative_to(root), rng)
    (root / DEMO_FILE).write_text(json.dumps(demo, indent=1) + "\n")
    summary = {"config": dataclasses.asdict(config), "queries": len(queries), "context": figures}
    (root / CONFIG_FILE).write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _fix_headers(root: Path) -> None:
    """Remove the time of writing from MATLAB files, so that equal options give equal bytes."""
    for path in root.rglob("*.mat"):
        with path.open("r+b") as file:
            file.write(_MATLAB_TEXT.ljust(_MATLAB_TEXT_SIZE))


def _public(items: Sequence[Mapping]) -> list[dict]:
    return [{key: item[key] for key in ("img_name", "boxes", "pids", "cam_id")} for item in items]
