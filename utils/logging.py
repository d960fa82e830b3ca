"""What a run says: a log on screen and in a file, TensorBoard events, and averages of losses."""

import logging
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class _StrictFileHandler(logging.FileHandler):
    """A log file that does not go on without the lines that it could not write."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002 (logging's own name and arguments)
        with _naming(Path(self.baseFilename)):
            raise


class _TqdmHandler(logging.StreamHandler):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def set_up_logging(file: Path | None = None, quiet: bool = False) -> None:
    """Send the log of the whole program to the screen and to `file` (appended to).

    A line that cannot be written to the file, as on a full disk, raises OSError where it is logged.

    Args:
        file: log file, its folder is made if missing; None for the screen alone.
        quiet: only warnings on the screen (for processes beside the main one).
    """
    screen = _TqdmHandler()
    screen.setLevel(logging.WARNING if quiet else logging.INFO)
    handlers: list[logging.Handler] = [screen]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_StrictFileHandler(file, encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format=FORMAT, datefmt="%Y-%m-%d %H:%M:%S", handlers=handlers, force=True)
    logging.captureWarnings(True)


@contextmanager
def remembering() -> Iterator[list[logging.LogRecord]]:
    """Gives what is logged inside, for a file that is opened later (`write_to_file`)."""
    records: list[logging.LogRecord] = []
    keeper = logging.Handler(logging.INFO)
    keeper.emit = records.append
    logging.getLogger().addHandler(keeper)
    try:
        yield records
    finally:
        logging.getLogger().removeHandler(keeper)


def write_to_file(records: list[logging.LogRecord]) -> None:
    """Write what was logged before the log file was open to it, and not to the screen again."""
    for handler in _files():
        for record in records:
            handler.handle(record)


def _files() -> list[_StrictFileHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _StrictFileHandler)]


class LossAverages:
    """Averages of losses, summed on their device: reading them is the only wait for it."""

    def __init__(self):
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(0)
        self._count = torch.zeros(())

    def add(self, names: tuple[str, ...], losses: Tensor, counted: Tensor) -> None:
        """Count the losses of some iterations.

        Args:
            names: of the n losses; the same ones until the next reading.
            losses: iterations x n, any device.
            counted: bool scalar there; where it is False nothing is added.
        """
        if not self._names:
            self._names = names
            self._sums, self._count = losses.new_zeros(len(names)), losses.new_zeros(())
        if names != self._names:
            raise ValueError(f"the losses were {', '.join(self._names)}, but now are {', '.join(names)}")
        self._sums = self._sums + torch.where(counted, losses.sum(0), 0)
        self._count = self._count + counted * len(losses)

    def read(self) -> dict[str, float]:
        """Name -> mean over the iterations since the last reading, with their `loss_total`; starts anew.

        Empty where no iteration was counted.
        """
        names, (*sums, count) = self._names, torch.cat([self._sums, self._count[None]]).tolist()
        self.__init__()
        if not count:
            return {}
        means = {name: value / count for name, value in zip(names, sums, strict=True)}
        return means | {"loss_total": sum(means.values())}

    def state_dict(self) -> dict:
        """What was added since the last reading."""
        return {"names": list(self._names), "sums": self._sums, "count": self._count}

    def load_state_dict(self, state: dict, device: torch.device) -> None:
        """Go on from a `state_dict`, on this device."""
        self._names = tuple(state["names"])
        self._sums, self._count = state["sums"].to(device), state["count"].to(device)


class TensorBoard:
    """TensorBoard events of a run. Where they cannot be written, an OSError says so, at the latest when flushing.

    Args:
        folder: where the event files go.
        next_step: first optimiser step to come; what an earlier, interrupted run wrote from there on is hidden.
    """

    def __init__(self, folder: Path, next_step: int = 0):
        self._folder = folder
        self._writer = SummaryWriter(str(folder), purge_step=next_step)

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Draw each value as `group/name`."""
        with _naming(self._folder):
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def image(self, name: str, picture, step: int) -> None:
        """Show a picture (uint8 RGB, H x W x 3)."""
        with _naming(self._folder):
            self._writer.add_image(name, picture, step, dataformats="HWC")

    def flush(self) -> None:
        """Write all that was drawn to the event file."""
        with _naming(self._folder):
            self._writer.flush()

    def close(self) -> None:
        """Flush and close the event file."""
        with _naming(self._folder):
            self._writer.close()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name what could not be written in errors of the system, which TensorBoard and logging leave out."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror or error}: the run stops, its log would lack lines", str(path)
        ) from error


def format_table(rows: list[dict[str, object]]) -> str:
    """Rows (all with the same keys) as aligned text; floats are shown as percentages with two digits."""
    columns: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            columns[name].append(f"{100 * value:.2f}" if isinstance(value, float) else str(value))
    widths = {name: max(len(name), *map(len, cells)) for name, cells in columns.items()}
    lines = ["  ".join(name.ljust(width) for name, width in widths.items())]
    lines.append("  ".join("-" * width for width in widths.values()))
    for cells in zip(*columns.values(), strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths.values(), strict=True)))
    return "\n".join(line.rstrip() for line in lines)
