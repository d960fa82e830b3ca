"""Train a person-search network.

    python -m tools.train --cfg configs/cuhk_sysu.yaml [--resume] [INPUT.BATCH_SIZE_TRAIN 2]

Checkpoints, log, scores and TensorBoard events are written to the config's OUTPUT_DIR. Ctrl-C saves a checkpoint;
--resume continues exactly from there.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/train.py`

from tools.common import add_config_arguments, load_options, new_parser, run_program
from utils.errors import DivergedError
from utils.signals import StoppedError, StopSignals

log = logging.getLogger(__name__)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser("train", __doc__)
    help_resume = "continue from the newest checkpoint in OUTPUT_DIR; from scratch where there is none"
    parser.add_argument("--resume", action="store_true", help=help_resume)
    add_config_arguments(parser, required=True)
    return parser.parse_intermixed_args(argv)


def main(args: argparse.Namespace) -> None:
    """Train as the arguments say."""
    from engine.devices import select_device
    from engine.run import TrainingRun
    from utils.distributed import is_main, process_group
    from utils.logging import set_up_logging

    cfg = load_options(args)
    device = select_device(cfg.DEVICE)
    with process_group(device), StopSignals() as signals:
        set_up_logging(quiet=not is_main())
        try:
            with signals.stopping_at_once():
                run = TrainingRun(cfg, device, signals, args.resume)
            run.train()
        except RuntimeError as error:  # of a collective operation, when another process stopped first
            if signals.received is None or isinstance(error, DivergedError):
                raise
            raise StoppedError(signals.received) from error
        best = 100 * run.progress.best
        log.info("best mAP %.2f; checkpoints, log and TensorBoard events are in %s", best, run.folder.path)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
