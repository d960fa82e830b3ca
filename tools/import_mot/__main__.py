"""Turn MOTChallenge sequences into a person-search dataset in PRW's format.

    python -m tools.import_mot SEQUENCE... --out DIR [--train 1-150 --gallery 151-300 --query-every 30]

Each SEQUENCE (a folder with seqinfo.ini, img1 and gt/gt.txt) is a camera, 1 to 6 in the order given; --cameras puts
several on one camera. Identities of several sequences are kept apart. gt.txt counts pixels from 1, the dataset from 0.
In training, people seen once become people without identity. The dataset is then used as PRW is:

    python -m tools.train --cfg configs/mot_mobilenet_v2.yaml INPUT.DATA_ROOT DIR
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python tools/import_mot`

from datasets.writers import PRW_CAMERAS, image_folder, write_annotations
from tools.common import add_traceback_argument, positive_int, run_program
from tools.import_mot.sequence import MotSequence, read_sequence
from tools.import_mot.split import FrameRanges, MotSplit, SplitRules, split_sequences
from utils.errors import UserError

JPEG_QUALITY = 95


def main(args: argparse.Namespace) -> None:
    """Import as the arguments say, and print what came of it."""
    rules = SplitRules(**{field.name: getattr(args, field.name) for field in fields(SplitRules)})
    split = import_mot(args.sequences, args.out, rules, args.cameras, args.copy)
    people = {int(pid) for image in split.train for pid in image["pids"] if pid > 0}
    sys.stdout.write(
        f"{args.out}: {len(split.train)} training images with {len(people)} identities, "
        f"{len(split.gallery)} gallery images, {len(split.queries)} queries\n"
    )


def import_mot(
    folders: Sequence[Path], out: Path, rules: SplitRules, cameras: Sequence[int] | None = None, copy: bool = False
) -> MotSplit:
    """Write the sequences in `folders` to `out` as a dataset in PRW's format.

    Args:
        cameras: a camera (1 ... 6) for each sequence, by default in order.
        copy: copy images rather than link them.

    Raises:
        UserError: the input is not as it should be, or `out` already holds images; nothing is written then.
    """
    cameras = cameras or list(range(1, len(folders) + 1))
    if len(cameras) != len(folders):
        raise UserError(f"--cameras names {len(cameras)} cameras for {len(folders)} sequences")
    if not set(cameras) <= set(PRW_CAMERAS):
        raise UserError(
            f"{len(folders)} sequences need cameras {min(cameras)} to {max(cameras)}, and PRW's format has 1 to 6: "
            "put several on one camera with --cameras, as in --cameras 1 2 3 4 5 6 6"
        )
    frames = image_folder("prw", out)
    if frames.is_dir() and any(frames.iterdir()):
        raise UserError(f"{frames} already holds images: choose another --out, or delete it")
    sequences = [read_sequence(folder) for folder in folders]
    split = split_sequences(sequences, cameras, rules)
    images = split.train + split.gallery
    check_images(sequences, [image["img_path"] for image in images])
    frames.mkdir(parents=True, exist_ok=True)
    for image in tqdm(images, desc="images", unit="", disable=None):
        place_image(image["img_path"], frames / image["img_name"], copy)
    write_annotations("prw", out, split.train, split.gallery, split.queries)
    return split


def check_images(sequences: Sequence[MotSequence], paths: Sequence[Path]) -> None:
    """Raise UserError where image files are missing, or are not of the size in seqinfo.ini."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]} is missing ({len(missing)} images in all)")
    for sequence in sequences:
        with Image.open(sequence.image(1)) as image:
            if image.size != (sequence.width, sequence.height):
                raise UserError(
                    f"{sequence.folder / 'seqinfo.ini'}: imWidth x imHeight is {sequence.width} x {sequence.height}, "
                    f"{sequence.image(1).name} has {image.width} x {image.height}"
                )


def place_image(source: Path, target: Path, copy: bool) -> None:
    """Hard-link `source` at `target`; copy if requested or where a link is not possible; other formats become JPEG."""
    if source.suffix.lower() not in (".jpg", ".jpeg"):
        with Image.open(source) as image:
            image.convert("RGB").save(target, quality=JPEG_QUALITY)
        return
    if not copy:
        with suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def frame_ranges(text: str) -> FrameRanges:
    """ "1-150" or "1-50,101-150" as a tuple of (first, last) pairs."""
    pairs = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            raise argparse.ArgumentTypeError(f"{part!r} is no range of frames such as 1-150")
        pairs.append((int(first), int(last)))
    return tuple(pairs)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    rules = SplitRules()
    parser = argparse.ArgumentParser(
        prog="python -m tools.import_mot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_traceback_argument(parser)
    add = parser.add_argument
    add("sequences", nargs="+", type=Path, metavar="SEQUENCE", help="folder of a sequence")
    add("--out", type=Path, required=True, help="folder of the dataset, made if missing")
    add("--train", type=frame_ranges, metavar="A-B[,C-D]", help="training frames (default: first half)")
    add("--gallery", type=frame_ranges, metavar="A-B[,C-D]", help="gallery frames (default: second half)")
    stride = "take every n-th of these frames (default: %(default)s)"
    add("--stride", type=positive_int, default=rules.stride, help=stride)
    every = "the people of every N-th gallery image, from the first on, are queries (default: %(default)s)"
    add("--query-every", type=positive_int, default=rules.query_every, metavar="N", help=every)
    small = "pixels inside the image; smaller people keep their box but lose their identity (default: %(default)s)"
    add("--min-width", type=int, default=rules.min_width, help=small)
    add("--min-height", type=int, default=rules.min_height, help=small)
    hidden = "0 ... 1; leave out people less visible than this, where gt.txt has it (default: %(default)s)"
    add("--min-visibility", type=float, default=rules.min_visibility, help=hidden)
    add("--cameras", type=positive_int, nargs="+", metavar="C", help="camera of each sequence (default: 1, 2, ...)")
    add("--copy", action="store_true", help="copy the images instead of linking them")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
