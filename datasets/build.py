"""Datasets by name, and the loader of training."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from datasets.base import PersonSearchDataset
from datasets.cuhk_sysu import CUHKSYSU
from datasets.movienet_cs import MovieNetCS
from datasets.prw import PRW
from datasets.training import TrainBatchSampler, TrainingImages
from utils.errors import UserError
from utils.images import MAX_PIXELS
from utils.signals import leave_signals_to_parent

DATASETS = {dataset.name: dataset for dataset in (CUHKSYSU, PRW, MovieNetCS)}


def build_dataset(
    name: str, root: str | Path, split: str, *, max_pixels: int = MAX_PIXELS, **options: Any
) -> PersonSearchDataset:
    """One split of a dataset.

    Args:
        name: "CUHK-SYSU", "PRW" or "MovieNet-CS".
        root: the dataset's folder.
        split: "train", "gallery" or "query".
        max_pixels: images with more (width x height) are refused.
        options: `faults`, see PersonSearchDataset; of MovieNet-CS also `train_appearances`.

    Raises:
        UserError: an unknown name or split; DatasetError as PersonSearchDataset.
    """
    return class_of(name)(root, split, max_pixels=max_pixels, **options)


def dataset_root(name: str, sys_home: str | Path, data_root: str | Path = "") -> Path:
    """Folder of a dataset: `data_root`, or where that is empty, datasets/ps/<its folder> under a user's `sys_home`."""
    default = Path(sys_home) / "datasets" / "ps" / class_of(name).folder
    return Path(data_root or default).expanduser()


def class_of(name: str) -> type[PersonSearchDataset]:
    """The class of a dataset. Raises UserError for an unknown name."""
    if name not in DATASETS:
        raise UserError(f"unknown dataset {name!r}: choose among {', '.join(DATASETS)}")
    return DATASETS[name]


def open_split(cfg: CfgNode, split: str) -> PersonSearchDataset:
    """One split of the dataset that the options name; errors as `build_dataset`."""
    inputs, name = cfg.INPUT, cfg.INPUT.DATASET
    options = {"train_appearances": inputs.TRAIN_APPEARANCES} if name == MovieNetCS.name else {}
    root = dataset_root(name, cfg.SYS_HOME_DIR, inputs.DATA_ROOT)
    return build_dataset(name, root, split, max_pixels=inputs.MAX_PIXELS, **options)


def build_train_loader(
    dataset: PersonSearchDataset,
    batch_size: int,
    num_workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    flip_prob: float = 0.5,
    damaged: str = "error",
    pin_memory: bool = False,
) -> DataLoader:
    """Batches (list of uint8 images 3 x H x W, list of targets) of this process's share of a shuffled epoch.

    `loader.batch_sampler.set_epoch(epoch, start_batch)` chooses the epoch, and where in it to begin, before each
    pass. What a batch holds depends on seed, epoch and its place alone: neither on the number of workers nor on what
    ran before.

    Args:
        batch_size: images per process.
        flip_prob: probability that an image is mirrored, its boxes with it.
        damaged: what to do about an image that cannot be read, "error" or "skip": see TrainingImages.
        pin_memory: put batches into page-locked memory, which opens a CUDA context: for training on CUDA alone.

    Raises:
        UserError: another value of `damaged`, or fewer images than a batch of all processes.
    """
    if damaged not in ("error", "skip"):
        raise UserError(f"INPUT.DAMAGED_IMAGES is {damaged!r}: choose error or skip")
    return DataLoader(
        TrainingImages(dataset, damaged, seed),
        batch_sampler=TrainBatchSampler(len(dataset), batch_size, seed, rank, world_size, flip_prob),
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        # Its own: otherwise each pass draws from, and so moves, the global generator that training uses.
        generator=torch.Generator().manual_seed(seed),
        worker_init_fn=leave_signals_to_parent,
    )


def collate(items: list[tuple[Tensor, dict[str, Any]]]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Items to a list of images and a list of targets: images of a batch differ in size."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)
