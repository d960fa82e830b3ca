"""CUHK-SYSU: street snaps and film stills, a gallery of chosen images for each query."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotation_file import AnnotationFile
from datasets.base import FULL_GALLERY, PersonSearchDataset, QueryGallery, make_annotation
from datasets.cuhk_files import Protocol, assign_identities, read_boxes, read_identities, read_names, read_protocol
from datasets.faults import Fault, read_all
from utils.errors import UserError

PROTOCOLS = "annotation/test/train_test"
SUBSETS = {"occlusion": "Occlusion", "low resolution": "Resolution"}
"""The test subsets, and the names of their files."""
EMPTY_GALLERY = QueryGallery(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 4), np.int64), 0)


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

    def _load_annotations(self, faults: list[Fault]) -> list[dict[str, Any]]:
        folder = self.root / self.image_folder
        if self.split == "query":
            queries = read_protocol(self._protocol(self.query_size, faults), self.root).queries
            return [make_annotation(folder, *query) for query in queries.tolist()]
        train = self.split == "train"
        source = self._train_file(faults) if train else self._protocol(self.query_size, faults)
        pools = [self._file(path, faults) for path in self._pools()]
        boxes, people, *pool_names = read_all(
            lambda: read_boxes(self._file("annotation/Images.mat", faults), self.root),
            lambda: read_identities(source, self.root) if train else read_protocol(source, self.root).people(),
            *(partial(read_names, pool, "pool") for pool in pools),
        )
        names = self._train_names(boxes, people, *pool_names) if train else _gallery_names(boxes, pools, pool_names)
        pids = assign_identities(names, boxes, people, source)
        return [make_annotation(folder, name, boxes[name], pids[name]) for name in names]

    def _train_file(self, faults: list[Fault]) -> AnnotationFile:
        """The file that lists the training identities."""
        return self._file(f"{PROTOCOLS}/Train.mat", faults)

    def _pools(self) -> list[str]:
        """The files that list the gallery images, as the split needs them."""
        return ["annotation/pool.mat"]

    @staticmethod
    def _train_names(boxes: dict[str, np.ndarray], people: np.ndarray, pool: list[str]) -> list[str]:  # noqa: ARG004
        """The training images, given the boxes of all images, the training identities and the gallery images."""
        return sorted(set(boxes) - set(pool))

    def _protocol(self, size: int, faults: list[Fault]) -> AnnotationFile:
        return self._file(f"{PROTOCOLS}/TestG{size}.mat", faults)

    @classmethod
    def protocol_files(cls, root: Path) -> dict[int | None, Path | None]:
        sizes = {cls.usual_size, cls.query_size, *numbers_in_names(root / PROTOCOLS, "TestG")}
        return {size: root / PROTOCOLS / f"TestG{size}.mat" for size in sorted(sizes)}

    def galleries(
        self, gallery_set: PersonSearchDataset, size: int | None = None, cross_camera: bool = False
    ) -> Iterator[QueryGallery]:
        """As the protocol file of that size lists them; the full gallery adds every other image but the query's own."""
        if cross_camera:
            raise UserError(f"{self.name} does not know its cameras: leave CROSS_CAMERA off")
        full = size == FULL_GALLERY
        size = self.query_size if full else self.usual_size if size is None else size
        if size not in self.protocol_files(self.root):
            folder = self.root / PROTOCOLS
            sizes = ", ".join(map(str, numbers_in_names(folder, "TestG"))) or "none"
            raise UserError(f"{self.name}: no gallery size {size}: {folder} has {sizes} (and -1, all images)")
        with self._collected_faults() as found:
            file = self._protocol(size, found)
            protocol = read_protocol(file, self.root)
            self._compare_queries(protocol.queries, file)
            by_pid = dict(zip(protocol.queries["pid"].tolist(), _galleries(file, gallery_set, protocol), strict=True))
        galleries = [by_pid.get(int(query["pids"][0]), EMPTY_GALLERY) for query in self.annotations]
        return map(partial(_filled_up, gallery_set), galleries, self.annotations) if full else iter(galleries)

    def _compare_queries(self, queries: np.ndarray, file: AnnotationFile) -> None:
        """Add faults where a protocol has other queries than the split, whose features it would be scored with."""
        own = {int(query["pids"][0]): (query["img_name"], query["boxes"][0].tolist()) for query in self.annotations}
        others = {pid: (name, box.tolist()) for name, box, pid in queries.tolist()}
        if max(own) != max(others, default=0):
            problem = f"has {max(others, default=0)} queries against {max(own)} in TestG{self.query_size}.mat"
            file.fault(problem, "its queries")
        different = [pid for pid in own.keys() & others.keys() if own[pid] != others[pid]]
        if different:
            file.fault(f"asks for another person than TestG{self.query_size}.mat", f"query {min(different)}")


