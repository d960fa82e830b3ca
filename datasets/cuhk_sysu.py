"""CUHK-SYSU: street snaps and film stills, a gallery of chosen images for each query."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from datasets.annotation_file import AnnotationFile
from datasets.base import FULL_GALLERY, PersonSearchDataset, QueryGallery, make_annotation
from datasets.cuhk_files import assign_identities, read_boxes, read_identities, read_pool, read_protocol
from datasets.findings import PROTOCOLS_DIFFER, UNKNOWN_IMAGE, UnusableFileError
from datasets.protocol import Appearance, Protocol
from utils.labels import UNLABELLED

NO_GALLERY = QueryGallery(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 4), np.int64), 0)


class CUHKSYSU(PersonSearchDataset):
    """CUHK-SYSU (Xiao et al., CVPR 2017). The query split numbers identities 1 ... Q: query i is identity i + 1.

    Of the gallery, only the people that a query asks for have an identity; where several queries ask for one box,
    the last one's number stands.
    """

    name = "CUHK-SYSU"
    folder = "cuhk_sysu"
    cbgm_k1, cbgm_k2 = 10, 3
    image_folder = "Image/SSM"
    protocol_folder = "annotation/test/train_test"
    usual_size = 100
    query_size = 50
    """The protocol that lists the queries, whatever the gallery size."""

    def __init__(self, root: str | Path, split: str, **options):
        # By size, for one gallery set: a protocol file takes seconds to read.
        self._known_galleries: dict[int, tuple[PersonSearchDataset, list[QueryGallery]]] = {}
        super().__init__(root, split, **options)

    def _load_annotations(self) -> list[dict]:
        folder, annotations = self.root / self.image_folder, []
        if self.split == "query":
            file = self._protocol(self.query_size)
            for query in read_protocol(file).queries:
                with file.record(f"query {query.pid}"):
                    annotations.append(make_annotation(folder, query.img_name, query.box, query.pid))
            return annotations
        file = self._file(self._images_file)
        boxes = read_boxes(file)
        self._annotated = frozenset(boxes)
        names, appearances, source = self._train_part(boxes) if self.split == "train" else self._gallery_part(boxes)
        pids = assign_identities(names, boxes, appearances, source, self.split)
        for name in names:
            with file.record(name, name):
                annotations.append(make_annotation(folder, name, boxes[name], pids[name]))
        return annotations

    def _train_part(self, boxes: dict) -> tuple[list[str], list[Appearance], AnnotationFile]:
        """Names of the training images, the appearances of the identities, and the file that lists these."""
        source = self._file(self._train_file)
        pool = set(read_pool(self._file(self._annotation_folder / "pool.mat")))
        return sorted(set(boxes) - pool), list(self._identities(source)), source

    def _identities(self, file: AnnotationFile) -> Iterator[Appearance]:
        return read_identities(file)

    def _gallery_part(self, boxes: dict) -> tuple[list[str], list[Appearance], AnnotationFile]:
        """The same for the gallery images, identities being the queries'."""
        names, source = [], self._protocol(self.query_size)
        for file in map(self._file, self._pools()):
            pool = read_pool(file)
            for name in pool:
                if name not in boxes:
                    file.fault(UNKNOWN_IMAGE, f"the pool's {name} is not in Images.mat", name, name)
            names += [name for name in pool if name in boxes]
        names = list(dict.fromkeys(names))
        return names, read_protocol(source).appearances(set(names)), source

    def _pools(self) -> list[Path]:
        """The files that list the gallery images."""
        return [self._annotation_folder / "pool.mat"]

    def record_of(self, index: int) -> tuple[Path, str]:
        if self.split == "query":
            return self._protocol(self.query_size).path, _record_of(self.annotations[index])
        return self._images_file, self.annotations[index]["img_name"]

    @property
    def _annotation_folder(self) -> Path:
        return self.root / "annotation"

    @property
    def _train_file(self) -> Path:
        return self.root / self.protocol_folder / "Train.mat"

    @property
    def _images_file(self) -> Path:
        return self._annotation_folder / "Images.mat"

    def _protocol(self, size: int) -> AnnotationFile:
        return self._file(self.root / self.protocol_folder / f"TestG{size}.mat")

    @classmethod
    def sizes_to_check(cls, root: Path) -> list[int]:
        return sorted({cls.usual_size, cls.query_size, *numbers_in_names(root / cls.protocol_folder, "TestG")})

    def _check_size(self, size: int) -> None:
        if size not in self.sizes_to_check(self.root):  # one that must be there is missed as a file
            folder = self.root / self.protocol_folder
            shown = ", ".join(map(str, numbers_in_names(folder, "TestG"))) or "none"
            raise ValueError(f"{self.name}: no gallery size {size}: {folder} has {shown} (and -1, all images)")

    def salvaged(self) -> Iterator[tuple[Path, dict]]:
        boxes, sources = {}, {}
        for path, read in self._readers().items():
            with suppress(UnusableFileError):
                found = read(self._file(path))
                boxes = found if path == self._images_file else boxes
                sources |= {name: path for name in found if name not in sources}
        for name, path in sources.items():
            held = boxes.get(name, np.zeros((0, 4)))
            with self._file(path).record(name, name):
                yield path, make_annotation(self.root / self.image_folder, name, held, np.full(len(held), UNLABELLED))

    def _readers(self) -> dict[Path, Callable[[AnnotationFile], Iterable[str]]]:
        """The files that the split needs, and what reads the images' names from each; first Images.mat."""
        if self.split == "query":
            return {}  # its one file is of no use
        readers = {self._images_file: read_boxes, **dict.fromkeys(self._pools(), read_pool)}
        if self.split == "gallery":
            return readers | {self._protocol(self.query_size).path: lambda file: read_protocol(file).names}
        return readers | {self._train_file: lambda file: [shown.img_name for shown in self._identities(file)]}

    def read_alone(self, size) -> None:
        with suppress(UnusableFileError):
            read_protocol(self._protocol(size))

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
            self._tell_counted()
            self._known_galleries[size] = gallery_set, galleries
        return map(partial(_filled_up, gallery_set), galleries, self.annotations) if full else iter(galleries)

    def _read_galleries(self, gallery_set: "CUHKSYSU", file: AnnotationFile) -> list[QueryGallery]:
        for query in self.annotations:
            if query["img_name"] not in gallery_set._annotated:
                problem = f"the query's image {query['img_name']} is not in Images.mat"
                asking = self._protocol(self.query_size)
                asking.fault(UNKNOWN_IMAGE, problem, _record_of(query), query["img_name"])
        protocol = read_protocol(file)
        self._check_number(file, protocol)
        found = dict(zip((query.pid for query in protocol.queries), _indexed(file, gallery_set, protocol), strict=True))
        asked = {query.pid: query for query in protocol.queries}
        galleries = []
        for query in self.annotations:
            number = int(query["pids"][0])
            if number in asked and not _same(query, asked[number]):
                # Features come from one file, the gallery from the other.
                problem = f"asks for another person than TestG{self.query_size}.mat"
                file.fault(PROTOCOLS_DIFFER, problem, _record_of(query))
                break
            galleries.append(found.get(number, NO_GALLERY))  # none where the record was at fault, as has been reported
        return galleries

    def _check_number(self, file: AnnotationFile, protocol: Protocol) -> None:
        # By their numbers: a query whose record is at fault is left out, which is told elsewhere.
        ours = max((int(query["pids"][0]) for query in self.annotations), default=0)
        theirs = max((query.pid for query in protocol.queries), default=0)
        if ours != theirs:
            file.fault(PROTOCOLS_DIFFER, f"has {theirs} queries against {ours} in TestG{self.query_size}.mat")


