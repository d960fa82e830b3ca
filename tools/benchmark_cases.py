"""What a benchmark measures and what comes of it: cases, measurements, and their statistics."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from statistics import median
from time import perf_counter, process_time

import torch

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Case:
    """One thing to measure, in a process of its own.

    Attributes:
        part: "inference", "training" or "evaluation".
        name: the variant of the network, or the drawn gallery.
        cfg, opts: config file, and options over it.
        image_size: height and width of the drawn images, pixels.
        precision: a key of `engine.solver.PRECISIONS`.
        batch_size: images of a pass.
        repeat: samples to take in each process.
    """

    part: str
    name: str
    cfg: str
    opts: tuple[str, ...]
    image_size: tuple[int, int] = (0, 0)
    precision: str = "off"
    batch_size: int = 0
    repeat: int = 1

    def describe(self) -> str:
        """The case in a few words, for the log."""
        network = f", {self.precision}, batch {self.batch_size}" if self.batch_size else ""
        return f"{self.part}: {self.name}{network}"


@dataclass
class Measurement:
    """What one process measured.

    Attributes:
        samples: name -> raw samples, one of each repetition.
        stages: name of a stage -> milliseconds an image, one of each repetition.
        facts: name -> a figure that the process has once, as its peak memory in MiB.
        error: why there are no figures, in one line.
    """

    samples: dict[str, list[float]] = field(default_factory=dict)
    stages: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Summary:
    """Median, smallest and largest of some samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> "Summary":
        """Raises ValueError where there are none."""
        values = sorted(samples)
        if not values:
            raise ValueError("there are no samples to summarise")
        return cls(median(values), values[0], values[-1])


@dataclass
class Result:
    """A case and what its processes measured, one in each round."""

    case: Case
    rounds: list[Measurement] = field(default_factory=list)

    @property
    def error(self) -> str | None:
        """Why the case failed in one of its rounds; None if it did not."""
        return next((measured.error for measured in self.rounds if measured.error), None)

    def samples(self) -> dict[str, Summary]:
        """Each kind of sample, over all rounds."""
        return _pooled(measured.samples for measured in self.rounds)

    def stages(self) -> dict[str, Summary]:
        """Each stage, over all rounds."""
        return _pooled(measured.stages for measured in self.rounds)

    def fact(self, name: str, choose: Callable[[list[float]], float] = max) -> float | None:
        """A fact of all rounds, by default the largest; None where no round knows it."""
        known = [measured.facts[name] for measured in self.rounds if name in measured.facts]
        return choose(known) if known else None

    def as_json(self) -> dict:
        """Everything, raw samples included, as plain types."""
        summaries = {"samples": self.samples(), "stages": self.stages()}
        return {
            **asdict(self.case),
            "error": self.error,
            "summary": {
                kind: {name: asdict(value) for name, value in values.items()} for kind, values in summaries.items()
            },
            "rounds": [asdict(measured) for measured in self.rounds],
        }


def _pooled(rounds: Iterable[dict[str, list[float]]]) -> dict[str, Summary]:
    pooled: dict[str, list[float]] = {}
    for samples in rounds:
        for name, values in samples.items():
            pooled.setdefault(name, []).extend(values)
    return {name: Summary.of(values) for name, values in pooled.items()}


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until `work` is done, on the device too."""
    wait_for(device)
    start = perf_counter()
    work()
    wait_for(device)
    return perf_counter() - start


def repeated(work: Callable[[], object], times: int, device: torch.device) -> tuple[list[float], float]:
    """Seconds of each of some calls, and how many cores the process had meanwhile, on average.

    Fewer cores than threads mean, on the CPU, that other programs had the rest, or that parts of the work use one.
    """
    start, start_cpu = perf_counter(), process_time()
    seconds = [seconds_of(work, device) for _ in range(times)]
    return seconds, (process_time() - start_cpu) / (perf_counter() - start)
