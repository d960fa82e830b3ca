"""Test protocols as Matlab and SciPy store them, read without Python objects for each value.

SciPy makes several objects of each of the millions of values in a large protocol, which takes minutes and many
gigabytes. Here NumPy finds and converts the values of many galleries together.

Only the plain layout is known: the first variable of a little-endian file of version 5, a struct array (Query, Gallery)
of struct arrays, ASCII names, boxes of four finite numbers, no query larger than a block. Of anything else, damage
included, nothing is said here: the answer is None, and the caller reads the file through SciPy, which takes more
layouts and finds the fault. Where there is an answer it equals the one through SciPy. Values that no one asks for
(ishard, idname) are stepped over, so that a fault inside one of them goes unseen.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from datasets.matlab_blocks import TAG, NotPlainError, Structs, Variable, matrix_end, require, structs_at
from datasets.matlab_columns import Places, read_fours, read_names
from datasets.protocol import SCENE_FIELDS, Appearance, Protocol, joined
from utils.boxes import xywh_to_xyxy


def read_plain_protocol(path: Path) -> Protocol | None:
    """The protocol in a TestG file, whose variable is named as the file; None where the file is not plain."""
    try:
        with path.open("rb") as file:
            return joined(_parts(Variable(file), path.stem))
    except (NotPlainError, zlib.error, struct.error, OSError):
        return None


def _parts(variable: Variable, name: str) -> Iterator[Protocol]:
    """The protocol in parts: the queries that are complete in a block."""
    block = variable.read()
    entries = structs_at(block, 0, variable.size)
    require(entries.name == name and sorted(entries.fields) == ["Gallery", "Query"] and entries.count)
    at, left = entries.first, entries.count
    while left:
        pairs = []
        while len(pairs) < left and (end := matrix_end(block, middle := matrix_end(block, at))) <= len(block):
            pairs.append((structs_at(block, at + TAG.size, middle), structs_at(block, middle + TAG.size, end)))
            at = end
        require(pairs)
        scenes = dict(zip(entries.fields, zip(*pairs, strict=True), strict=True))
        yield _part(block, entries.count - left, scenes["Query"], scenes["Gallery"])
        left -= len(pairs)
        block, at = variable.read(block[at:]), 0
    require(not block and variable.complete())


def _part(block: bytes, before: int, queries: Sequence[Structs], galleries: Sequence[Structs]) -> Protocol:
    """Of some queries in a block, which come after `before` others."""
    asked, listed = Places(block, queries, SCENE_FIELDS), Places(block, galleries, SCENE_FIELDS)
    require((asked.counts == 1).all())
    asked_names, codes = read_names(block, asked.of("imname"))
    held, asked_boxes = read_fours(block, asked.of("idlocate"))
    require(len(held) == len(queries))
    names, images = read_names(block, listed.of("imname"))
    positives, boxes = read_fours(block, listed.of("idlocate"))
    found = zip(codes.tolist(), xywh_to_xyxy(asked_boxes), strict=True)
    return Protocol(
        [Appearance(asked_names[code], box, pid) for pid, (code, box) in enumerate(found, start=before + 1)],
        names,
        images,
        np.repeat(np.arange(len(galleries), dtype=np.int32), listed.counts),
        positives,
        xywh_to_xyxy(boxes),
    )
