"""The people of pictures and videos in Milvus: their embeddings, where they were seen, and small pictures of them.

Three collections, the same in a file (Milvus Lite) and on a server:

    person_search_people   one row a person: embedding, place and time
    person_search_crops    its small picture, apart because a search does not need it
    person_search_sources  one row a picture or video and how far it is searched; row 0 says by which network

Similarity is the inner product: embeddings carry detection scores, so a cosine would be wrong.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from engine.index.connection import Connection
from engine.index.rows import CAMERA_BYTES, EVERYBODY, Hit, Network, SearchedImage, Source, Where, number_of
from utils.errors import UserError

PEOPLE, CROPS, SOURCES = (f"person_search_{name}" for name in ("people", "crops", "sources"))
PLACE = ("source", "image", "frame", "position", "time", "camera", "x1", "y1", "x2", "y2", "score")
"""Fields of a person besides its number and embedding."""
EXACT = MappingProxyType({"index_type": "FLAT"})
APPROXIMATE = MappingProxyType({"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}})
"""Vector indexes of Milvus: every embedding is compared, or those that a graph of neighbours leads to."""
LEAST_EF = 1_000
"""Neighbours that a search of an approximate index keeps in view, at least; an exact index does not look at it."""
BATCH = 500
"""Rows of one call that inserts or deletes."""
MOST_HITS = 16_384
"""Most hits of one search on a Milvus server."""
OF_PICTURE = -1.0
"""`position` of a person in a picture."""
_NETWORK_ROW = 0
_UNUSED = {"unused": [0.0, 0.0]}
"""Milvus asks for a vector in every collection."""


class PeopleIndex:
    """An index of people; several processes may use one on a server, one process at a time one in a file.

    Args:
        place: see `engine.index.connection.Connection`.
        network: for an index that may be new, the network that is to fill it; None: there must be an index.
        vector_index: of a new index, EXACT or APPROXIMATE.

    Raises:
        UserError: see Connection; there is no index; nothing was written to it; or it is exact, and APPROXIMATE given.
    """

    def __init__(self, place: str, network: Network | None = None, vector_index: MappingProxyType | dict = EXACT):
        if network is None and "://" not in place and not Path(place).exists():
            named = f"give {place}.db" if Path(f"{place}.db").exists() else "make one with python -m tools.index"
            raise UserError(f"there is no index {place}: {named}")
        self.place = place
        self._milvus = Connection(place)
        try:
            self.network = self._open(network, vector_index)
        except BaseException:
            self._milvus.close()
            raise

    def __enter__(self) -> "PeopleIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index."""
        self._milvus.close()

    # -- what is in it ------------------------------------------------------------------------------------------------

    def num_people(self) -> int:
        """How many people are in the index."""
        return self._milvus.call("query", PEOPLE, filter="", output_fields=["count(*)"])[0]["count(*)"]

    def sources(self) -> list[Source]:
        """All pictures and videos, by path."""
        rows = self._milvus.rows(SOURCES, f"id != {_NETWORK_ROW}", ["path", "data"])
        return sorted((_source(row) for row in rows), key=lambda source: source.path)

    def source(self, number: int) -> Source | None:
        """A picture or video by its number."""
        return self._sources([number]).get(number) if number != _NETWORK_ROW else None

    def images_of(self, source: Source) -> dict[int, float | None]:
        """The numbers of the picture, or of the frames, of a source that show people, by time, with their positions.

        A position is in seconds from the beginning of the video; None for a picture.
        """
        rows = self._milvus.rows(PEOPLE, f"source == {source.id}", ["image", "position"])
        places = {row["image"]: row["position"] for row in rows}
        ordered = sorted(places.items(), key=lambda place: place[1])
        return {image: position if position != OF_PICTURE else None for image, position in ordered}

    # -- filling it ---------------------------------------------------------------------------------------------------

    def put_sources(self, sources: Sequence[Source]) -> None:
        """Write sources; those of the same paths are replaced, their people stay."""
        for batch in _batches(sources):
            rows = [{"id": each.id, "path": each.path, "data": each.row(), **_UNUSED} for each in batch]
            self._milvus.call("upsert", SOURCES, rows)

    def add(self, images: Iterable[SearchedImage]) -> None:
        """Add the people of images, whose sources are written before, and again, with a higher `done`, afterwards."""
        people, crops = [], []
        for image in images:
            source, own = image.source, image.people
            picture = number_of(source.path, image.frame)
            place = {"source": source.id, "frame": image.frame}
            position = image.position if source.fps else OF_PICTURE
            scene = {"image": picture, "position": position, "time": source.start + image.position}
            for row, crop in enumerate(image.crops):
                person = {"id": number_of(source.path, image.frame, row), **place}
                edges = dict(zip(("x1", "y1", "x2", "y2"), own.boxes[row].tolist(), strict=True))
                details = {**scene, **edges, "camera": source.camera, "score": float(own.scores[row])}
                people.append({**person, **details, "vector": own.embeddings[row]})
                crops.append({**person, **_UNUSED, "jpeg": base64.b64encode(crop).decode()})
        for collection, rows in ((CROPS, crops), (PEOPLE, people)):
            for batch in _batches(rows):
                # Not "insert": an interrupted call is made again, and a server does not look for numbers it has.
                self._milvus.call("upsert", collection, batch)

    def drop_unfinished(self, sources: Sequence[Source]) -> None:
        """Delete people who were added after their source was last written: what an interruption leaves."""
        unfinished = [source for source in sources if not source.complete]
        self.drop_people([source for source in unfinished if not source.done])
        for source in unfinished:
            if source.done:
                self._delete(f"source == {source.id} and frame >= {source.done}")

    def drop_people(self, sources: Sequence[Source]) -> None:
        """Delete the people of sources, which stay."""
        for batch in _batches([source.id for source in sources]):
            self._delete(f"source in {batch}")

    def remove(self, sources: Sequence[Source]) -> None:
        """Remove pictures and videos with their people."""
        # Marked as not searched first, so that an interruption cannot leave a source that seems complete.
        self.put_sources([replace(source, done=0, complete=False) for source in sources])
        self.drop_people(sources)
        for batch in _batches([source.id for source in sources]):
            self._milvus.call("delete", SOURCES, filter=f"id in {batch}")

    # -- searching it -------------------------------------------------------------------------------------------------

    def search(self, embeddings: np.ndarray, limit: int, where: Where = EVERYBODY) -> list[list[Hit]]:
        """For each query (q x D, unit vectors) the most similar people, at most `limit` and MOST_HITS, best first."""
        found = self._milvus.call(
            "search",
            PEOPLE,
            data=list(embeddings),
            limit=min(limit, MOST_HITS),
            filter=where.expression(),
            output_fields=list(PLACE),
            search_params={"metric_type": "IP", "params": {"ef": max(limit, LEAST_EF)}},
        )
        sources = self._sources({hit["entity"]["source"] for hits in found for hit in hits})
        return [
            [
                _hit(row["id"], row["distance"], row["entity"], sources)
                for row in hits
                if row["entity"]["source"] in sources  # another process may remove it at this moment
            ]
            for hits in found
        ]

    def people_of(self, images: Sequence[int]) -> dict[int, tuple[list[Hit], np.ndarray]]:
        """The people of pictures or frames (by their numbers) and their embeddings, n x D, weighted by scores.

        The `similarity` of each is 0.
        """
        rows = []
        for batch in _batches(images):
            rows += self._milvus.rows(PEOPLE, f"image in {list(batch)}", [*PLACE, "vector"])
        return self._by_image(rows)

    def sample(self, people: int) -> dict[int, tuple[list[Hit], np.ndarray]]:
        """All the people of some images, as `people_of`: images are drawn by chance, to have about `people` in all."""
        # The numbers of images are hashes of 63 bits, see `number_of`: evenly distributed.
        highest = (2**63 - 1) * people // max(people, self.num_people())
        return self._by_image(self._milvus.rows(PEOPLE, f"image <= {highest}", [*PLACE, "vector"]))

    def crops(self, people: Sequence[int]) -> dict[int, bytes]:
        """Small pictures of people, JPEG, by their numbers."""
        rows = self._milvus.call("get", CROPS, ids=list(people), output_fields=["jpeg"])
        return {row["id"]: base64.b64decode(row["jpeg"]) for row in rows}

    # -----------------------------------------------------------------------------------------------------------------

    def _open(self, network: Network | None, vector_index: MappingProxyType | dict) -> Network:
        """Load the collections, made if missing; the network of the index."""
        names = self._milvus.call("list_collections")
        if network is not None:
            for name, fields in _fields(network.width).items():
                if name not in names:
                    self._make(name, fields, dict(vector_index) if name == PEOPLE else dict(EXACT))
            if vector_index is APPROXIMATE:
                self._check_approximate()
        elif SOURCES not in names:
            raise UserError(f"there is no index in {self.place}: make one with python -m tools.index")
        for name in (PEOPLE, CROPS, SOURCES):
            self._milvus.call("load_collection", name)
        rows = self._milvus.call("get", SOURCES, ids=[_NETWORK_ROW], output_fields=["data"])
        if rows:
            return Network(**_plain(rows[0]["data"]))
        if network is None:
            raise UserError(f"{self.place} is an index that nothing was written to: index some pictures first")
        row = {"id": _NETWORK_ROW, "path": "", "data": vars(network), **_UNUSED}
        self._milvus.call("insert", SOURCES, [row])
        return network

    def _check_approximate(self) -> None:
        """Raise UserError where this index is exact."""
        there = self._milvus.call("describe_index", PEOPLE, index_name="vector")["index_type"]
        if there != APPROXIMATE["index_type"]:
            raise UserError(f"{self.place} is an exact index: --approximate is for a new one, leave it out")

    def _make(self, name: str, fields: dict[str, tuple], vector_index: dict) -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        indexes = MilvusClient.prepare_index_params()
        for field, (kind, more) in fields.items():
            schema.add_field(field, DataType[kind], **more)
            if kind == "FLOAT_VECTOR":
                indexes.add_index(field, metric_type="IP", **vector_index)
        # Strong: what was written is seen at once.
        self._milvus.call("create_collection", name, schema=schema, index_params=indexes, consistency_level="Strong")

    def _by_image(self, rows: Sequence[dict]) -> dict[int, tuple[list[Hit], np.ndarray]]:
        """Rows of people as hits and embeddings, by the number of their image."""
        sources = self._sources({row["source"] for row in rows})
        people: dict[int, tuple[list[Hit], list]] = {}
        for row in (row for row in rows if row["source"] in sources):
            hits, vectors = people.setdefault(row["image"], ([], []))
            hits.append(_hit(row["id"], 0.0, row, sources))
            vectors.append(row["vector"])
        return {image: (hits, np.array(vectors, np.float32)) for image, (hits, vectors) in people.items()}

    def _sources(self, numbers: Iterable[int]) -> dict[int, Source]:
        found = {}
        for batch in _batches(list(numbers)):
            rows = self._milvus.call("get", SOURCES, ids=batch, output_fields=["path", "data"])
            found |= {row["id"]: _source(row) for row in rows}
        return found

    def _delete(self, expression: str) -> None:
        for name in (PEOPLE, CROPS):
            self._milvus.call("delete", name, filter=expression)


