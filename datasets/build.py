"""Datasets by name."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from yacs.config import CfgNode

from datasets.base import PersonSearchDataset
from datasets.cuhk_sysu import CUHKSYSU, SUBSETS, CUHKSubset
from datasets.movienet_cs import MovieNetCS
from datasets.prw import PRW
from utils.errors import UserError
from utils.images import MAX_PIXELS
from utils.options import check_choices

if TYPE_CHECKING:
    from datasets.augmentation import Augmentation
    from datasets.mixture import Mixture

MIN_SHARE = 0.01
"""Of an epoch's images, of the dataset that is evaluated: the epoch is as long as its share makes it."""

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
    return _open(cfg, cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT, split)


def _open(cfg: CfgNode, name: str, data_root: str, split: str) -> PersonSearchDataset:
    inputs, root = cfg.INPUT, dataset_root(name, cfg.SYS_HOME_DIR, data_root)
    options = {"train_appearances": inputs.TRAIN_APPEARANCES} if name == MovieNetCS.name else {}
    return build_dataset(name, root, split, max_pixels=inputs.MAX_PIXELS, **options)


def open_subsets(cfg: CfgNode) -> dict[str, PersonSearchDataset]:
    """The queries of CUHK-SYSU's test subsets, occlusion and low resolution, by name.

    Raises:
        UserError: the options name another dataset; DatasetError as PersonSearchDataset.
    """
    inputs = cfg.INPUT
    if class_of(inputs.DATASET) is not CUHKSYSU:
        raise UserError(f"--subsets: {inputs.DATASET} has no test subsets, {CUHKSYSU.name} alone has; leave it out")
    root = dataset_root(inputs.DATASET, cfg.SYS_HOME_DIR, inputs.DATA_ROOT)
    return {name: CUHKSubset(root, name, max_pixels=inputs.MAX_PIXELS) for name in SUBSETS}


def open_training(cfg: CfgNode) -> "Mixture":
    """The training split of the options' dataset, mixed with those of INPUT.EXTRA_DATASETS.

    Raises:
        UserError: an entry that is not "NAME SHARE FOLDER", shares that leave nothing to the first dataset, or a folder
            that is named twice; and as `build_dataset`.
    """
    from datasets.mixture import Mixture  # here, see PersonSearchDataset.__getitem__

    extras = [_parse_extra(entry) for entry in cfg.INPUT.EXTRA_DATASETS]
    first = 1 - sum(share for _, share, _ in extras)
    if first < MIN_SHARE:
        raise UserError(f"INPUT.EXTRA_DATASETS leaves {first:.2g} of an epoch to INPUT.DATASET: leave it {MIN_SHARE}")
    parts = [open_split(cfg, "train"), *(_open(cfg, name, data_root, "train") for name, _, data_root in extras)]
    if len({part.root.resolve() for part in parts}) < len(parts):
        raise UserError("INPUT.EXTRA_DATASETS: a folder comes twice, and its people would have two identities each")
    return Mixture(parts, [first, *(share for _, share, _ in extras)])


def _parse_extra(entry: str) -> tuple[str, float, str]:
    """Name, share and folder (may be empty) of an entry of INPUT.EXTRA_DATASETS."""
    name, share, root = (*entry.split(maxsplit=2), "", "", "")[:3]
    try:
        number = float(share)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise UserError(
            f'INPUT.EXTRA_DATASETS {entry!r}: give "NAME SHARE FOLDER", the share of an epoch between 0 and 1, such as '
            '"PRW 0.3 data/prw"'
        )
    return name, number, root


def build_augmentation(cfg: CfgNode) -> "Augmentation":
    """How the options have training images changed; UserError for values that make no sense."""
    from datasets.augmentation import Augmentation, RandomCrops  # here, see PersonSearchDataset.__getitem__

    inputs = cfg.INPUT
    scales, jitter = list(inputs.TRAIN_SCALES), list(inputs.COLOUR_JITTER)
    check_choices("INPUT", inputs, {"AUGMENTATION": ("flip", "crops")})
    if not scales or min(scales) <= 0:
        raise UserError(f"INPUT.TRAIN_SCALES is {scales}: give one or more positive factors; [1.0] for one size")
    if len(jitter) != 4 or min(jitter) < 0 or max(*jitter, 2 * jitter[3]) > 1:
        raise UserError(f"INPUT.COLOUR_JITTER is {jitter}: give four numbers from 0 to 1, the last one to 0.5")
    crops = RandomCrops(inputs.CROP_SIZE, inputs.MIN_SIZE, inputs.MAX_SIZE)
    return Augmentation(
        flip_prob=inputs.FLIP_PROB,
        scales=scales,
        crops=crops if inputs.AUGMENTATION == "crops" else None,
        whole_share=inputs.WHOLE_SHARE,
        jitter=jitter,
    )
