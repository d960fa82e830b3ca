"""One thing to measure, and how its time and memory are taken."""

import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.benchmark import Timer, timer

Figures = dict[str, list[float] | str]
"""What was measured: samples by name and unit; or, under "failure", why there are none."""


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        part: "inference", "training" or "evaluation".
        name: the variant of the network, or the drawn gallery.
        cfg, opts: config file, and options over it.
        image_size: height and width, pixels.
        precision: a key of `engine.solver.PRECISIONS`.
        seconds: for how long the work is repeated.
    """

    part: str
    name: str
    cfg: str
    opts: tuple[str, ...] = ()
    image_size: tuple[int, int] = (900, 1500)
    precision: str = "off"
    batch_size: int = 1
    seconds: float = 10.0

    def __str__(self) -> str:
        detail = "" if self.part == "evaluation" else f", precision {self.precision}, batch {self.batch_size}"
        return f"{self.part}, {self.name}{detail}"


def timed(work: Callable[[], object], seconds: float, device: torch.device) -> tuple[list[float], Figures]:
    """Seconds of each call of `work` but the first, and the figures `warm-up s` (the first call) and `peak MiB`.

    The timer waits for the device after each call.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # what preparing took does not count
    start = timer()
    work()
    warm_up = timer() - start
    calls = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    samples = calls.blocked_autorange(min_run_time=seconds).times
    return samples, {"peak MiB": [peak_memory(device)], "warm-up s": [warm_up]}


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held, MiB: tensors on a CUDA device, else everything in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")  # Linux: there the portable figure begins with that of the parent process
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
