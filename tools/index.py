"""Index the people in pictures and videos, so that tools.search finds one of them at once.

    python -m tools.index PATH [PATH ...] --index people.db --ckpt CKPT [--fps 1] [--camera NAME]
    python -m tools.index --index people.db --remove PATH [PATH ...]

PATH is a picture, a video, or a folder, indexed with its subfolders. Stopped at any moment, the same command goes on;
given again, it adds what is new or has changed. Files that cannot be read are listed at the end, and the exit code is
1 then.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/index.py`

from tools.common import new_parser, run_program
from tools.photos.wording import counted
from tools.searching import add_index_arguments, camera_name
from utils.errors import UserError

if TYPE_CHECKING:
    from engine.index.indexing import Report
    from engine.index.rows import Source
    from engine.index.store import PeopleIndex


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; `paths` holds the first words that are no options, `opts` the options after them."""
    parser = new_parser("index", __doc__)
    add = parser.add_argument
    add("--fps", type=positive, metavar="N", help="frames of a video that are searched in a second (default: 1)")
    add("--camera", type=camera_name, metavar="NAME", help="camera of these files, by which a search can choose")
    add("--remove", type=Path, nargs="+", metavar="PATH", help="remove these files, or all in these folders")
    graph = "for a new index: follow a graph of neighbours, which may miss some people"
    add("--approximate", action="store_true", help=graph)
    add_index_arguments(parser)
    parser.usage = "%(prog)s PATH [PATH ...] --index FILE_OR_URI --ckpt FILE [options] [KEY VALUE ...]"
    args = parser.parse_intermixed_args(argv)
    count = next((index for index, word in enumerate(args.opts) if is_option(word)), len(args.opts))
    args.paths, args.opts = [Path(word) for word in args.opts[:count]], args.opts[count:]
    if bool(args.paths) == bool(args.remove):
        parser.error("give PATHs to index, or --remove PATH")
    if args.remove and (args.fps or args.camera is not None or args.approximate):
        parser.error("--remove takes no --fps, --camera or --approximate")
    return args


def is_option(word: str) -> bool:
    """Whether a word is the name of an option, as INPUT.NUM_WORKERS, and no file."""
    from defaults import get_default_cfg
    from utils.options import flatten

    return word in flatten(get_default_cfg()) and not Path(word).exists()


def positive(text: str) -> float:
    """An argument that is a number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def main(args: argparse.Namespace) -> None:
    """Index, or remove, and print what was done.

    Raises:
        UserError: some files could not be read, after the others were indexed; a path does not exist; or see
            `engine.index.store.PeopleIndex` and `tools.searching.open_searcher`.
    """
    if args.remove:
        remove(args)
        return
    from engine.index.indexing import index_files
    from engine.index.store import APPROXIMATE, EXACT, PeopleIndex
    from engine.index.video import VIDEO_SUFFIXES
    from tools.searching import open_searcher
    from utils.find import find_files
    from utils.images import HEIF_SUFFIXES, SUFFIXES

    files, others = find_files(args.paths, (*SUFFIXES, *HEIF_SUFFIXES, *VIDEO_SUFFIXES), "pictures or videos")
    searcher, network, _ = open_searcher(args)
    with PeopleIndex(args.index, network, APPROXIMATE if args.approximate else EXACT) as index:
        index.network.check_same(network, args.index)
        report = index_files(index, searcher, files, args.camera, args.fps)
        sys.stdout.writelines(f"{line}\n" for line in describe(report, index))
    if others:
        listed = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
        sys.stdout.write(f"neither pictures nor videos, passed over: {listed}\n")
    if report.failed:
        sys.stdout.writelines(f"  {reason}\n" for reason in report.failed.values())
        raise UserError(f"{counted(len(report.failed), 'file')} could not be read (see above); the rest is indexed")


def remove(args: argparse.Namespace) -> None:
    """Remove files from the index, and print which; UserError where it holds nothing of a path."""
    from engine.index.store import PeopleIndex

    with PeopleIndex(args.index) as index:
        sources = index.sources()
        gone = {}
        for path in args.remove:
            own = {source.path: source for source in sources if is_below(source, path)}
            if not own:
                raise UserError(f"{args.index} holds nothing of {path}: nothing was removed")
            gone |= own
        index.remove(list(gone.values()))
        left = counted(index.num_people(), "person", "people")
        sys.stdout.write(f"removed {counted(len(gone), 'file')}; {args.index} holds {left}\n")


def is_below(source: "Source", path: Path) -> bool:
    """Whether a source is a file, or in a folder, of that path, which may exist no longer."""
    from engine.index.sources import place_of

    return place_of(path) == Path(source.path) or path.resolve() in Path(source.path).parents


def describe(report: "Report", index: "PeopleIndex") -> list[str]:
    """What a run did, in lines."""
    what = ", ".join(f"{count} {kind}" for kind, count in report.files.items()) or "none"
    found = f"{counted(report.people, 'person', 'people')} in {counted(report.images, 'image')}"
    everybody = counted(index.num_people(), "person", "people")
    return [f"files: {what}", f"found {found}; {index.place} holds {everybody}"]


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