class CUHKSubset(CUHKSYSU):
    """The queries of a test subset of CUHK-SYSU: people who are hard to find, each with a gallery of its own.

    The queries are numbered 1 ... Q in the subset's file, apart from those of the query split.

    Args:
        root, options: see PersonSearchDataset.
        subset: one of SUBSETS.
    """

    def __init__(self, root: str | Path, subset: str, **options: Any):
        self.subset = subset
        super().__init__(root, "query", **options)

    def _protocol(self, size: int, faults: list[Fault]) -> AnnotationFile:  # noqa: ARG002 (there is one)
        return self._file(f"annotation/test/subset/{SUBSETS[self.subset]}.mat", faults)


def _gallery_names(boxes: dict[str, np.ndarray], pools: list[AnnotationFile], pool_names: list[list[str]]) -> list[str]:
    """The images of all pools, each once; those without annotations are faults of their pool."""
    for file, names in zip(pools, pool_names, strict=True):
        for name in names:
            if name not in boxes:
                file.fault(f"the pool's {name} is not in Images.mat", name, name)
    return [name for name in dict.fromkeys(sum(pool_names, [])) if name in boxes]


def _galleries(file: AnnotationFile, gallery_set: PersonSearchDataset, protocol: Protocol) -> Iterator[QueryGallery]:
    """The gallery of each query of a protocol; images that the gallery split lacks are faults and left out."""
    index = gallery_set.image_index
    positions = np.array([index.get(name, -1) for name in protocol.names.tolist()], dtype=np.int32)[protocol.images]
    for k in np.flatnonzero(positions < 0):
        name, pid = str(protocol.names[protocol.images[k]]), protocol.queries["pid"][protocol.owners[k]]
        file.fault(f"{name} is not in the gallery split (of this size's pool)", f"query {pid}", name)
    starts = np.searchsorted(protocol.owners, np.arange(len(protocol.queries) + 1))
    shown = np.searchsorted(protocol.positives, starts)
    for number in range(len(protocol.queries)):
        images = positions[starts[number] : starts[number + 1]]
        own = slice(shown[number], shown[number + 1])
        positives, boxes = positions[protocol.positives[own]], protocol.boxes[own]
        known = positives >= 0
        unique, first = np.unique(positives[known], return_index=True)
        yield QueryGallery(np.unique(images[images >= 0]), unique, boxes[known][first], int(known.sum()))


def numbers_in_names(folder: Path, prefix: str) -> list[int]:
    """The numbers n, rising, of the files <prefix>n.mat in a folder."""
    numbers = (path.stem.removeprefix(prefix) for path in folder.glob(f"{prefix}*.mat"))
    return sorted(int(number) for number in numbers if number.isdigit())


def _filled_up(gallery_set: PersonSearchDataset, gallery: QueryGallery, query: dict[str, Any]) -> QueryGallery:
    """The gallery and every other image of the gallery set but the query's own."""
    member = gallery_set.all_but(query["img_name"])
    member[gallery.images] = True
    return gallery._replace(images=np.flatnonzero(member))
