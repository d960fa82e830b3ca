"""MovieNet-CS (also MovieNet-PS): film frames, in CUHK-SYSU's layout, with several training sets and gallery pools."""

from collections.abc import Iterator
from pathlib import Path

from datasets.annotation_file import AnnotationFile
from datasets.cuhk_files import read_identities
from datasets.cuhk_sysu import CUHKSYSU, numbers_in_names
from datasets.findings import MISSING_FILE
from datasets.protocol import Appearance


class MovieNetCS(CUHKSYSU):
    """MovieNet-CS (Qin et al., 2023).

    Args:
        root, split, options: see PersonSearchDataset.
        train_appearances: which Train_appN.mat, the number of appearances that each identity may have.
        gallery_sizes: the sizes whose pools make up the gallery split; None takes every pool found, so that one pass
            over the images serves all sizes.

    Raises:
        FileNotFoundError: also where the Train_appN.mat or pool asked for is missing.
    """

    name = "MovieNet-CS"
    folder = "MovieNet-PS"
    image_folder = "Image"
    usual_size = query_size = 2000

    def __init__(
        self,
        root: str | Path,
        split: str,
        train_appearances: int = 70,
        gallery_sizes: tuple[int, ...] | None = None,
        **options,
    ):
        self.train_appearances, self.gallery_sizes = train_appearances, gallery_sizes
        super().__init__(root, split, **options)

    @property
    def _train_file(self) -> Path:
        return self.root / self.protocol_folder / f"Train_app{self.train_appearances}.mat"

    def _identities(self, file: AnnotationFile) -> Iterator[Appearance]:
        found = numbers_in_names(self.root / self.protocol_folder, "Train_app")
        if found and self.train_appearances not in found:
            choice = ", ".join(map(str, found))
            file.unusable(MISSING_FILE, f"is missing: choose INPUT.TRAIN_APPEARANCES among {choice}")
        return read_identities(file)

    def _train_part(self, boxes: dict) -> tuple[list[str], list[Appearance], AnnotationFile]:
        source = self._file(self._train_file)
        appearances = list(self._identities(source))
        return sorted({a.img_name for a in appearances if a.img_name in boxes}), appearances, source

    def _pools(self) -> list[Path]:
        sizes = self.gallery_sizes
        if sizes is None:
            sizes = numbers_in_names(self._annotation_folder, "pool_") or [self.usual_size]
        return [self._annotation_folder / f"pool_{size}.mat" for size in sizes]
