"""MovieNet-CS (also MovieNet-PS): film frames, in CUHK-SYSU's layout, with several training sets and gallery pools."""

from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotation_file import AnnotationFile
from datasets.cuhk_sysu import CUHKSYSU, PROTOCOLS, numbers_in_names
from datasets.faults import DatasetError, Fault


class MovieNetCS(CUHKSYSU):
    """MovieNet-CS (Qin et al., 2023). Its gallery are the images of all pools: one pass over them serves all sizes.

    Args:
        root, split, options: see PersonSearchDataset.
        train_appearances: which Train_appN.mat, the number of appearances that each identity may have.
    """

    name = "MovieNet-CS"
    folder = "MovieNet-PS"
    image_folder = "Image"
    usual_size = query_size = 2000

    def __init__(self, root: str | Path, split: str, train_appearances: int = 70, **options: Any):
        self.train_appearances = train_appearances
        super().__init__(root, split, **options)

    def _train_file(self, faults: list[Fault]) -> AnnotationFile:
        file = self._file(f"{PROTOCOLS}/Train_app{self.train_appearances}.mat", faults)
        found = numbers_in_names(self.root / PROTOCOLS, "Train_app")
        if found and self.train_appearances not in found:
            advice = f"choose TRAIN_APPEARANCES among {', '.join(map(str, found))}"
            raise DatasetError(Fault(str(file.path), "is missing", advice=advice))
        return file

    def _pools(self) -> list[str]:
        if self.split == "train":
            return []
        sizes = numbers_in_names(self.root / "annotation", "pool_") or [self.usual_size]
        return [f"annotation/pool_{size}.mat" for size in sizes]

    @staticmethod
    def _train_names(boxes: dict[str, np.ndarray], people: np.ndarray) -> list[str]:
        return sorted(set(boxes) & set(people["img_name"].tolist()))
