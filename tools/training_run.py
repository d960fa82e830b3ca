"""One training run: what it is made of, where it stands, and what it does at each step and epoch."""

import logging
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from time import monotonic

import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from yacs.config import CfgNode

from datasets import PersonSearchDataset, build_train_loader
from engine.checkpoint import load_weights
from engine.damaged import DamagedImages
from engine.extraction import extract_features
from engine.features import Features
from engine.run_folder import RunFolder
from engine.scoring import Setting, score_detection, score_search
from engine.skips import Skip
from engine.solver import build_optimizer, build_scheduler, lay_out_momentum, precision
from engine.trainer import Batch, StepSettings, Trainer, new_scaler
from models import build_model
from models.fast import accelerate
from tools.common import Splits
from utils.distributed import any_process, barrier, is_main, rank, share_buffers, world_size
from utils.files import write_json
from utils.logging import TensorBoard
from utils.sheets import detection_sheet
from utils.signals import StoppedError, StopSignals

log = logging.getLogger("train")

SHEET_IMAGES = 4
"""Gallery images whose detections are shown in TensorBoard."""
STATE = {
    **dict.fromkeys(("model", "optimizer", "scheduler", "scaler", "since_report", "damaged", "files"), dict),
    **dict.fromkeys(("epoch", "step", "steps_per_epoch", "evaluated"), int),
    "best": float,
    "config": str,
}
"""What a checkpoint to go on from holds, and of which type."""


