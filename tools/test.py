"""Test a person-search network.

    python -m tools.test --ckpt outputs/glcnet_cuhk_sysu/best.pth [--cfg FILE] [--cbgm] [--companions] [--gt]

Prints the scores, and writes them to metrics.json in --out. --features keeps what the network found in a file, from
which other settings are scored without searching again.
"""

import argparse
import sys
from itertools import takewhile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/test.py`

from tools.common import add_config_arguments, new_parser, run_program
from utils.errors import UserError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser("test", __doc__)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--ckpt", type=Path, help="checkpoint (default: best.pth in the config's OUTPUT_DIR)")
    weights.add_argument("--untrained", action="store_true", help="random weights, with ground-truth boxes: a baseline")
    parser.add_argument("--cbgm", action="store_true", help="score with CBGM re-ranking too")
    help_voting = "score with companion voting, a re-ranking, too"
    parser.add_argument("--companions", action="store_true", help=help_voting)
    help_filter = "score with the network's gallery filter (GFN) too"
    parser.add_argument("--filter", action="store_true", help=help_filter)
    parser.add_argument("--gt", action="store_true", help="score with ground-truth boxes too")
    subsets = "score the queries of CUHK-SYSU's test subsets, occlusion and low resolution, too"
    parser.add_argument("--subsets", action="store_true", help=subsets)
    alone = "search by each feature of the embedding alone, too: res4, res5, scene, group"
    parser.add_argument("--by-feature", action="store_true", help=alone)
    parser.add_argument(
        "--gallery-size", nargs="+", metavar="N", help="images in each gallery, -1: all (default: usual)"
    )
    parser.add_argument("--features", type=Path, metavar="FILE", help="read features from FILE; if missing, write them")
    thresholds = "write a copy of the checkpoint that holds the similarities from which on people match, for searches"
    parser.add_argument("--thresholds-out", type=Path, metavar="FILE", help=thresholds)
    parser.add_argument("--out", type=Path, help="folder of metrics.json (default: OUTPUT_DIR/test)")
    add_config_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    # Options may follow the sizes; argparse takes them for more sizes.
    words = args.gallery_size or []
    numbers = list(takewhile(lambda word: word.lstrip("-").isdigit(), words))
    if words and not numbers:
        parser.error(f"--gallery-size takes integers, not {words[0]!r}")
    args.gallery_size, args.opts = [int(number) for number in numbers], words[len(numbers) :] + args.opts
    return args


def main(args: argparse.Namespace) -> None:
    """Test as the arguments say."""
    from tools.testing import run_test

    if args.cfg is None and (args.ckpt is None or args.untrained):
        raise UserError("give --ckpt FILE, or --cfg FILE to test the best checkpoint of its OUTPUT_DIR")
    run_test(args)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
