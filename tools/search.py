"""Find a person in an index of pictures and videos, which tools.index makes.

    python -m tools.search --index people.db --ckpt CKPT --query PHOTO [--person N | --box LEFT TOP RIGHT BOTTOM]
                           [--top 20] [--camera NAME] [--from T] [--to T] [--cbgm] [--json FILE] [--sheet FILE]

PHOTO shows the person; where it shows several people, the first call numbers them in a picture, and --person says
which one is meant. --query, with its --person or --box, may be given several times. T is a date, with or without a time
(2026-05-01, 2026-05-01T14:30), or a time from the beginning of a video (12:30 for minutes and seconds, 1:12:30).
Matches of a video that follow each other are one result, with the times of the first, the best and the last.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/search.py`

from tools.common import new_parser, positive_int, run_program
from tools.photos.wording import counted
from tools.searching import add_index_arguments, camera_name
from utils.errors import UserError

if TYPE_CHECKING:
    from engine.index.rows import Where
    from engine.index.store import PeopleIndex
    from engine.searcher import Searcher

CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2}(?:\.\d+)?)")


@dataclass
class Asked:
    """A query of the command line: a photo, and which person in it; `box` is None until that is clear."""

    photo: Path
    person: int | None = None
    box: tuple[float, ...] | None = None


class AddQuery(argparse.Action):
    """--query begins a query, to which the --person or --box after it belongs."""

    def __call__(self, parser, namespace, values, option_string=None):
        asked = getattr(namespace, "queries", None) or []
        if self.dest == "photo":
            namespace.queries = [*asked, Asked(values)]
        elif not asked or asked[-1].person or asked[-1].box:
            parser.error(f"{option_string} belongs to the --query before it, which has one at most")
        else:
            setattr(asked[-1], self.dest, values if self.dest == "person" else tuple(values))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; `queries` holds an `Asked` for each --query."""
    parser = new_parser("search", __doc__)
    add = parser.add_argument
    add("--query", type=Path, dest="photo", action=AddQuery, required=True, metavar="PHOTO", help="shows the person")
    nth = "the N-th person from the left in PHOTO"
    add("--person", type=positive_int, action=AddQuery, metavar="N", help=nth)
    edges = "edges of the person in pixels of PHOTO"
    names = ("LEFT", "TOP", "RIGHT", "BOTTOM")
    add("--box", type=float, nargs=4, action=AddQuery, metavar=names, help=edges)
    add("--top", type=positive_int, default=20, metavar="N", help="results of a query (default: %(default)s)")
    add("--camera", type=camera_name, metavar="NAME", help="search what this camera saw")
    add("--from", type=moment, dest="start", metavar="T", help="search what was taken then or later")
    end = "search what was taken then or earlier; a date alone is the end of that day"
    add("--to", type=partial(moment, clock=time.max), dest="end", metavar="T", help=end)
    add("--cbgm", action="store_true", help="re-rank the best images by the people around the query")
    add("--json", type=named(".json"), metavar="FILE", help="write the results to FILE (.json)")
    sheet = "draw the query and its results (.jpg or .png)"
    add("--sheet", type=named(".jpg", ".jpeg", ".png"), metavar="FILE", help=sheet)
    add_index_arguments(parser)
    return parser.parse_intermixed_args(argv)


def named(*suffixes: str) -> Callable[[str], Path]:
    """The type of an argument that is a file to write, whose name ends in one of these."""

    def file(text: str) -> Path:
        if Path(text).suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(suffixes)}")
        return Path(text)

    return file


def moment(text: str, clock: time = time.min) -> tuple[str, float]:
    """An argument that is a date with or without a time, or a time from the beginning of a video.

    Args:
        clock: the time of a date without one.

    Returns:
        "time" and seconds since 1970, or "position" and seconds from the beginning.
    """
    if match := CLOCK.fullmatch(text):
        hours, minutes, seconds = match.groups(default="0")
        return "position", 3600.0 * int(hours) + 60 * int(minutes) + float(seconds)
    try:
        with suppress(ValueError):
            return "time", datetime.combine(date.fromisoformat(text), clock).timestamp()
        return "time", datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a date such as 2026-05-01T14:30 nor a time such as 12:30"
        ) from None


