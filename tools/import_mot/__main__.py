"""Turn MOTChallenge sequences into a person-search dataset in PRW's format.

    python -m tools.import_mot SEQUENCE... --out DIR [--train 1-150 --gallery 151-300 --query-every 30]

Each SEQUENCE (a folder with seqinfo.ini, img1 and gt/gt.txt) is a camera, numbered in the order given; --cameras puts
several on one camera. Identities of several sequences are kept apart, unless --shared-ids says that an id is one person
in all of them: then people can be searched from camera to camera (EVAL.CROSS_CAMERA True of tools.test). gt.txt counts
pixels from 1, the dataset from 0. In training, people seen once become people without identity. The dataset is then
used as PRW is:

    python -m tools.train --cfg configs/mot_mobilenet_v2.yaml INPUT.DATA_ROOT DIR
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python tools/import_mot`

from tools.common import add_traceback_argument, new_parser, positive_int, run_program
from tools.import_mot.sequence import MotSequence, read_sequence
from tools.import_mot.split import FrameRanges, SplitRules, split_sequences
from tools.importing import Splits, add_output_arguments, summary, write_dataset
from utils.errors import UserError
from utils.images import read_size


def main(args: argparse.Namespace) -> None:
    """Import as the arguments say, and print what came of it."""
    rules = SplitRules(**{field.name: getattr(args, field.name) for field in fields(SplitRules)})
    splits = import_mot(args.sequences, args.out, rules, args.cameras, args.copy)
    sys.stdout.write(summary(splits, args.out))


def import_mot(
    folders: Sequence[Path], out: Path, rules: SplitRules, cameras: Sequence[int] | None = None, copy: bool = False
) -> Splits:
    """Write the sequences in `folders` to `out` as a dataset in PRW's format.

    Args:
        cameras: a camera (1 and up) for each sequence, by default in order.
        copy: copy images rather than link them.

    Raises:
        UserError: the input is not as it should be, or `out` already holds images; nothing is written then.
    """
    cameras = cameras or list(range(1, len(folders) + 1))
    if len(cameras) != len(folders):
        raise UserError(f"--cameras names {len(cameras)} cameras for {len(folders)} sequences")
    sequences = [read_sequence(folder) for folder in folders]
    for sequence in sequences:
        _check_size(sequence)
    splits = split_sequences(sequences, cameras, rules)
    write_dataset(splits, out, copy)
    return splits


def _check_size(sequence: MotSequence) -> None:
    """Raise UserError where the first image file is missing, or is not of the size in seqinfo.ini."""
    height, width = read_size(sequence.image(1))
    if (width, height) != (sequence.width, sequence.height):
        raise UserError(
            f"{sequence.folder / 'seqinfo.ini'}: imWidth x imHeight is {sequence.width} x {sequence.height}, "
            f"{sequence.image(1).name} has {width} x {height}"
        )


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
    parser = new_parser("import_mot", __doc__)
    add_traceback_argument(parser)
    add = parser.add_argument
    add("sequences", nargs="+", type=Path, metavar="SEQUENCE", help="folder of a sequence")
    add_output_arguments(parser)
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
    add("--shared-ids", action="store_true", help="an id is the same person in every sequence")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