def _fields(width: int) -> dict[str, dict[str, tuple]]:
    """The fields of each collection: Milvus's type and further arguments."""
    whole, number, text = ("INT64", {}), ("DOUBLE", {}), "VARCHAR"
    person = {"id": ("INT64", {"is_primary": True}), "source": whole, "frame": whole}
    unused = {"unused": ("FLOAT_VECTOR", {"dim": 2})}
    place = {"image": whole, "position": number, "time": number, "camera": (text, {"max_length": CAMERA_BYTES})}
    edges = {name: ("FLOAT", {}) for name in ("x1", "y1", "x2", "y2", "score")}
    return {
        PEOPLE: {**person, **place, **edges, "vector": ("FLOAT_VECTOR", {"dim": width})},
        CROPS: {**person, "jpeg": (text, {"max_length": 65_535}), **unused},
        SOURCES: {"id": person["id"], "path": (text, {"max_length": 16_384}), "data": ("JSON", {}), **unused},
    }


def _source(row: dict) -> Source:
    return Source(path=row["path"], **_plain(row["data"]))


def _plain(data: dict | str | bytes) -> dict:
    return data if isinstance(data, dict) else json.loads(data)


def _hit(number: int, similarity: float, row: dict, sources: dict[int, Source]) -> Hit:
    return Hit(
        id=number,
        similarity=float(similarity),
        source=sources[row["source"]],
        box=tuple(row[name] for name in ("x1", "y1", "x2", "y2")),
        position=row["position"] if row["position"] != OF_PICTURE else None,
        **{name: row[name] for name in ("image", "frame", "time", "camera", "score")},
    )


def _batches(rows: Sequence) -> Iterable[list]:
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        yield batch