def _record_of(query: dict) -> str:
    return f"query {query['pids'][0]}"


def _same(query: dict, asked: Appearance) -> bool:
    return query["img_name"] == asked.img_name and bool((query["boxes"][0] == asked.box).all())


def _indexed(file: AnnotationFile, gallery_set: PersonSearchDataset, protocol: Protocol) -> list[QueryGallery]:
    """The galleries, images as numbers; images that the gallery split lacks are reported and left out."""
    many, count = len(gallery_set), len(protocol.queries)
    places = np.array([gallery_set.image_index.get(name, -1) for name in protocol.names], dtype=np.int64)
    known = places[protocol.images] >= 0
    for k in np.flatnonzero(~known):
        name, query = protocol.names[protocol.images[k]], protocol.queries[protocol.query[k]]
        problem = f"{name} is not in the gallery split (of this size's pool)"
        file.fault(UNKNOWN_IMAGE, problem, f"query {query.pid}", name)
    # Query and image in one number: each pair once, in order, for all queries together.
    pairs = protocol.query.astype(np.int64) * many + places[protocol.images]
    shown = known[protocol.positives]
    held, first = np.unique(pairs[protocol.positives[shown]], return_index=True)
    present = np.bincount(protocol.query[protocol.positives[shown]], minlength=count)
    starts = many * np.arange(1, count)
    listed = np.sort(pairs[known])
    listed = listed[np.diff(listed, prepend=-1) > 0]  # as np.unique does, in a twentieth of its time
    images, positives = (
        np.split((column % max(many, 1)).astype(np.int32), np.searchsorted(column, starts)) for column in (listed, held)
    )
    boxes = np.split(protocol.boxes[shown][first], np.searchsorted(held, starts))
    found = zip(images, positives, boxes, present.tolist(), strict=True) if count else ()
    return [QueryGallery(*gallery) for gallery in found]


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
