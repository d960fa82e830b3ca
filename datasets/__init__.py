"""Person-search datasets: annotations, items and loaders."""

from datasets.base import FULL_GALLERY, SPLITS, PersonSearchDataset, QueryGallery
from datasets.build import build_dataset, dataset_root, open_split, open_subsets
from datasets.faults import DatasetError, Fault

__all__ = [
    "FULL_GALLERY",
    "SPLITS",
    "DatasetError",
    "Fault",
    "PersonSearchDataset",
    "QueryGallery",
    "build_dataset",
    "dataset_root",
    "open_split",
    "open_subsets",
]
