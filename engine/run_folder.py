"""The folder of a training run: its checkpoints, newest first, and how far its log had come at each."""

import logging
import re
from pathlib import Path

from engine.checkpoint import read_checkpoint, save_checkpoint
from utils.files import remove_parts

log = logging.getLogger(__name__)

_LAST = re.compile(r"last(?:\.([1-9]\d*))?\.pth")


class RunFolder:
    """Checkpoints and growing files of a run.

    `last.pth` is the newest checkpoint, `last.1.pth` the one before, and so on; `best.pth` is replaced when the caller
    says so. Log and TensorBoard events grow: a checkpoint holds how long they were (`files`), so that a run that goes
    on from it can cut off what came later and will be written again.

    Args:
        path: the folder, made when something is written.
        keep: how many of the newest checkpoints stay.
    """

    def __init__(self, path: Path, keep: int):
        self.path, self._keep = path, keep
        self.log, self.events = path / "log.txt", path / "tensorboard"

    def checkpoints(self) -> list[Path]:
        """The checkpoints there are, newest first; the best one, which is older than the newest, comes last."""
        numbered = {path: _number(path) for path in self.path.glob("last*.pth")}
        newest = sorted((path for path, number in numbered.items() if number is not None), key=numbered.get)
        best = self.path / "best.pth"
        return newest + [best] * best.is_file()

    def newest(self) -> tuple[dict, Path, dict[Path, str]]:
        """The newest checkpoint that is whole, and its path; the newer ones that are damaged, and what is wrong there.

        Raises:
            FileNotFoundError: there is no checkpoint.
            OSError: one cannot be opened.
            ValueError: there are some, but none is whole.
        """
        faults = {}
        for path in self.checkpoints():
            try:
                return read_checkpoint(path), path, faults
            except ValueError as error:
                faults[path] = str(error)
        if not faults:
            raise FileNotFoundError(f"no checkpoint in {self.path}")
        raise ValueError(
            f"no checkpoint in {self.path} is whole, start anew in another folder: {'; '.join(faults.values())}"
        )

    def set_aside(self, faults: dict[Path, str]) -> None:
        """Rename damaged checkpoints to NAME.damaged, with a warning: they do not take the place of whole ones."""
        for path, fault in faults.items():
            aside = path.replace(path.with_name(f"{path.name}.damaged"))
            log.warning("%s; passed over for the one before it and renamed to %s", fault, aside.name)

    def save(self, state: dict) -> None:
        """Make a state the newest checkpoint.

        Raises:
            OSError: it cannot be written; the checkpoints stay as they were.
        """
        save_checkpoint(self.path / "last.pth", self._with_sizes(state), make_way=self._move_on)
        for path in self.path.glob("last*.pth"):
            if (_number(path) or 0) >= self._keep:
                path.unlink()

    def save_best(self, state: dict) -> None:
        """Make a state the best checkpoint; errors as `save`."""
        save_checkpoint(self.path / "best.pth", self._with_sizes(state))

    def cut_back(self, checkpoint: dict | None) -> None:
        """Make log and events as long as they were at a checkpoint (None: empty), and remove half files.

        To be called before they are opened.
        """
        if not self.path.is_dir():
            return
        sizes = {} if checkpoint is None else checkpoint["files"]
        remove_parts(self.path)
        for path in self._growing():
            size = sizes.get(self._name(path), 0)
            if not size:
                path.unlink()
            elif size < path.stat().st_size:
                with path.open("r+b") as file:
                    file.truncate(size)

    def _with_sizes(self, state: dict) -> dict:
        return state | {"files": {self._name(path): path.stat().st_size for path in self._growing()}}

    def _growing(self) -> list[Path]:
        return [path for path in (self.log, *sorted(self.events.glob("events.out.tfevents.*"))) if path.is_file()]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _move_on(self) -> None:
        """Rename each of the newest checkpoints to the next number, the oldest first, so that none is ever lost."""
        numbered = {_number(path): path for path in self.path.glob("last*.pth")}
        row = []
        while len(row) in numbered:  # beyond a gap nothing has to move
            row.append(numbered[len(row)])
        for number, path in reversed(list(enumerate(row))):
            path.replace(self.path / f"last.{number + 1}.pth")


def _number(path: Path) -> int | None:
    """0 for last.pth, 1 for last.1.pth and so on; None for other files."""
    match = _LAST.fullmatch(path.name)
    return int(match[1] or 0) if match else None
