"""CUHK-SYSU: street snaps and film stills, a gallery of chosen images for each query."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datasets.base import FULL_GALLERY, DatasetError, PersonSearchDataset, QueryGallery, make_annotation
from datasets.cuhk_files import assign_identities, read_boxes, read_identities, read_pool, read_protocol
from datasets.protocol import Appearance


class CUHKSYSU(PersonSearchDataset):
    """CUHK-SYSU (Xiao et al., CVPR 2017). The query split numbers identities 1 ... Q: query i is identity i + 1.

    Of the gallery, only the people that a query asks for have an identity; where several queries ask for one box,
    the last one's number stands.
    """

    name = "CUHK-SYSU"
    folder = "cuhk_sysu"
    cbgm_k1, cbgm_k2 = 10, 3
    image_folder = "Image/SSM"
    usual_size = 100
    query_size = 50
    """The protocol that lists the queries, whatever the gallery size."""

    def __init__(self, root: str | Path, split: str):
        # By size, for one gallery set: a protocol file takes seconds to read.
        self._known_galleries: dict[int, tuple[PersonSearchDataset, list[QueryGallery]]] = {}
        super().__init__(root, split)

    def _load_annotations(self) -> list[dict]:
        folder = self.root / self.image_folder
        if self.split == "query":
            queries = read_protocol(self._protocol(self.query_size)).queries
            return [make_annotation(folder, query.img_name, query.box, query.pid) for query in queries]
        boxes = read_boxes(self._annotation_folder / "Images.mat")
        names, appearances, source = self._train_part(boxes) if self.split == "train" else self._gallery_part(boxes)
        pids = assign_identities(names, boxes, appearances, source)
        return [make_annotation(folder, name, boxes[name], pids[name]) for name in names]

    def _train_part(self, boxes: dict) -> tuple[list[str], list[Appearance], Path]:
        """Names of the training images, the appearances of the identities, and the file that lists these."""
        source = self._protocol_folder / "Train.mat"
        pool = set(read_pool(self._annotation_folder / "pool.mat"))
        return sorted(set(boxes) - pool), list(read_identities(source)), source

    def _gallery_part(self, boxes: dict) -> tuple[list[str], list[Appearance], Path]:
        """The same for the gallery images, identities being the queries'."""
        names, source = self._gallery_names(), self._protocol(self.query_size)
        unknown = [name for name in names if name not in boxes]
        if unknown:
            raise DatasetError(
                f"{self._annotation_folder}: the pool's {unknown[0]} is not in Images.mat: unpack the dataset again"
            )
        return names, read_protocol(source).appearances(set(names)), source

    def _gallery_names(self) -> list[str]:
        return read_pool(self._annotation_folder / "pool.mat")

    @property
    def _annotation_folder(self) -> Path:
        return self.root / "annotation"

    @property
    def _protocol_folder(self) -> Path:
        return self._annotation_folder / "test" / "train_test"

    def _protocol(self, size: int) -> Path:
        return self._protocol_folder / f"TestG{size}.mat"

    def _check_size(self, size: int) -> None:
        if not self._protocol(size).is_file():
            found = ", ".join(map(str, numbers_in_names(self._protocol_folder, "TestG"))) or "none"
            folder = self._protocol_folder
            raise ValueError(f"{self.name}: no gallery size {size}: {folder} has {found} (and -1, all images)")

    def galleries(self, gallery_set, size=None, cross_camera=False) -> Iterator[QueryGallery]:
        """As the protocol file of that size lists them; the full gallery adds every other image but the query's own."""
        if cross_camera:
            raise ValueError(f"{self.name} does not know its cameras: leave cross_camera off")
        full = size == FULL_GALLERY
        size = self.query_size if full else self.usual_size if size is None else size
        self._check_size(size)
        known_set, galleries = self._known_galleries.get(size, (None, []))
        if known_set is not gallery_set:
            galleries = self._read_galleries(gallery_set, self._protocol(size))
            self._known_galleries[size] = gallery_set, galleries
        return map(partial(_filled_up, gallery_set), galleries, self.annotations) if full else iter(galleries)

    def _read_galleries(self, gallery_set: PersonSearchDataset, path: Path) -> list[QueryGallery]:
        protocol, index, many = read_protocol(path), gallery_set.image_index, len(gallery_set)
        for number, query in enumerate(protocol.queries):
            self._check_query(path, number, query)
        if len(protocol.queries) != len(self):
            raise DatasetError(
                f"{path} has {len(protocol.queries)} queries, TestG{self.query_size}.mat {len(self)}: unpack them again"
            )
        unknown = [name for name in protocol.names if name not in index]
        if unknown:
            raise DatasetError(
                f"{path}: {unknown[0]} is not in the gallery split: load the split with this size's pool"
            )
        # Query and image in one number: each pair once, in order, for all queries together.
        places = np.array([index[name] for name in protocol.names], dtype=np.int64)
        pairs = protocol.query.astype(np.int64) * many + places[protocol.images]
        held, first = np.unique(pairs[protocol.positives], return_index=True)
        present = np.bincount(protocol.query[protocol.positives], minlength=len(self))
        starts = many * np.arange(1, len(self))
        pairs.sort()
        listed = pairs[np.diff(pairs, prepend=-1) > 0]  # as np.unique does, in a twentieth of its time
        images, positives = (
            np.split((column % many).astype(np.int32), np.searchsorted(column, starts)) for column in (listed, held)
        )
        boxes = np.split(protocol.boxes[first], np.searchsorted(held, starts))
        return [QueryGallery(*found) for found in zip(images, positives, boxes, present.tolist(), strict=True)]

    def _check_query(self, path: Path, number: int, query: Appearance) -> None:
        """Both files must ask for the same person: features come from one, the gallery from the other."""
        known = self.annotations[number] if number < len(self) else None
        if known is None or known["img_name"] != query.img_name or (known["boxes"][0] != query.box).any():
            raise DatasetError(
                f"{path}: query {number} is not that of TestG{self.query_size}.mat: unpack the protocols again"
            )


def numbers_in_names(folder: Path, prefix: str) -> list[int]:
    """The numbers n, rising, of the files <prefix>n.mat in a folder."""
    numbers = (path.stem.removeprefix(prefix) for path in folder.glob(f"{prefix}*.mat"))
    return sorted(int(number) for number in numbers if number.isdigit())


def _filled_up(gallery_set: PersonSearchDataset, gallery: QueryGallery, query: dict) -> QueryGallery:
    """The gallery and every other image of the gallery set but the query's own."""
    member = np.ones(len(gallery_set), dtype=bool)
    if query["img_name"] in gallery_set.image_index:
        member[gallery_set.image_index[query["img_name"]]] = False
    member[gallery.images] = True
    return gallery._replace(images=np.flatnonzero(member))
