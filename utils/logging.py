"""The log of a program on screen and in a file, and tables of scores."""

import logging
import sys
from logging.handlers import MemoryHandler
from pathlib import Path

from tqdm import tqdm

FORMAT = "%(asctime)s %(levelname)s %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
KEPT_LINES = 100_000
"""Lines that wait at most for a log file to be opened."""


class _TqdmHandler(logging.StreamHandler):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _StrictFileHandler(logging.FileHandler):
    """A log file that raises an OSError for a line that cannot be written, as on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002 (logging's own name and arguments)
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{error.strerror}: the log would lack lines", self.baseFilename) from error
        raise


def set_up_logging(quiet: bool = False) -> None:
    """Send the log of the whole program to the screen, and keep it for a file (`log_to_file`).

    Args:
        quiet: only errors on the screen (for processes beside the main one).
    """
    screen, kept = _TqdmHandler(), MemoryHandler(KEPT_LINES, logging.CRITICAL, flushOnClose=False)
    screen.setLevel(logging.ERROR if quiet else logging.INFO)
    logging.basicConfig(level=logging.INFO, format=FORMAT, datefmt=DATE_FORMAT, handlers=[screen, kept], force=True)
    logging.captureWarnings(True)


def log_to_file(path: Path) -> None:
    """Append the log to a file too, beginning with the lines since `set_up_logging`; its folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _StrictFileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter(FORMAT, DATE_FORMAT))
    root = logging.getLogger()
    for kept in [handler for handler in root.handlers if isinstance(handler, MemoryHandler)]:
        kept.setTarget(file)
        kept.flush()
        root.removeHandler(kept)
    root.addHandler(file)


def format_table(rows: list[dict[str, object]]) -> str:
    """Rows (all with the same keys) as aligned text; floats are shown as percentages with two digits."""
    shown = [
        [f"{100 * value:.2f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(rows[0], *shown, strict=True)]
    table = [list(rows[0]), ["-" * width for width in widths], *shown]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in table]
    return "\n".join(line.rstrip() for line in lines)
