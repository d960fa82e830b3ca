"""Several results of tools.test in one table.

    python -m tools.compare GLCNet=outputs/glcnet_prw/test/metrics.json SeqNet=outputs/seqnet_prw/test/metrics.json

Where they are of several datasets, a column says which.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/compare.py`

from tools.common import add_traceback_argument, new_parser, run_program
from utils.errors import UserError
from utils.logging import format_table


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser("compare", __doc__)
    parser.add_argument("results", nargs="+", metavar="NAME=FILE", help="a name and the metrics.json it stands for")
    add_traceback_argument(parser)
    return parser.parse_args(argv)


def read_result(result: str) -> tuple[str, list[dict]]:
    """The dataset of a NAME=FILE, its folder where known, and one row for each search setting.

    Raises:
        UserError: there is no name, or the file is not one of tools.test.
    """
    name, equals, file = result.partition("=")
    if not equals:
        raise UserError(f"{result!r}: results are given as NAME=FILE")
    if not Path(file).is_file():
        raise UserError(f"{file} is no file: give OUTPUT_DIR/test/metrics.json, which tools.test writes")
    try:
        metrics = json.loads(Path(file).read_text(encoding="utf-8"))
        is_of_training = "detection_ap" in metrics
        if not is_of_training:
            detection, search, data = metrics["detection"], metrics["search"], metrics.get("data", metrics["dataset"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a metrics.json of tools.test: {error}") from error
    if is_of_training:
        raise UserError(f"{file} is of a training run: give OUTPUT_DIR/test/metrics.json, which tools.test writes")
    return data, [{"network": name, **row, "detection AP": detection["ap"]} for row in search]


def main(args: argparse.Namespace) -> None:
    """Print the table, with a column of datasets where they differ."""
    results = [read_result(result) for result in args.results]
    differ = len({data for data, _ in results}) > 1
    rows = [({"data": data} if differ else {}) | row for data, rows in results for row in rows]
    sys.stdout.write(f"{format_table(rows)}\n")


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
