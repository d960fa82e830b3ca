"""What a checkpoint of a training run holds besides the options, and how a run continues from it."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.optim import Optimizer

from engine.averaging import WeightAverage
from engine.checkpoint import load_weights
from engine.train import Progress
from models.base import PersonSearchModel
from models.image_memory import memory_of
from utils.errors import UserError

MOMENTA = {"momentum", "betas"}
"""Settings of an optimiser's parameter groups that tell SGD from Adam."""


@dataclass
class RunState:
    """All that a training run changes.

    Attributes:
        model: the network that learns.
        optimizer, scaler, progress: its optimiser, the loss scaling of float16 and the place in the run.
        average: the average of its weights, where there is one.
    """

    model: PersonSearchModel
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    average: WeightAverage | None = None

    @property
    def searched(self) -> PersonSearchModel:
        """The network that is evaluated, and which checkpoints hold as `model`."""
        return self.model if self.average is None else self.average.model

    def state_dict(self) -> dict:
        """The entries of a checkpoint; see engine/README.md."""
        state = {name: getattr(self, name).state_dict() for name in ("optimizer", "scaler")}
        state["model"] = self.searched.state_dict()
        if self.average is not None:
            state["trained"] = self.model.state_dict()
        if (memory := memory_of(self.model)) is not None:
            state["image_memory"] = memory.packed()
        return state | asdict(self.progress)

    def restore(self, checkpoint: dict, path: Path) -> None:
        """Continue from a checkpoint, but with the present learning rates and weight decays.

        Raises:
            UserError: it does not fit the network, the optimiser or the training set.
        """
        trained = checkpoint | {"model": checkpoint["trained"]} if "trained" in checkpoint else checkpoint
        if load_weights(self.model, trained, str(path)):
            raise UserError(f"{path}: the run to resume has identity tables of another training set")
        if self.average is not None:
            load_weights(self.average.model, checkpoint, str(path))
        steps_per_epoch = self.progress.steps_per_epoch
        try:
            present, saved = self.optimizer.state_dict()["param_groups"], checkpoint["optimizer"]["param_groups"]
            if [old.keys() & MOMENTA for old in saved] != [new.keys() & MOMENTA for new in present]:
                raise ValueError("another SOLVER.OPTIMIZER, or SOLVER options that group parameters otherwise")
            groups = [new | {"params": old["params"], "lr": old["lr"]} for new, old in zip(present, saved, strict=True)]
            self.optimizer.load_state_dict(checkpoint["optimizer"] | {"param_groups": groups})
            if checkpoint["scaler"]:  # empty where the run was not in float16
                self.scaler.load_state_dict(checkpoint["scaler"])
            self.progress.load_state_dict(checkpoint)
            if (memory := memory_of(self.model)) is not None:
                memory.unpack(checkpoint.get("image_memory", {}))
        except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{path} does not fit the training that the options describe ({type(error).__name__}: {error}): give "
                "the options that it had, or choose another OUTPUT_DIR"
            ) from error
        if self.progress.steps_per_epoch != steps_per_epoch:  # milestones and the place in the epoch would shift
            raise UserError(
                f"{path}: the run to resume stopped after {self.progress.step} of {self.progress.steps_per_epoch} "
                f"steps of an epoch, which now has {steps_per_epoch}: give the options and the number of processes "
                "that it had"
            )
