"""How OpenMP's threads, which compute for PyTorch on the CPU, wait for each other."""

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE, _IOWAIT = 3, 4
"""Places of the ticks without work among those of /proc/stat, see proc(5)."""
_LEAST_BUSY = 0.5


def yield_to_other_programs() -> None:
    """Have OpenMP's threads sleep rather than spin while they wait, if other programs keep processors busy now.

    To be called before PyTorch is imported. A thread that spins holds a processor that another thread of its own group
    may be waiting for: beside one busy program, training took twice as long so on two cores. On an idle machine
    spinning threads are faster, and stay. A value of OMP_WAIT_POLICY in the environment is left as it is.
    """
    if "OMP_WAIT_POLICY" not in os.environ and busy_processors() >= _LEAST_BUSY:
        os.environ["OMP_WAIT_POLICY"] = "passive"


def busy_processors(seconds: float = 0.1) -> float:
    """How many processors were busy, on average, while this program slept so long; 0 where it cannot be told."""
    if not _STAT.exists():  # not Linux
        return 0.0
    before = _ticks()
    time.sleep(seconds)
    total, idle = (after - start for after, start in zip(_ticks(), before, strict=True))
    return (os.cpu_count() or 1) * (total - idle) / max(total, 1)


def _ticks() -> tuple[int, int]:
    """Ticks of all processors since the system started, and those without work."""
    values = [int(value) for value in _STAT.read_text().partition("\n")[0].split()[1:]]
    return sum(values), values[_IDLE] + values[_IOWAIT]
