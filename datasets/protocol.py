"""A test protocol in memory: which images each query is searched in, and where the person asked for stands in them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SCENE_FIELDS = ("imname", "idlocate", "ishard")
"""Of a record in an annotation file."""


class Appearance(NamedTuple):
    """A record of an annotation file: identity `pid` stands in `box` (x1, y1, x2, y2) of image `img_name`."""

    img_name: str
    box: np.ndarray
    pid: int


@dataclass(frozen=True)
class Protocol:
    """The queries of a test protocol and their galleries, which stand one after the other.

    Attributes:
        queries: the n-th of the file is identity n.
        names: the images that galleries name, each once, in the order of their first mention.
        images: int32, m: all galleries, as positions in `names`.
        query: int32, m: whose gallery it is; rising.
        positives: int64, p: positions in `images` of those that hold the person asked for.
        boxes: p x 4 int64: the person's box in each of these, x1, y1, x2, y2.
    """

    queries: list[Appearance]
    names: list[str]
    images: np.ndarray
    query: np.ndarray
    positives: np.ndarray
    boxes: np.ndarray

    def appearances(self, held: set[str]) -> list[Appearance]:
        """Of each query in turn: itself, where its image is one of `held`, then its appearances in its gallery."""
        names = [self.names[image] for image in self.images[self.positives]]
        pids = np.array([query.pid for query in self.queries], dtype=np.int64)[self.query[self.positives]]
        found = list(map(Appearance, names, self.boxes, pids.tolist()))
        return sorted([query for query in self.queries if query.img_name in held] + found, key=lambda a: a.pid)


def joined(parts: Iterable[Protocol]) -> Protocol:
    """One protocol of the queries of several, in order."""
    queries, codes, num_images = [], {}, 0
    columns = [[np.zeros(0, np.int32)], [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros((0, 4), np.int64)]]
    for part in parts:
        places = np.array([codes.setdefault(name, len(codes)) for name in part.names], dtype=np.int32)
        moved = places[part.images], part.query + np.int32(len(queries)), part.positives + num_images, part.boxes
        for column, values in zip(columns, moved, strict=True):
            column.append(values)
        queries += part.queries
        num_images += len(part.images)
    return Protocol(queries, list(codes), *map(np.concatenate, columns))
