"""Show and compare test runs on one page.

A RUN is a folder that tools.train or tools.test wrote, such as outputs/glcnet_prw, or NAME=FOLDER. Its test must have
kept its features, and all runs are of one dataset:

    python -m tools.test --cfg configs/prw.yaml --features outputs/glcnet_prw/features.npz
    python -m tools.test --cfg configs/seqnet_prw.yaml --features outputs/seqnet_prw/features.npz
    python -m tools.report GLCNet=outputs/glcnet_prw SeqNet=outputs/seqnet_prw --out outputs/report

Then open outputs/report/index.html.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python tools/report`

from tools.common import add_traceback_argument, new_parser, positive_int, run_program
from utils.errors import UserError


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = new_parser("report", __doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="a folder of tools.train or tools.test, or NAME=FOLDER")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; an earlier report there is replaced")
    add("--single-file", action="store_true", help="embed the pictures in the page, which can then be sent as one file")
    add("--figures", action="store_true", help="write scores over gallery size and rankings as PDF and PNG, for papers")
    add("--queries", type=positive_int, default=60, metavar="N", help="rankings on the page (default: %(default)s)")
    add_traceback_argument(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Write the report and say where it is."""
    try:
        import jinja2  # noqa: F401 (optional packages, asked for before anything else happens)
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"a report needs {error.name}: pip install -r requirements-report.txt") from None
    from tools.report.report import write_report

    page = write_report(args.runs, args.out, args.queries, single_file=args.single_file, figures=args.figures)
    sys.stdout.write(f"open {page}\n")


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
