"""Find a person in your pictures.

    python demo.py --ckpt CKPT --query PHOTO --gallery PLACE [PLACE ...] [--person N | --box LEFT TOP RIGHT BOTTOM]
                   --out DIR

CKPT is a checkpoint of this project or a published one (README.md says where they are offered). PHOTO shows the person;
where it shows several people, the first call numbers them in DIR/people.jpg, and --person says which one is meant.
PLACE is an image file, or a folder, searched with its subfolders. Written to DIR: overview.jpg, the person beside the
best matches; gallery/, the images with a match or in the overview; results.json. An earlier result there is replaced.

Without --ckpt it takes the network that quickstart.sh trains, without --query the sample that quickstart.sh draws.
"""

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tools.common import add_traceback_argument, check_options, positive_int, run_program
from tools.photos.wording import counted, headline, verdict
from utils.errors import UserError

if TYPE_CHECKING:  # imported in `main`, for PyTorch takes seconds, in which --help would wait
    from engine.searcher import Searcher
    from tools.photos.output_folder import OutputFolder
    from tools.photos.search import GalleryRequest, GalleryResults

ROOT = Path(__file__).resolve().parent
QUICKSTART = ROOT / "outputs/quickstart"
SHOWN = 5


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ckpt", type=Path, help="checkpoint of the network")
    add("--cfg", type=Path, help="config file (default: the options in the checkpoint, or of its release)")
    add("--query", type=Path, metavar="PHOTO", help="image that shows the person")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--person", type=positive_int, metavar="N", help="the N-th person from the left in PHOTO")
    box = ("LEFT", "TOP", "RIGHT", "BOTTOM")
    who.add_argument("--box", type=float, nargs=4, metavar=box, help="edges of the person in pixels of PHOTO")
    add("--gallery", type=Path, nargs="+", metavar="PLACE", help="images, or folders of images, to search")
    add("--out", type=Path, default=Path("outputs/demo"), metavar="DIR", help="folder to write (default: %(default)s)")
    add("--top-k", type=positive_int, default=9, metavar="N", help="images in the overview (default: %(default)s)")
    help_threshold = "from which a person counts as a match (default: what hardly any stranger reaches, at least 0.5)"
    add("--threshold", type=similarity, metavar="SIMILARITY", help=help_threshold)
    add("--device", help="auto, cpu, cuda or cuda:N (default: auto)")
    add_traceback_argument(parser)
    add("opts", nargs="*", metavar="KEY VALUE", help="options over the checkpoint's, see defaults.py")
    return parser.parse_intermixed_args(argv)


def similarity(text: str) -> float:
    """An argument that is a similarity."""
    number = float(text)
    if not -1 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between -1 and 1")
    return number


def main(args: argparse.Namespace) -> None:
    """Build the network, search, print where the results are.

    Raises:
        UserError: see `read_request`, `choose_person` and `search`.
        KeyboardInterrupt: the search was stopped; what was found until then is kept.
    """
    from engine.devices import select_device
    from engine.networks import open_network
    from engine.searcher import Searcher
    from engine.solver import precision
    from tools.photos.output_folder import OutputFolder
    from tools.photos.search import finds_nobody
    from utils.images import read_photo

    request, others = read_request(args)
    folders = [place for place in args.gallery or () if place.is_dir()]
    out = OutputFolder(args.out, [request.query, *request.gallery], folders)
    try:
        cfg, model = open_network(args.ckpt or _of_quickstart("run/best.pth"), args.cfg, args.opts)
        check_options(cfg)
        searcher = Searcher(
            model,
            select_device(args.device or "auto"),
            batch_size=cfg.INPUT.BATCH_SIZE_TEST,
            num_workers=cfg.INPUT.NUM_WORKERS,
            amp=precision(cfg.EVAL.AMP, "EVAL.AMP"),
            compiled=cfg.EVAL.COMPILE,
            max_pixels=cfg.INPUT.MAX_PIXELS,
            read=read_photo,
        )
        if request.box is None:
            request = choose_person(searcher, request, args.person, out)
        elif finds_nobody(searcher, request.query, request.box):
            say(f"note: the network finds nobody in the box of {request.query}; it is searched for all the same")
        if request.box is not None:
            search(searcher, request, args, others, out)
    finally:
        out.discard()


