"""Look into a checkpoint, or write it as this project's.

    python -m tools.convert_checkpoint theirs.pth
    python -m tools.convert_checkpoint theirs.pth ours.pth [--strip] [--half]

The first line describes the file; the second writes another one.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/convert_checkpoint.py`

from tools.common import add_traceback_argument, new_parser, run_program
from utils.errors import UserError
from utils.files import write_text


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser("convert_checkpoint", __doc__)
    parser.add_argument("source", type=Path, metavar="IN", help="checkpoint of this project or of a known release")
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="file to write (default: describe IN)")
    parser.add_argument("--strip", action="store_true", help="leave out optimiser state and identity tables")
    parser.add_argument("--half", action="store_true", help="write weights as float16, in half the size")
    parser.add_argument("--cfg", help="config of the network (default: the one in IN, or the release's)")
    parser.add_argument("--save-config", type=Path, metavar="FILE", help="write the network's config, to test with")
    add_traceback_argument(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Describe or convert as the arguments say."""
    from engine.checkpoint import identify, read_checkpoint
    from tools.converting import describe, read_options, write_converted

    name = str(args.source)
    checkpoint = read_checkpoint(args.source)
    weights = identify(checkpoint, name)
    if not args.out and not args.save_config:
        if args.strip or args.half:
            raise UserError("--strip and --half say how to write: name a file OUT")
        sys.stdout.writelines(f"{fact:<11} {text}\n" for fact, text in describe(checkpoint, weights).items())
        return
    cfg = read_options(args.cfg, checkpoint, weights, name)
    if args.save_config:
        write_text(args.save_config, cfg.dump())
        sys.stdout.write(f"the config is in {args.save_config}\n")
    if args.out:
        write_converted(args.source, checkpoint, cfg, args.out, strip=args.strip, half=args.half)
        sys.stdout.write(f"written to {args.out}, {args.out.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
