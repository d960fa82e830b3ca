"""Measure an index of drawn people: adding, searching, memory and disk.

    python -m tools.benchmark.index --index drawn.db --people 10000 [--approximate]

An index that was filled so before is searched again.
"""

import argparse
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, process_time
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python tools/benchmark/index.py`

import numpy as np

from tools.common import add_traceback_argument, new_parser, positive_int, run_program
from utils.errors import UserError
from utils.files import write_json

if TYPE_CHECKING:
    from engine.index.store import PeopleIndex

WIDTH = 640
OF_PERSON = 20  # images that show each person
SIMILARITY = 0.4  # of two embeddings of a person: without people who are seen again there would be no neighbours
PEOPLE_OF_IMAGE = 5
CROP_BYTES = 3000
QUERIES, LATER, TOP = 100, 10, 20
BLOCK = 5_000  # people who are drawn and added at a time


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = new_parser("benchmark.index", __doc__)
    add = parser.add_argument
    where = "a new file ending in .db, or a Milvus server without an index; or what was filled so before"
    add("--index", required=True, metavar="FILE_OR_URI", help=where)
    add("--people", type=positive_int, default=10_000, metavar="N", help="people to add (default: %(default)s)")
    add("--approximate", action="store_true", help="an approximate index, as of tools.index")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    add_traceback_argument(parser)
    return parser.parse_args(argv)


def draw_people(number: int) -> Iterator[np.ndarray]:
    """Embeddings of people, each seen OF_PERSON times in all, at most BLOCK x WIDTH at a time; the same each time."""
    rng = np.random.default_rng(7)
    people = rng.standard_normal((max(1, number // OF_PERSON), WIDTH), dtype=np.float32)
    for start in range(0, number, BLOCK):
        size = min(BLOCK, number - start)
        own = people[rng.integers(len(people), size=size)]
        rows = SIMILARITY**0.5 * own + (1 - SIMILARITY) ** 0.5 * rng.standard_normal((size, WIDTH), dtype=np.float32)
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True) * rng.uniform(0.5, 1, (size, 1)).astype(np.float32)


def exact_similarities(number: int, queries: np.ndarray) -> np.ndarray:
    """Per query the similarity of the TOP-th most similar of the people."""
    best = np.full((len(queries), TOP), -np.inf, np.float32)
    for block in draw_people(number):
        best = np.sort(np.concatenate([best, queries @ block.T], axis=1), axis=1)[:, -TOP:]
    return best[:, 0]


class Figures:
    """What was measured, printed and written as soon as it is known.

    Args:
        file: JSON to write; None for none.
        about: what was measured, for the file.
    """

    def __init__(self, file: Path | None, about: dict[str, object]):
        self.file, self.figures = file, about

    def tell(self, name: str, value: float) -> None:
        """A figure."""
        self.figures[name] = value
        sys.stdout.write(f"{name}: {value:.4g}\n")
        sys.stdout.flush()
        if self.file:
            write_json(self.file, self.figures)

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        """The time that the block takes: of the clock, and of the processors."""
        begin, used = monotonic(), process_time()
        yield
        self.tell(f"seconds {what}", monotonic() - begin)
        self.tell(f"seconds of the processor {what}", process_time() - used)


def main(args: argparse.Namespace) -> None:
    """Fill an index, search it, and print each figure as it is measured.

    Raises:
        UserError: the index holds other people.
    """
    from engine.index.rows import Network
    from engine.index.store import APPROXIMATE, EXACT, PeopleIndex

    figures = Figures(args.json, {"index": args.index, "approximate": args.approximate})
    figures.tell("people", args.people)
    network = Network("drawn people", "drawn", WIDTH)
    with PeopleIndex(args.index, network, APPROXIMATE if args.approximate else EXACT) as index:
        there = index.num_people()
        if there not in (0, args.people):
            raise UserError(f"--index {args.index} holds {there} people: name a new file, or a server without an index")
        if not there:
            fill(index, args.people, figures)
    with figures.time("to open"):
        index = PeopleIndex(args.index)
    with index:
        search(index, args.people, figures)
    if Path(args.index).exists():
        files = [file for file in Path(args.index).rglob("*") if file.is_file()]
        figures.tell("MiB on disk", sum(file.stat().st_size for file in files) / 2**20)


def fill(index: "PeopleIndex", number: int, figures: Figures) -> None:
    """Add drawn people to an empty index."""
    from types import SimpleNamespace

    from engine.index.rows import SearchedImage, Source

    rng, adding, processor, image = np.random.default_rng(0), 0.0, 0.0, 0
    for block in draw_people(number):
        images = []
        for start in range(0, len(block), PEOPLE_OF_IMAGE):
            vectors = block[start : start + PEOPLE_OF_IMAGE]
            source = Source(f"/drawn/{image}.jpg", 1, 1.0, "", float(image), "camera", done=1, complete=True)
            boxes = rng.uniform(0, 1000, (len(vectors), 4)).astype(np.float32)
            people = SimpleNamespace(boxes=boxes, scores=np.linalg.norm(vectors, axis=1), embeddings=vectors)
            images.append(SearchedImage(source, people, [rng.bytes(CROP_BYTES)] * len(vectors)))
            image += 1
        begin, used = monotonic(), process_time()
        index.put_sources([each.source for each in images])
        index.add(images)
        adding, processor = adding + monotonic() - begin, processor + process_time() - used
    figures.tell("people added a second", number / adding)
    figures.tell("people added in a second of the processor", number / processor)


def search(index: "PeopleIndex", number: int, figures: Figures) -> None:
    """Search an index of drawn people."""
    queries = next(draw_people(number))[:QUERIES]
    queries = queries + 0.02 * np.random.default_rng(1).standard_normal(queries.shape)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    with figures.time("of the first query"):
        index.search(queries[:1], TOP)
    with figures.time(f"of {LATER} later queries, one by one"):
        for query in queries[:LATER]:
            index.search(query[None], TOP)
    with figures.time(f"of {QUERIES} queries at once"):
        found = index.search(queries, TOP)
    figures.tell("peak MiB of this process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    least = exact_similarities(number, queries)
    right = [sum(hit.similarity >= low - 1e-4 for hit in hits) for hits, low in zip(found, least, strict=True)]
    figures.tell(f"recall of the best {TOP}", sum(right) / (len(queries) * TOP))


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
