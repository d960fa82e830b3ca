"""What tools.test does with the thresholds of same people and others: print them, store them with a checkpoint."""

import argparse
import logging
from pathlib import Path

from defaults import load_cfg
from tools.converting import store_options
from utils.errors import UserError
from utils.logging import format_table
from utils.match_thresholds import MATCH_RATE, POSSIBLE_RATE

log = logging.getLogger("test")

STORED_RATES = {"EVAL.THRESHOLDS.POSSIBLE": POSSIBLE_RATE, "EVAL.THRESHOLDS.MATCH": MATCH_RATE}
"""False-match rates of the thresholds that go into a checkpoint."""


def checkpoint_path(args: argparse.Namespace) -> Path:
    """The checkpoint that tools.test tests where it needs one: the given one, or the best of the config's run."""
    return args.ckpt or Path(load_cfg(args.cfg, args.opts).OUTPUT_DIR) / "best.pth"


def check_thresholds_out(args: argparse.Namespace) -> None:
    """Raise UserError where there would be no checkpoint to store thresholds with."""
    if not args.thresholds_out:
        return
    source = checkpoint_path(args)
    if args.untrained or not source.is_file():
        raise UserError(f"--thresholds-out is for a trained network, but there is no checkpoint at {source}")
    if args.thresholds_out.resolve() == source.resolve():
        raise UserError(f"--thresholds-out {source} is the checkpoint that is tested: name another file")


def format_thresholds(thresholds: list[dict]) -> str:
    """The rows of `evaluate_same_person` as a table, the share of true matches kept in percent."""
    rows = [
        {
            "false-match rate": f"{row['false_match_rate']:g}",
            "threshold": "unknown" if row["threshold"] is None else f"{row['threshold']:.3f}",
            "true matches kept (%)": "unknown" if row["true_matches_kept"] is None else row["true_matches_kept"],
        }
        for row in thresholds
    ]
    return format_table(rows)


def store_thresholds(args: argparse.Namespace, thresholds: list[dict]) -> None:
    """Write a copy of the checkpoint whose options hold the thresholds of STORED_RATES.

    Raises:
        UserError: one of them is not known.
    """
    by_rate = {row["false_match_rate"]: row["threshold"] for row in thresholds}
    values = {option: by_rate[rate] for option, rate in STORED_RATES.items()}
    if None in values.values():
        raise UserError("--thresholds-out: too few people to tell thresholds from; test with a larger gallery")
    options = [str(word) for pair in values.items() for word in pair]
    store_options(checkpoint_path(args), args.thresholds_out, options)
    log.info("%s: stored with the weights in %s", " ".join(options), args.thresholds_out)
