"""Train a person-search network: python -m tools.train --cfg configs/cuhk_sysu.yaml [--resume] [KEY VALUE ...]"""

import argparse
import logging
import os
import sys
from pathlib import Path

import torch
from yacs.config import CfgNode

from engine.run_folder import RunFolder
from engine.skips import DivergedError
from engine.solver import check_milestones, precision
from tools.common import (
    Splits,
    add_config_arguments,
    check_evaluation_options,
    check_least,
    load_options,
    open_split,
    resolve_device,
    run_program,
    with_identities,
)
from tools.training_run import STATE, Run
from utils.distributed import barrier, is_distributed, is_main, join_processes, leave_processes, world_size
from utils.files import write_text
from utils.logging import remembering, set_up_logging, write_to_file
from utils.signals import ECHO_SECONDS, StoppedError, StopSignals

log = logging.getLogger("train")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.train", description=__doc__.partition(":")[0])
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint in OUTPUT_DIR; start anew where there is none",
    )
    add_config_arguments(parser)
    return parser.parse_intermixed_args(argv)


def _checkpoint_to_resume(folder: RunFolder, resume: bool) -> tuple[dict | None, Path | None, dict[Path, str]]:
    """The newest whole checkpoint and its path (None: there is none), and newer ones that are damaged."""
    if not folder.checkpoints():
        return None, None, {}
    if not resume:
        raise ValueError(f"{folder.path} holds a run already: go on with it (--resume), or choose another OUTPUT_DIR")
    checkpoint, path, faults = folder.newest()
    wrong = [name for name, kind in STATE.items() if not isinstance(checkpoint.get(name), kind)]
    if "files" not in wrong and any(type(size) is not int or size < 0 for size in checkpoint["files"].values()):
        wrong.append("files")
    if wrong:
        raise ValueError(
            f"{path} is not what this version's training leaves (missing or of another kind: {', '.join(wrong)}): "
            "finish that run with the version that began it, or choose another OUTPUT_DIR"
        )
    return checkpoint, path, faults


def _check_options(cfg: CfgNode) -> None:
    """Refuse what would fail only in the first step, or after the first epoch."""
    check_milestones(cfg)
    check_evaluation_options(cfg)
    precision(cfg.SOLVER.AMP, "SOLVER.AMP")
    for option, value in (
        ("DISP_PERIOD", cfg.DISP_PERIOD),
        ("CKPT_PERIOD", cfg.CKPT_PERIOD),
        ("CKPT_KEEP", cfg.CKPT_KEEP),
        ("SOLVER.MAX_SKIPPED", cfg.SOLVER.MAX_SKIPPED),
        ("INPUT.BATCH_SIZE_TRAIN", cfg.INPUT.BATCH_SIZE_TRAIN),
        ("SOLVER.ACCUMULATE", cfg.SOLVER.ACCUMULATE),
        ("SOLVER.MAX_EPOCHS", cfg.SOLVER.MAX_EPOCHS),
        ("SOLVER.REFERENCE_BATCH", cfg.SOLVER.REFERENCE_BATCH),
    ):
        check_least(option, value, 1)
    for option, value in (
        ("CKPT_MINUTES", cfg.CKPT_MINUTES),
        ("EVAL_PERIOD", cfg.EVAL_PERIOD),
        ("MODEL.OIM.QUEUE_SIZE", cfg.MODEL.OIM.QUEUE_SIZE),
        ("SOLVER.CLIP_GRADIENTS", cfg.SOLVER.CLIP_GRADIENTS),
    ):
        check_least(option, value, 0)
    if cfg.MODEL.CONTEXT.GROUP in ("stack", "multiscale") and cfg.INPUT.BATCH_SIZE_TRAIN < 2:
        raise ValueError(
            "MODEL.CONTEXT.GROUP needs INPUT.BATCH_SIZE_TRAIN of 2 or more: its batch norm sees one vector an image"
        )


def _tell_changed_options(checkpoint: dict | None, cfg: CfgNode) -> None:
    """Warn of options that differ from those the interrupted run had."""
    if checkpoint is None:
        return
    before, now = (set(text.splitlines()) for text in (checkpoint["config"], cfg.dump()))
    if before != now:
        changed = " ".join(line.strip() for line in sorted(now - before))
        log.warning("options differ from those the run was started with, now: %s", changed)


def _set_up(args: argparse.Namespace, cfg: CfgNode, device: torch.device, signals: StopSignals) -> Run:
    """The run, ready to train, and its log."""
    folder = RunFolder(Path(cfg.OUTPUT_DIR), cfg.CKPT_KEEP)
    set_up_logging(quiet=not is_main())
    checkpoint, path, faults = _checkpoint_to_resume(folder, args.resume)
    barrier()  # every process has read it
    with remembering() as told:
        splits = Splits(*(open_split(cfg, split) for split in ("train", "gallery", "query")))
        next(iter(splits.query.galleries(splits.gallery, cfg.EVAL.GALLERY_SIZE or None, cfg.EVAL.CROSS_CAMERA)))
        cfg = with_identities(cfg, splits.train.num_identities)
        torch.manual_seed(cfg.SEED)
        if cfg.DETERMINISTIC:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic cuBLAS asks for
            torch.use_deterministic_algorithms(True)
        run = Run(cfg, splits, device, folder, signals, checkpoint, path)
        log.info(
            "%s: %d training images, %d identities; %d processes on %s; from epoch %d, step %d",
            cfg.INPUT.DATASET,
            len(splits.train),
            splits.train.num_identities,
            world_size(),
            device.type,
            run.epoch + 1,
            run.step + 1,
        )
    if is_main():  # only now, when nothing more is refused, is the folder changed
        folder.cut_back(checkpoint)
        set_up_logging(folder.log)
        if checkpoint is None:  # the log of a run that goes on has this already
            write_to_file(told)
        folder.set_aside(faults)
        run.open_board()
        _tell_changed_options(checkpoint, cfg)
        write_text(folder.path / "config.yaml", cfg.dump())
    return run


def main(args: argparse.Namespace) -> None:
    """Train as the arguments say."""
    cfg = load_options(args)
    _check_options(cfg)
    device = resolve_device(cfg.DEVICE)
    device = join_processes(device.type) or device
    with StopSignals(ECHO_SECONDS if is_distributed() else 0) as signals:
        try:
            with signals.stopping_at_once():
                run = _set_up(args, cfg, device, signals)
            run.train()
        except RuntimeError as error:  # as of a collective that another process left, being stopped too
            if signals.received is None or isinstance(error, DivergedError):
                raise
            raise StoppedError(signals.received) from error
        log.info("best mAP %.2f; checkpoints, log and TensorBoard events are in %s", 100 * run.best, run.folder.path)
    leave_processes()  # not after an error: it could wait for processes that no longer answer


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