class Run:
    """One training run: its parts, where it stands, and its folder.

    Where it stands is `epoch` (epochs done), `step` (optimiser steps done of the next one), `evaluated` (epochs done at
    the last evaluation) and `best` (highest search mAP so far).

    Args:
        cfg: the options, MODEL.OIM.NUM_IDS filled in.
        splits: the dataset.
        device: where the network trains.
        folder: where it writes.
        signals: what asks it to stop.
        checkpoint: what an interrupted run left, with all of STATE; None for a new one.
        path: the file that it was read from.
    """

    def __init__(
        self,
        cfg: CfgNode,
        splits: Splits,
        device: torch.device,
        folder: RunFolder,
        signals: StopSignals,
        checkpoint: dict | None,
        path: Path | None,
    ):
        self.cfg, self.splits, self.device, self.folder, self.signals = cfg, splits, device, folder, signals
        self.model = accelerate(build_model(cfg, pretrained=checkpoint is None).to(device))
        self.loader = build_train_loader(
            splits.train,
            cfg.INPUT.BATCH_SIZE_TRAIN,
            cfg.INPUT.NUM_WORKERS,
            cfg.SEED,
            rank(),
            world_size(),
            cfg.INPUT.FLIP_PROB,
            cfg.INPUT.DAMAGED_IMAGES,
        )
        self.damaged = DamagedImages()
        self.steps_per_epoch = -(-len(self.loader) // cfg.SOLVER.ACCUMULATE)
        self.trainer = self._trainer()
        self.epoch, self.step, self.evaluated, self.best = 0, 0, 0, -1.0
        if checkpoint is not None:
            self._restore(checkpoint, path)
        self._saved = self._place()
        self._saved_at = monotonic()
        self.board: TensorBoard | None = None

    def open_board(self) -> None:
        """Begin to write events, which goes on from where the checkpoint was; of the main process alone."""
        self.board = TensorBoard(self.folder.events, self.trainer.scheduler.last_epoch + 1)

    def _trainer(self) -> Trainer:
        cfg = self.cfg
        settings = StepSettings(
            device=self.device,
            amp=precision(cfg.SOLVER.AMP, "SOLVER.AMP"),
            accumulate=cfg.SOLVER.ACCUMULATE,
            clip=cfg.SOLVER.CLIP_GRADIENTS,
            report_every=cfg.DISP_PERIOD,
            max_skipped=cfg.SOLVER.MAX_SKIPPED,
            seed=cfg.SEED,
        )
        network = DistributedDataParallel(self.model) if world_size() > 1 else self.model
        optimizer = build_optimizer(cfg, self.model, world_size())
        scheduler = build_scheduler(cfg, optimizer, self.steps_per_epoch)
        return Trainer(network, optimizer, scheduler, new_scaler(settings), settings, self._image_names, self._report)

    def _restore(self, checkpoint: dict, path: Path) -> None:
        left_out = load_weights(self.model, checkpoint, str(path))
        if left_out:
            raise ValueError(f"{path}: the run to resume has identity tables of another training set")
        try:
            self._restore_progress(checkpoint)
        except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path} does not fit the training that the options describe ({type(error).__name__}: {error}): give "
                "the options that it had, or choose another OUTPUT_DIR"
            ) from error
        before = checkpoint["steps_per_epoch"]
        if before != self.steps_per_epoch:  # the learning rate's milestones would shift, or the place in the epoch
            raise ValueError(
                f"{path}: the run to resume stopped after {self.step} of {before} steps of an epoch, "
                f"which now has {self.steps_per_epoch}: give the options and the number of processes that it had"
            )

    def _restore_progress(self, checkpoint: dict) -> None:
        optimizer, scheduler, scaler = self.trainer.optimizer, self.trainer.scheduler, self.trainer.scaler
        optimizer.load_state_dict(checkpoint["optimizer"] | {"param_groups": self._fresh_groups(checkpoint)})
        lay_out_momentum(optimizer)
        done, base_rates = checkpoint["scheduler"]["last_epoch"], scheduler.base_lrs
        rates = [base * factor(done) for base, factor in zip(base_rates, scheduler.lr_lambdas, strict=True)]
        scheduler.load_state_dict(checkpoint["scheduler"] | {"base_lrs": base_rates, "_last_lr": rates})
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if checkpoint["scaler"]:  # empty where the interrupted run had none
            scaler.load_state_dict(checkpoint["scaler"])
        self.epoch, self.best, self.evaluated = (checkpoint[name] for name in ("epoch", "best", "evaluated"))
        self.step = checkpoint["step"]
        self.trainer.load_since_report(checkpoint["since_report"])
        if is_main():  # whose it is
            self.damaged.load_state_dict(checkpoint["damaged"])

    def _fresh_groups(self, checkpoint: dict) -> list[dict]:
        """The optimiser's groups with today's rates and decays, which may differ from those of the checkpoint."""
        ours, theirs = self.trainer.optimizer.state_dict()["param_groups"], checkpoint["optimizer"]["param_groups"]
        return [group | {"params": stored["params"]} for group, stored in zip(ours, theirs, strict=True)]

    def _state(self) -> dict:
        self.board.flush()  # for the sizes of the files, which become part of the checkpoint
        place = {name: getattr(self, name) for name in ("epoch", "step", "best", "evaluated", "steps_per_epoch")}
        own = {"model": self.model.state_dict(), "damaged": self.damaged.state_dict(), "config": self.cfg.dump()}
        return own | self.trainer.state_dict() | place

    def _place(self) -> tuple[int, int, int]:
        return self.epoch, self.step, self.evaluated

    def train(self) -> None:
        """Train up to the last epoch, evaluating and saving as the options say.

        Raises:
            StoppedError: a signal asked to stop; the newest checkpoint holds all that was done.
            DivergedError: see `Trainer.report`.
        """
        self._evaluate_if_due()  # an interrupted run may have ended between an epoch and its evaluation
        while self.epoch < self.cfg.SOLVER.MAX_EPOCHS:
            self._train_epoch()
            share_buffers(self.model)
            self.epoch, self.step = self.epoch + 1, 0
            if self._is_last() or self._evaluation_is_due() or self.epoch % self.cfg.CKPT_PERIOD == 0:
                self._save()
            self._evaluate_if_due()
            barrier()
        if self.board is not None:
            self.board.close()

    def _is_last(self) -> bool:
        return self.epoch == self.cfg.SOLVER.MAX_EPOCHS

    def _save(self) -> None:
        if is_main() and self._saved != self._place():
            self.folder.save(self._state())
        self._saved, self._saved_at = self._place(), monotonic()

    def _stop_or_save_if_asked(self) -> None:
        """Between two steps: stop where a signal asked any process to, or save where that is due."""
        if any_process(self.signals.received is not None):
            self._save()
            barrier()  # the first process to end has torchrun end the others
            raise StoppedError(self.signals.received or "another process")
        if self.cfg.CKPT_MINUTES and monotonic() - self._saved_at >= 60 * self.cfg.CKPT_MINUTES:
            self._save()

    def _evaluation_is_due(self) -> bool:
        """After every EVAL_PERIOD epochs and after the last, once."""
        period = self.cfg.EVAL_PERIOD
        due = self._is_last() or (period and self.epoch and self.epoch % period == 0 and not self.step)
        return bool(due) and self.evaluated < self.epoch

    def _evaluate_if_due(self) -> None:
        if self._evaluation_is_due():
            self.evaluated = self.epoch
            self._evaluate()
            self._save()

    def _train_epoch(self) -> None:
        self.loader.batch_sampler.set_epoch(self.epoch, self.step * self.cfg.SOLVER.ACCUMULATE)
        start, first = monotonic(), self.step
        done = min(self.loader.batch_sampler.start_batch, len(self.loader))
        with tqdm(
            total=len(self.loader),
            initial=done,
            desc=self._epoch_name(),
            unit="batch",
            disable=not is_main(),
            leave=False,
        ) as self._bar:
            for step in self.trainer.steps(self._batches(), self.epoch, first):
                self.step = step
                self.damaged.settle((step - first) * self.cfg.SOLVER.ACCUMULATE)
                self._stop_or_save_if_asked()
            self.trainer.report()
        self.damaged.tell(self._epoch_name())
        seconds = monotonic() - start
        each = seconds / max(len(self.loader) - done, 1)
        log.info("%s took %.0f s, %.2f s a batch", self._epoch_name(), seconds, each)

    def _batches(self) -> Iterator[Batch]:
        for batch in self.damaged.watch(self.loader):
            yield batch
            self._bar.update()

    def _epoch_name(self) -> str:
        return f"epoch {self.epoch + 1}/{self.cfg.SOLVER.MAX_EPOCHS}"

    def _image_names(self, batch: int, process: int) -> list[str]:
        """Names of the images of a batch of this epoch in a process."""
        sampler = copy(self.loader.batch_sampler)
        sampler.rank = process
        sampler.set_epoch(self.epoch, batch)
        return [self.splits.train.annotations[key.index]["img_name"] for key in next(iter(sampler), [])]

    def _report(self, losses: dict[str, float], skips: list[Skip]) -> None:
        name, count = self._epoch_name(), self.trainer.skips.total
        for number, skip in enumerate(skips, start=count - len(skips) + 1):
            log.warning("%s: step %d of it left out (%d so far): %s", name, skip.step + 1, number, skip.reason())
        if not losses:
            return
        scheduler = self.trainer.scheduler
        step = scheduler.last_epoch
        rate = scheduler.base_lrs[0] * scheduler.lr_lambdas[0](step - 1)  # the last step's: the scheduler is one ahead
        self._bar.set_postfix({n.removeprefix("loss_"): f"{v:.3f}" for n, v in losses.items()})
        log.info("%s step %d lr %.6f %s", name, step, rate, " ".join(f"{n} {v:.4f}" for n, v in losses.items()))
        if self.board is not None:
            self.board.scalars("train", losses | {"learning_rate": rate}, step)

    def _evaluate(self) -> None:
        cfg = self.cfg
        with self.signals.stopping_at_once():  # what leads here is saved
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
            sheet = _sheet(self.splits.gallery, features)
        metrics = search | {f"detection_{name}": float(value) for name, value in detection.items()}
        log.info("epoch %d: %s", self.epoch, " ".join(f"{name} {100 * value:.2f}" for name, value in metrics.items()))
        step = self.trainer.scheduler.last_epoch
        self.board.scalars("test", metrics, step)
        self.board.image("detections", sheet, step)
        write_json(self.folder.path / "metrics.json", {"epoch": self.epoch, **metrics})
        if search["mAP"] > self.best:
            self.best = search["mAP"]
            self.folder.save_best(self._state())


def _sheet(gallery_set: PersonSearchDataset, features: Features):
    shown = range(0, len(gallery_set), -(-len(gallery_set) // SHEET_IMAGES))
    pictures = [gallery_set.read_image(gallery_set.annotations[i]["img_path"]) for i in shown]
    dets = [features.gallery_dets[i] for i in shown]
    return detection_sheet(pictures, [d[:, :4] for d in dets], [d[:, 4] for d in dets])