def read_request(args: argparse.Namespace) -> tuple["GalleryRequest", Counter]:
    """What the options ask for, and other files in the folders by suffix.

    Raises:
        UserError: one of the options is missing, a file does not exist, or the gallery holds a video, or the query
            alone.
    """
    from engine.index.sources import is_video
    from tools.photos.files import find_photos
    from tools.photos.search import GalleryRequest

    if args.query is None and args.gallery is None:
        file = _of_quickstart("data/demo.json")
        sample = json.loads(file.read_text(encoding="utf-8"))
        truth = {file.parent / name: box for name, box in sample["truth"].items()}
        gallery = [file.parent / name for name in sample["gallery"]]
        return GalleryRequest(file.parent / sample["query"], gallery, tuple(sample["box"]), truth), Counter()
    if args.query is None or args.gallery is None:
        raise UserError("--query and --gallery go together: the photo of the person, and the images to search")
    if not args.query.exists():
        raise UserError(f"there is no {args.query}: give --query the photo that shows the person")
    photos, others = find_photos(args.gallery)
    if videos := [file for file in photos if is_video(file)]:
        raise UserError(f"{videos[0]} is a video: see python -m tools.index, which reads videos, and tools.search")
    gallery = [photo for photo in photos if photo.resolve() != args.query.resolve()]
    if not gallery:
        raise UserError("--gallery holds no images besides the query: name more images or folders")
    return GalleryRequest(args.query, gallery, tuple(args.box) if args.box else None), others


def choose_person(
    searcher: "Searcher", request: "GalleryRequest", number: int | None, out: "OutputFolder"
) -> "GalleryRequest":
    """The request with the box of the person meant; where that is not clear, people are numbered in people.jpg.

    Args:
        number: of the person, from the left, from 1; None: the only one.

    Raises:
        UserError: there is nobody, or no such person.
    """
    from tools.photos.search import find_people, write_people

    boxes = find_people(searcher, request.query)
    if not boxes:
        raise UserError(f"nobody was found in {request.query}: give --box LEFT TOP RIGHT BOTTOM, in pixels")
    people = counted(len(boxes), "person", "people")
    if number is not None and number > len(boxes):
        raise UserError(f"--person {number}: there is no such person, only {people} found in {request.query}")
    if len(boxes) == 1:
        return replace(request, box=tuple(boxes[0]))
    write_people(request.query, boxes, out.part, searcher.max_pixels)
    if number is not None:
        return replace(request, box=tuple(boxes[number - 1]))
    out.commit()
    rows = [f"  {place}. {' '.join(f'{edge:.0f}' for edge in box)}" for place, box in enumerate(boxes, start=1)]
    hint = "to search for one of them, run the same command again with --person N, such as --person 1"
    say(f"{people} in {request.query}, numbered in {out.path / 'people.jpg'}:", *rows, hint)
    return request


def search(
    searcher: "Searcher", request: "GalleryRequest", args: argparse.Namespace, others: Counter, out: "OutputFolder"
) -> None:
    """Search the gallery, and write and print what was found; an earlier result stays where nothing could be searched.

    Raises:
        UserError: the box is outside the query image or too small, or no image could be read.
        KeyboardInterrupt: the search was stopped; what was found until then is written.
    """
    from tools.photos.search import search_gallery, write_results

    results = search_gallery(searcher, request, args.threshold)
    if results.images:
        write_results(results, out.part, args.top_k, searcher.max_pixels)
        out.commit()
        say(*report(results, others, out.path))
    elif results.complete:
        some = "; ".join(row["error"] for row in results.failed[:SHOWN])
        raise UserError(f"no image could be searched, nothing was written: {some}")
    if not results.complete:
        raise KeyboardInterrupt


def report(results: "GalleryResults", others: Counter, out: Path) -> list[str]:
    """The outcome in lines: the matches, or the most similar people; what was not searched; where to look."""
    images = len(results.images)
    people = counted(sum(len(image["boxes"]) for image in results.images), "person", "people")
    lines = [f"{people} in {counted(images, 'image')}"]
    lines += [f"threshold {results.threshold:.3f}: {results.threshold_reason}", headline(results.ranked, images)]
    matches = sum(row["match"] for row in results.ranked)
    for rank, row in enumerate(results.ranked[: max(matches, SHOWN)], start=1):
        words = (f"{row['similarity']:.3f}", verdict(row["match"], row["right"]), row["file"])
        lines.append(f"  {rank}. {'  '.join(filter(None, words))}")
    if others:
        listed = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
        lines.append(f"not images, not searched: {listed} (python -m tools.index reads videos)")
    if results.failed:
        lines.append(f"{counted(len(results.failed), 'image')} could not be read:")
        lines += [f"  {row['error']}" for row in results.failed]
    if not results.complete:
        after = counted(images, "image")
        lines.append(f"stopped after {after}: the result is of these alone; the same command starts again")
    hint = "matches may be wrong, look at them: " if matches else "see "
    return [*lines, f"{hint}{out / 'overview.jpg'}, {out / 'gallery'} and {out / 'results.json'}"]


def say(*lines: str) -> None:
    """Print lines; where their reader has gone, as after `| head`, they are dropped."""
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except BrokenPipeError:
        # Python writes at exit what is left, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _of_quickstart(name: str) -> Path:
    file = QUICKSTART / name
    if not file.is_file():
        raise UserError(f"no {file}, which `sh quickstart.sh` makes: run it, or give --ckpt, --query and --gallery")
    return file


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
