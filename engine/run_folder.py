"""The checkpoints in the folder of a training run."""

import logging
import re
from pathlib import Path

from engine.checkpoint import read_checkpoint, save_checkpoint
from utils.errors import UserError

log = logging.getLogger(__name__)


class RunFolder:
    """Numbered checkpoints: `last.pth` is the newest, `last.1.pth` the one before; and `best.pth`.

    Args:
        path: the folder, made when something is written.
        keep: how many of the newest checkpoints stay.
    """

    def __init__(self, path: Path, keep: int):
        self.path, self.keep = path, keep
        self._damaged: dict[Path, str] = {}  # checkpoints and their faults

    def checkpoints(self) -> list[Path]:
        """The existing checkpoints, newest first, the best one at the end."""
        best = self.path / "best.pth"
        return [path for _, path in sorted(self._numbered().items())] + [best] * best.is_file()

    def newest(self) -> tuple[dict, Path]:
        """The newest undamaged checkpoint, and its path.

        Raises:
            FileNotFoundError: there is no checkpoint.
            OSError: one cannot be opened.
            UserError: all are damaged.
        """
        self._damaged = {}
        for path in self.checkpoints():
            try:
                return read_checkpoint(path), path
            except UserError as error:
                self._damaged[path] = str(error)
        if not self._damaged:
            raise FileNotFoundError(f"no checkpoint in {self.path}")
        faults = "; ".join(self._damaged.values())
        raise UserError(f"every checkpoint in {self.path} is damaged, train again in another folder: {faults}")

    def rename_damaged(self) -> None:
        """Rename the damaged checkpoints that `newest` found to NAME.damaged, with a warning."""
        for path, fault in self._damaged.items():
            renamed = path.replace(path.with_name(f"{path.name}.damaged"))
            log.warning("%s; renamed to %s, and an older checkpoint is taken", fault, renamed.name)

    def save(self, state: dict) -> None:
        """Save a state as the newest checkpoint; OSError if it cannot be written, and then the others are unchanged."""
        new = self.path / "last.pth.new"
        save_checkpoint(new, state)
        older = [path for _, path in sorted(self._numbered().items())]
        for number, path in reversed(list(enumerate(older, start=1))):  # the oldest first, so that a crash loses none
            path.replace(self.path / f"last.{number}.pth")
        new.replace(self.path / "last.pth")
        for _, path in sorted(self._numbered().items())[self.keep :]:
            path.unlink()

    def save_best(self, state: dict) -> None:
        """Save a state as the best checkpoint; errors as in `save`."""
        save_checkpoint(self.path / "best.pth", state)

    def _numbered(self) -> dict[int, Path]:
        """last.pth as 0, last.1.pth as 1 and so on."""
        matches = {path: re.fullmatch(r"last(?:\.([1-9]\d*))?\.pth", path.name) for path in self.path.glob("last*.pth")}
        return {int(match[1] or 0): path for path, match in matches.items() if match}
