"""Person-search datasets: annotations, items and loaders."""

from datasets.base import FULL_GALLERY, SPLITS, DatasetError, PersonSearchDataset, QueryGallery
from datasets.build import build_dataset, build_train_loader, dataset_root

__all__ = [
    "FULL_GALLERY",
    "SPLITS",
    "DatasetError",
    "PersonSearchDataset",
    "QueryGallery",
    "build_dataset",
    "build_train_loader",
    "dataset_root",
]