def main(args: argparse.Namespace) -> None:
    """Search, print, and write what was asked for.

    Raises:
        UserError: nobody is found in a photo, or there is no such person or camera; an output file is one of the user's
            pictures; or see `engine.index.store.PeopleIndex` and `tools.searching.open_searcher`.
    """
    from engine.index.search import embed, search
    from engine.index.store import PeopleIndex
    from engine.index.thresholds import thresholds_of
    from tools.found import as_plain, describe, draw_sheet, explain_thresholds, write_picture
    from tools.searching import open_searcher
    from utils.files import write_json
    from utils.images import read_photo

    for asked in args.queries:
        if not asked.photo.exists():
            raise UserError(f"there is no {asked.photo}: give --query the photo that shows the person")
    searcher, network, measured = open_searcher(args)
    with PeopleIndex(args.index) as index:
        index.network.check_weights(network, args.index)
        protect(index, args)
        if not choose_people(searcher, args):
            return
        derived = None if measured else thresholds_of(index)
        queries = [embed(searcher, asked.photo, asked.box, place_of(asked.photo)) for asked in args.queries]
        results = search(index, queries, args.top, where_of(args, index), measured or derived, args.cbgm)
        for asked, found in zip(args.queries, results, strict=True):
            box = " ".join(f"{edge:.0f}" for edge in asked.box)
            sys.stdout.write(f"{asked.photo}, person at {box}: ")
            sys.stdout.writelines(f"{line}\n" for line in describe(found))
        if any(results):
            sys.stdout.write(explain_thresholds(measured, derived))
        if args.json:
            both = zip(args.queries, results, strict=True)
            rows = [{"query": str(asked.photo), "box": asked.box, "results": as_plain(found)} for asked, found in both]
            write_json(args.json, rows)
        if args.sheet:
            for path, asked, found in zip(sheet_files(args), args.queries, results, strict=True):
                picture = read_photo(asked.photo, searcher.max_pixels)
                sheet = draw_sheet(index, picture, asked.box, found, asked.photo.name, searcher.max_pixels)
                write_picture(path, sheet)


def choose_people(searcher: "Searcher", args: argparse.Namespace) -> bool:
    """Set the box of each query; where it is not clear who is meant, number the people in a picture, and return False.

    Raises:
        UserError: nobody is found, or no such person.
    """
    from tools.found import write_picture
    from tools.photos.drawing import draw_numbered
    from tools.photos.search import find_people
    from utils.images import read_photo

    clear, stems = True, Counter(asked.photo.stem for asked in args.queries)
    for number, asked in enumerate(args.queries, start=1):
        if asked.box is not None:
            continue
        boxes = find_people(searcher, asked.photo)
        if not boxes:
            raise UserError(f"nobody was found in {asked.photo}: give --box LEFT TOP RIGHT BOTTOM, in pixels")
        people = counted(len(boxes), "person", "people")
        if asked.person is not None and asked.person > len(boxes):
            raise UserError(f"--person {asked.person}: only {people} found in {asked.photo}")
        if asked.person is None and len(boxes) > 1:
            once = stems[asked.photo.stem] == 1
            file = Path(f"{asked.photo.stem}{'' if once else f'-{number}'}-people.jpg")
            write_picture(file, draw_numbered(read_photo(asked.photo, searcher.max_pixels), boxes))
            sys.stdout.write(f"{people} in {asked.photo}, numbered in {file}: give --person N after --query\n")
            clear = False
        asked.box = tuple(boxes[(asked.person or 1) - 1])
    return clear


def where_of(args: argparse.Namespace, index: "PeopleIndex") -> "Where":
    """Who is searched; UserError where the index has no such camera, or the times do not fit each other."""
    from engine.index.rows import Where

    if args.camera is not None:
        cameras = sorted({source.camera for source in index.sources()})
        if args.camera not in cameras:
            known = ", ".join(filter(None, cameras)) or "none with a name"
            raise UserError(f"--camera {args.camera}: {args.index} has no such camera, but {known}")
    if args.start and args.end and args.start[0] != args.end[0]:
        raise UserError("--from and --to: give two dates, or two times in a video")
    if args.start and args.end and args.start > args.end:
        raise UserError("--from is later than --to")
    limits = {kind: [None, None] for kind in ("time", "position")}
    for place, given in enumerate((args.start, args.end)):
        if given:
            limits[given[0]][place] = given[1]
    return Where(args.camera, tuple(limits["time"]), tuple(limits["position"]))


def sheet_files(args: argparse.Namespace) -> list[Path]:
    """The file of each query's sheet: the one given, or with several queries numbered ones."""
    if len(args.queries) == 1:
        return [args.sheet]
    return [args.sheet.with_stem(f"{args.sheet.stem}-{number}") for number in range(1, len(args.queries) + 1)]


def protect(index: "PeopleIndex", args: argparse.Namespace) -> None:
    """Raise UserError where an output file is a query, in the index, or a picture that this program did not write."""
    from engine.index.rows import number_of
    from tools.found import check_replaceable

    sheets = sheet_files(args) if args.sheet else []
    outputs = [*sheets, *filter(None, [args.json])]
    queries = {place_of(asked.photo) for asked in args.queries}
    for file in outputs:
        if place_of(file) in queries or index.source(number_of(place_of(file))) is not None:
            raise UserError(f"{file} is one of the pictures that are searched: name another file to write")
    for file in sheets:
        check_replaceable(file)


def place_of(path: Path) -> str:
    """The path by which an index knows a file."""
    from engine.index import sources

    return str(sources.place_of(path))


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
