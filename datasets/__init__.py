"""Person-search datasets: annotations, items and loaders."""

from datasets.base import FULL_GALLERY, SPLITS, PersonSearchDataset, QueryGallery
from datasets.build import build_dataset, build_train_loader, dataset_root, open_split
from datasets.findings import DatasetError, Finding, Report

__all__ = [
    "FULL_GALLERY",
    "SPLITS",
    "DatasetError",
    "Finding",
    "PersonSearchDataset",
    "QueryGallery",
    "Report",
    "build_dataset",
    "build_train_loader",
    "dataset_root",
    "open_split",
]
