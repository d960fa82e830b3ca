"""A training run, as the options describe it: from the newest checkpoint, or from scratch, to the last epoch."""

import logging
import math
import os
from functools import partial
from pathlib import Path
from time import monotonic

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from yacs.config import CfgNode

from datasets import open_split
from datasets.build import build_augmentation, open_training
from datasets.training import build_train_loader
from engine.averaging import WeightAverage
from engine.checkpoint import load_weights
from engine.feature_files import Features
from engine.features import extract_features
from engine.networks import search_settings
from engine.run_folder import RunFolder
from engine.run_state import RunState
from engine.scoring import Setting, check_galleries, score_search
from engine.searcher import Searcher
from engine.skipped_samples import SkippedSamples
from engine.solver import build_optimizer, build_schedule, precision
from engine.train import Progress, TrainSettings, train_one_epoch
from models import build_model
from models.fast import accelerate
from models.image_memory import memory_of
from utils.distributed import all_cores, any_process, barrier, from_main, is_main, rank, share_buffers, world_size
from utils.errors import UserError
from utils.evaluation import evaluate_detection
from utils.files import remove_parts, write_json, write_text
from utils.images import read_image
from utils.logging import log_to_file
from utils.options import changed_options
from utils.signals import StoppedError, StopSignals

log = logging.getLogger(__name__)


