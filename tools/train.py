"""Train a person-search network: python -m tools.train --cfg configs/cuhk_sysu.yaml [--resume] [KEY VALUE ...]"""

import argparse
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from yacs.config import CfgNode

from datasets import PersonSearchDataset, build_train_loader
from engine.checkpoint import load_weights, read_checkpoint, save_checkpoint
from engine.damaged import DamagedImages
from engine.extraction import extract_features
from engine.features import Features
from engine.scoring import Setting, score_detection, score_search
from engine.solver import build_optimizer, build_scheduler, check_milestones, precision
from engine.trainer import StepSettings, new_scaler, train_one_epoch
from models import build_model
from tools.common import add_config_arguments, load_options, open_split, resolve_device, run_program, with_identities
from utils.distributed import (
    barrier,
    is_main,
    join_processes,
    leave_processes,
    rank,
    share_buffers,
    world_size,
)
from utils.files import write_json, write_text
from utils.logging import TensorBoard, set_up_logging
from utils.sheets import detection_sheet

log = logging.getLogger("train")

SHEET_IMAGES = 4
"""Gallery images whose detections are shown in TensorBoard."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.train", description=__doc__.partition(":")[0])
    parser.add_argument("--resume", action="store_true", help="go on from OUTPUT_DIR/last.pth; start anew without it")
    add_config_arguments(parser)
    return parser.parse_intermixed_args(argv)


@dataclass
class Splits:
    """The three splits of the dataset."""

    train: PersonSearchDataset
    gallery: PersonSearchDataset
    query: PersonSearchDataset


class Run:
    """One training run: its parts, where it stands, and its folder.

    Args:
        cfg: the options, MODEL.OIM.NUM_IDS filled in.
        splits: the dataset.
        device: where the network trains.
        checkpoint: what an interrupted run left, None for a new one.
    """

    def __init__(self, cfg: CfgNode, splits: Splits, device: torch.device, checkpoint: dict | None):
        self.cfg, self.splits, self.device = cfg, splits, device
        self.folder = Path(cfg.OUTPUT_DIR)
        self.model = build_model(cfg, pretrained=checkpoint is None).to(device)
        self.network = DistributedDataParallel(self.model) if world_size() > 1 else self.model
        batch, workers = cfg.INPUT.BATCH_SIZE_TRAIN, cfg.INPUT.NUM_WORKERS
        self.loader = build_train_loader(
            splits.train,
            batch,
            workers,
            cfg.SEED,
            rank(),
            world_size(),
            cfg.INPUT.FLIP_PROB,
            cfg.INPUT.DAMAGED_IMAGES,
        )
        self.damaged = DamagedImages()
        self.steps_per_epoch = -(-len(self.loader) // cfg.SOLVER.ACCUMULATE)
        self.settings = StepSettings(
            device,
            precision(cfg.SOLVER.AMP, "SOLVER.AMP"),
            cfg.SOLVER.ACCUMULATE,
            cfg.SOLVER.CLIP_GRADIENTS,
            cfg.DISP_PERIOD,
        )
        self.optimizer = build_optimizer(cfg, self.model, world_size())
        self.scheduler = build_scheduler(cfg, self.optimizer, self.steps_per_epoch)
        self.scaler = new_scaler(self.settings)
        self.epoch, self.best, self.evaluated = 0, -1.0, 0
        if checkpoint is not None:
            self._restore(checkpoint)
        self.board = TensorBoard(self.folder / "tensorboard", self.epoch * self.steps_per_epoch) if is_main() else None

    def _restore(self, checkpoint: dict) -> None:
        left_out = load_weights(self.model, checkpoint)
        if left_out:
            raise ValueError(f"{self.folder}: the run to resume has identity tables of another training set")
        self.optimizer.load_state_dict(checkpoint["optimizer"] | {"param_groups": self._fresh_groups(checkpoint)})
        self.scheduler.last_epoch = checkpoint["scheduler"]["last_epoch"]
        for group, factor in zip(self.optimizer.param_groups, self.scheduler.lr_lambdas, strict=True):
            group["lr"] = group["initial_lr"] * factor(self.scheduler.last_epoch)
        if checkpoint["scaler"]:  # empty where the interrupted run had none
            self.scaler.load_state_dict(checkpoint["scaler"])
        self.epoch, self.best, self.evaluated = (checkpoint[name] for name in ("epoch", "best", "evaluated"))

    def _fresh_groups(self, checkpoint: dict) -> list[dict]:
        """The optimiser's groups with today's rates and decays, which may differ from those of the checkpoint."""
        ours, theirs = self.optimizer.state_dict()["param_groups"], checkpoint["optimizer"]["param_groups"]
        return [group | {"params": stored["params"]} for group, stored in zip(ours, theirs, strict=True)]

    def _state(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "evaluated": self.evaluated,
            "config": self.cfg.dump(),
        }

    def train(self) -> None:
        """Train up to the last epoch, evaluating and saving as the options say."""
        self._evaluate_if_due()  # an interrupted run may have ended between an epoch and its evaluation
        while self.epoch < self.cfg.SOLVER.MAX_EPOCHS:
            self._train_epoch()
            share_buffers(self.model)
            self.epoch += 1
            if self._is_last() or self.epoch % self.cfg.CKPT_PERIOD == 0:
                self._save_last()
            self._evaluate_if_due()
            barrier()
        if self.board is not None:
            self.board.close()

    def _is_last(self) -> bool:
        return self.epoch == self.cfg.SOLVER.MAX_EPOCHS

    def _save_last(self) -> None:
        if is_main():
            save_checkpoint(self.folder / "last.pth", self._state())

    def _evaluate_if_due(self) -> None:
        """Evaluate after every EVAL_PERIOD epochs and after the last, once; the result goes into last.pth."""
        period = self.cfg.EVAL_PERIOD
        due = self._is_last() or (period and self.epoch and self.epoch % period == 0)
        if due and self.evaluated < self.epoch:
            self.evaluated = self.epoch
            self._evaluate()
            self._save_last()

    def _train_epoch(self) -> None:
        # Samples of anchors and RoIs depend on seed, epoch and process, not on what ran before: a resumed run draws
        # the same.
        torch.manual_seed((self.cfg.SEED * 100_003 + self.epoch) * 1_009 + rank())
        self.loader.batch_sampler.set_epoch(self.epoch)
        name = f"epoch {self.epoch + 1}/{self.cfg.SOLVER.MAX_EPOCHS}"
        start = monotonic()
        with tqdm(self.loader, desc=name, unit="batch", disable=not is_main(), leave=False) as batches:

            def report(losses: dict[str, float]) -> None:
                step = self.scheduler.last_epoch
                rate = self.scheduler.get_last_lr()[0]
                batches.set_postfix({n.removeprefix("loss_"): f"{v:.3f}" for n, v in losses.items()})
                log.info("%s step %d lr %.6f %s", name, step, rate, " ".join(f"{n} {v:.4f}" for n, v in losses.items()))
                if self.board is not None:
                    self.board.scalars("train", losses | {"learning_rate": rate}, step)

            watched = self.damaged.watch(batches)
            train_one_epoch(self.network, watched, self.optimizer, self.scheduler, self.scaler, self.settings, report)
        self.damaged.tell(name)
        log.info("%s took %.0f s, %.2f s a batch", name, monotonic() - start, (monotonic() - start) / len(self.loader))

    def _evaluate(self) -> None:
        cfg = self.cfg
        features = extract_features(
            self.model,
            self.splits.gallery,
            self.splits.query,
            device=self.device,
            batch_size=cfg.INPUT.BATCH_SIZE_TEST,
            num_workers=cfg.INPUT.NUM_WORKERS,
            amp=precision(cfg.EVAL.AMP, "EVAL.AMP"),
            compiled=cfg.EVAL.COMPILE,
        )
        if features is None:
            return
        setting = Setting(gallery_size=cfg.EVAL.GALLERY_SIZE or None, cross_camera=cfg.EVAL.CROSS_CAMERA)
        search = score_search(features, self.splits.gallery, self.splits.query, setting, cfg.EVAL.BLOCK_MB)
        detection = score_detection(features, self.splits.gallery, cfg.EVAL.DETECTION_SCORE_THRESH)
        metrics = search | {f"detection_{name}": float(value) for name, value in detection.items()}
        log.info("epoch %d: %s", self.epoch, " ".join(f"{name} {100 * value:.2f}" for name, value in metrics.items()))
        step = self.scheduler.last_epoch
        self.board.scalars("test", metrics, step)
        self.board.image("detections", _sheet(self.splits.gallery, features), step)
        write_json(self.folder / "metrics.json", {"epoch": self.epoch, **metrics})
        if search["mAP"] > self.best:
            self.best = search["mAP"]
            save_checkpoint(self.folder / "best.pth", self._state())


def _sheet(gallery_set: PersonSearchDataset, features: Features):
    shown = range(0, len(gallery_set), -(-len(gallery_set) // SHEET_IMAGES))
    pictures = [gallery_set.read_image(gallery_set.annotations[i]["img_path"]) for i in shown]
    dets = [features.gallery_dets[i] for i in shown]
    return detection_sheet(pictures, [d[:, :4] for d in dets], [d[:, 4] for d in dets])


def _checkpoint_to_resume(folder: Path, resume: bool) -> dict | None:
    last = folder / "last.pth"
    if not last.exists():
        return None
    if not resume:
        raise ValueError(f"{folder} holds a run already: go on with it (--resume), or choose another OUTPUT_DIR")
    return read_checkpoint(last)


def _check_options(cfg: CfgNode) -> None:
    """Refuse what would fail only in the first step, or after the first epoch."""
    check_milestones(cfg)
    for option in ("SOLVER", "EVAL"):
        precision(cfg[option].AMP, f"{option}.AMP")
    for option, value in (
        ("DISP_PERIOD", cfg.DISP_PERIOD),
        ("CKPT_PERIOD", cfg.CKPT_PERIOD),
        ("SOLVER.ACCUMULATE", cfg.SOLVER.ACCUMULATE),
    ):
        if value < 1:
            raise ValueError(f"{option} must be 1 or more, not {value}")
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


def main(args: argparse.Namespace) -> None:
    """Train as the arguments say."""
    cfg = load_options(args)
    _check_options(cfg)
    device = resolve_device(cfg.DEVICE)
    device = join_processes(device.type) or device
    try:
        folder = Path(cfg.OUTPUT_DIR)
        checkpoint = _checkpoint_to_resume(folder, args.resume)
        set_up_logging(folder / "log.txt" if is_main() else None, quiet=not is_main())  # warnings about the data too
        splits = Splits(*(open_split(cfg, split) for split in ("train", "gallery", "query")))
        next(iter(splits.query.galleries(splits.gallery, cfg.EVAL.GALLERY_SIZE or None, cfg.EVAL.CROSS_CAMERA)))
        cfg = with_identities(cfg, splits.train.num_identities)
        torch.manual_seed(cfg.SEED)
        if cfg.DETERMINISTIC:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic cuBLAS asks for
            torch.use_deterministic_algorithms(True)
        run = Run(cfg, splits, device, checkpoint)
        if is_main():
            _tell_changed_options(checkpoint, cfg)
            write_text(folder / "config.yaml", cfg.dump())
        log.info(
            "%s: %d training images, %d identities; %d processes on %s; from epoch %d",
            cfg.INPUT.DATASET,
            len(splits.train),
            splits.train.num_identities,
            world_size(),
            device.type,
            run.epoch + 1,
        )
        run.train()
        log.info("best mAP %.2f; checkpoints, log and TensorBoard events are in %s", 100 * run.best, folder)
    finally:
        leave_processes()


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
