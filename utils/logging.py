"""What a run says: a log on screen and in a file, TensorBoard events, and averages of losses."""

import logging
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class _TqdmHandler(logging.StreamHandler):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def set_up_logging(file: Path | None = None, quiet: bool = False) -> None:
    """Send the log of the whole program to the screen and to `file` (appended to).

    Args:
        file: log file, its folder is made if missing; None for the screen alone.
        quiet: only warnings on the screen (for processes beside the main one).
    """
    screen = _TqdmHandler()
    screen.setLevel(logging.WARNING if quiet else logging.INFO)
    handlers: list[logging.Handler] = [screen]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format=FORMAT, datefmt="%Y-%m-%d %H:%M:%S", handlers=handlers, force=True)
    logging.captureWarnings(True)


class LossAverages:
    """Averages of losses, summed on their device: reading them is the only wait for it."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, losses: dict[str, Tensor]) -> None:
        """Count one iteration's losses (scalars, any device)."""
        for name, loss in losses.items():
            value = loss.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def read(self) -> dict[str, float]:
        """Name -> mean over the iterations since the last reading, with their `loss_total`; starts anew."""
        if not self._count:
            return {}
        names, sums = list(self._sums), torch.stack(list(self._sums.values()))
        means = dict(zip(names, (sums / self._count).tolist(), strict=True))
        self.__init__()
        return means | {"loss_total": sum(means.values())}


class TensorBoard:
    """TensorBoard events of a run.

    Args:
        folder: where the event files go.
        next_step: first optimiser step to come; what an earlier, interrupted run wrote from there on is hidden.
    """

    def __init__(self, folder: Path, next_step: int = 0):
        self._writer = SummaryWriter(str(folder), purge_step=next_step)

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Draw each value as `group/name`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def image(self, name: str, picture, step: int) -> None:
        """Show a picture (uint8 RGB, H x W x 3)."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


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