class TrainingRun:
    """Builds network, optimiser and loaders from the options, trains, evaluates and saves checkpoints.

    Nothing is written before `train`.

    Args:
        cfg: the options; MODEL.OIM.NUM_IDS 0 becomes the training set's number of identities.
        device: where the network trains.
        signals: the signals that stop the run.
        resume: continue from the newest checkpoint in OUTPUT_DIR; from scratch where there is none.

    Raises:
        UserError, OSError: an option, the dataset or the checkpoint is wrong, or OUTPUT_DIR holds another run.
    """

    def __init__(self, cfg: CfgNode, device: torch.device, signals: StopSignals, resume: bool = False):
        self.signals, self.device = signals, device
        self.folder = RunFolder(Path(cfg.OUTPUT_DIR), cfg.CKPT_KEEP)
        checkpoint, path = from_main(partial(_find_checkpoint, self.folder, resume))
        self.train_set = open_training(cfg)
        self.gallery_set, self.query_set = (open_split(cfg, split) for split in ("gallery", "query"))
        self.cfg = _with_identities(cfg, self.train_set.num_identities)
        self.setting = Setting(gallery_size=cfg.EVAL.GALLERY_SIZE or None, cross_camera=cfg.EVAL.CROSS_CAMERA)
        check_galleries([self.setting], self.gallery_set, self.query_set)
        if cfg.DETERMINISTIC:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first call of cuBLAS
            torch.use_deterministic_algorithms(True)  # before `accelerate`, which chooses replacements by it
        torch.manual_seed(cfg.SEED)
        start = cfg.SOLVER.INIT_WEIGHTS if checkpoint is None else ""
        model = build_model(self.cfg, pretrained=checkpoint is None and not start)
        if start:
            load_weights(model, start)
            log.info("starting from the weights of %s", start)
        self.model = accelerate(model.to(device))
        if world_size() > 1 and memory_of(self.model) is not None:
            raise UserError(
                "MODEL.FILTER.POSITIVES and NEGATIVES draw from what a single process remembers: train in one process, "
                "or set both to 0"
            )
        self.loader = self._build_loader()
        self.settings = self._build_settings()
        self.progress = Progress(math.ceil(len(self.loader) / cfg.SOLVER.ACCUMULATE))
        self.optimizer = build_optimizer(cfg, self.model, world_size())
        self.schedule = build_schedule(cfg, self.progress.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.settings.amp is torch.float16)
        self.samples = SkippedSamples()
        self.average = WeightAverage(self.model, cfg.SOLVER.EMA) if cfg.SOLVER.EMA else None
        self.state = RunState(self.model, self.optimizer, self.scaler, self.progress, self.average)
        if checkpoint is not None:
            self._restore(checkpoint, path)
        self.network = DistributedDataParallel(self.model) if world_size() > 1 else self.model
        self.board: SummaryWriter | None = None
        self._saved_at = monotonic()

    def _build_loader(self) -> torch.utils.data.DataLoader:
        inputs = self.cfg.INPUT
        return build_train_loader(
            self.train_set,
            batch_size=inputs.BATCH_SIZE_TRAIN,
            num_workers=inputs.NUM_WORKERS,
            seed=self.cfg.SEED,
            rank=rank(),
            world_size=world_size(),
            augmentation=build_augmentation(self.cfg),
            same_orientation=inputs.SAME_ORIENTATION,
            damaged=inputs.DAMAGED_IMAGES,
            pin_memory=self.device.type == "cuda",
        )

    def _build_settings(self) -> TrainSettings:
        solver = self.cfg.SOLVER
        return TrainSettings(
            device=self.device,
            amp=precision(solver.AMP, "SOLVER.AMP"),
            accumulate=solver.ACCUMULATE,
            max_grad_norm=solver.CLIP_GRADIENTS,
            log_every=self.cfg.DISP_PERIOD,
            max_skipped=solver.MAX_SKIPPED,
            seed=self.cfg.SEED,
        )

    def _restore(self, checkpoint: dict, path: Path) -> None:
        self.state.restore(checkpoint, path)
        log.info("resumed from %s", path)
        if changed := changed_options(checkpoint.get("config", ""), str(path), self.cfg):
            log.warning("options differ from those in %s: %s", path, "; ".join(changed))

    def train(self) -> None:
        """Train up to the last epoch, evaluating and saving as the options say; of a finished run nothing is changed.

        Raises:
            StoppedError: a signal stopped the run; the newest checkpoint holds all that was done.
            DivergedError: see `train_one_epoch`.
        """
        done, epochs = self.progress.epoch, self.cfg.SOLVER.MAX_EPOCHS
        if done >= epochs and not self._evaluation_is_due():
            log.info("the run is finished, %d of %d epochs: nothing is trained or written", done, epochs)
            return
        if is_main():
            self._open_folder()
        self._evaluate_if_due()  # a run may have been interrupted between an epoch and its evaluation
        while self.progress.epoch < epochs:
            self._train_epoch()
            share_buffers(self.model)
            share_buffers(self.state.searched)
            self.progress.epoch, self.progress.step = self.progress.epoch + 1, 0
            if self._evaluation_is_due() or self.progress.epoch % self.cfg.CKPT_PERIOD == 0:
                self._save()
            self._evaluate_if_due()
            barrier()
        if self.board is not None:
            self.board.close()

    def _open_folder(self) -> None:
        """Open log and TensorBoard files: nothing that makes a run impossible comes after this."""
        log_to_file(self.folder.path / "log.txt")
        remove_parts(self.folder.path)
        self.folder.rename_damaged()
        for part in self.train_set.datasets:
            log.info("%s: %d training images, %d identities", part.name, len(part), part.num_identities)
        processes = "1 process" if world_size() == 1 else f"{world_size()} processes"
        done = self.progress.epoch, self.cfg.SOLVER.MAX_EPOCHS, self.progress.step
        log.info("%s on %s; done: %d of %d epochs, and %d steps", processes, self.device, *done)
        self.board = SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self.progress.total_steps + 1)
        write_text(self.folder.path / "config.yaml", self.cfg.dump())

    def _train_epoch(self) -> None:
        start, sampler = monotonic(), self.loader.batch_sampler
        sampler.set_epoch(self.progress.epoch, self.progress.step * self.cfg.SOLVER.ACCUMULATE)
        name, done, total = (
            f"epoch {self.progress.epoch + 1} of {self.cfg.SOLVER.MAX_EPOCHS}",
            sampler.start_batch,
            len(self.loader),
        )
        batches = self.samples.counted(self.loader)
        train_one_epoch(
            self.network,
            tqdm(batches, desc=name, total=total, initial=done, leave=False, disable=None if is_main() else True),
            self.optimizer,
            self.schedule,
            self.scaler,
            self.progress,
            self.settings,
            board=self.board,
            after_step=self._after_step,
        )
        self.samples.finish_epoch(self.progress.epoch + 1)
        seconds = monotonic() - start
        log.info("%s took %.0f s, %.2f s a batch", name, seconds, seconds / max(total - done, 1))

    def _after_step(self) -> None:
        """Stop if a process received a signal; save before that, and when CKPT_MINUTES have passed."""
        if self.average is not None and not self.progress.skipped_in_a_row:
            self.average.update(self.progress.total_steps - self.progress.skipped)
        due = self.cfg.CKPT_MINUTES and monotonic() - self._saved_at >= 60 * self.cfg.CKPT_MINUTES
        stop, save = any_process(self.signals.received is not None, bool(due))
        if stop or save:
            self._save()
        if stop:
            barrier()  # the first process to end has torchrun end the others
            raise StoppedError(self.signals.received or "another process")

    def _save(self) -> None:
        if is_main():
            self.folder.save(self._checkpoint())
        self._saved_at = monotonic()

    def _checkpoint(self) -> dict:
        if self.board is not None:
            self.board.flush()
        return self.state.state_dict() | {"config": self.cfg.dump()}

    def _evaluation_is_due(self) -> bool:
        """Whether the last epoch, or EVAL_PERIOD epochs, are done and not yet evaluated."""
        epoch, period = self.progress.epoch, self.cfg.EVAL_PERIOD
        last = epoch == self.cfg.SOLVER.MAX_EPOCHS
        regular = period > 0 and epoch % period == 0 and self.progress.step == 0
        return (last or regular) and self.progress.evaluated < epoch

    def _evaluate_if_due(self) -> None:
        if not self._evaluation_is_due():
            return
        self.progress.evaluated = self.progress.epoch
        with self.signals.stopping_at_once():  # the training up to here is saved
            searcher = Searcher(self.state.searched, self.device, read=read_image, **search_settings(self.cfg))
            features = extract_features(searcher, self.gallery_set, self.query_set)
            mean_ap = from_main(partial(self._score, features))
        if mean_ap > self.progress.best:
            self.progress.best = mean_ap
            if is_main():
                self.folder.save_best(self._checkpoint())
        self._save()

    def _score(self, features: Features) -> float:
        """Score an evaluation, log and write the scores; the search mAP."""
        with all_cores():
            score_thresh, block_mb = self.cfg.MODEL.GALLERY_SCORE_THRESH, self.cfg.EVAL.BLOCK_MB
            search = score_search(features, self.gallery_set, self.query_set, self.setting, score_thresh, block_mb)
            detection = evaluate_detection(
                self.gallery_set, features.gallery_dets, self.cfg.EVAL.DETECTION_SCORE_THRESH
            )
        metrics = search | {f"detection_{name}": float(value) for name, value in detection.items()}
        epoch, step = self.progress.epoch, self.progress.total_steps
        log.info("epoch %d: %s", epoch, " ".join(f"{name} {100 * value:.2f}" for name, value in metrics.items()))
        for name, value in metrics.items():
            self.board.add_scalar(f"test/{name}", value, step)
        write_json(self.folder.path / "metrics.json", {"epoch": epoch, **metrics})
        return search["mAP"]


def _find_checkpoint(folder: RunFolder, resume: bool) -> tuple[dict, Path] | tuple[None, None]:
    """The newest undamaged checkpoint and its path, if there is one."""
    if not folder.checkpoints():
        return None, None
    if not resume:
        raise UserError(f"{folder.path} holds a run already: continue it (--resume), or choose another OUTPUT_DIR")
    return folder.newest()


def _with_identities(cfg: CfgNode, num_identities: int) -> CfgNode:
    """The options with MODEL.OIM.NUM_IDS filled in from the training set where it is 0."""
    configured = cfg.MODEL.OIM.NUM_IDS
    if configured and configured < num_identities:
        raise UserError(
            f"MODEL.OIM.NUM_IDS is {configured}, but the training set has {num_identities} identities; 0 fits it"
        )
    filled = cfg.clone()
    filled.merge_from_list(["MODEL.OIM.NUM_IDS", configured or num_identities])
    return filled
