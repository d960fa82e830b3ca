"""Each case in a process of its own, in rounds."""

import logging
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from engine.devices import select_device
from tools.benchmark.cases import Case, Figures
from tools.benchmark.evaluation import measure_evaluation
from tools.benchmark.network import measure_inference, measure_training, options_of
from utils.allocator import keep_freed_memory

log = logging.getLogger("benchmark")

Measure = Callable[[Case], Figures]
PARTS = {"inference": measure_inference, "training": measure_training, "evaluation": measure_evaluation}


def measure(case: Case) -> Figures:
    """Measure a case in this process and, except for `release`, tune the process's memory allocator."""
    if case.name != "release":
        keep_freed_memory()
    cfg = options_of(case)
    return PARTS[case.part](case, cfg, select_device(cfg.DEVICE))  # the current device, which the timer waits for


def measure_apart(case: Case, work: Measure = measure) -> Figures:
    """Measure a case in a new process, whose peak memory and allocator are its own; or a `failure` in one line."""
    ctrl_c = (signal.SIGINT, signal.SIG_DFL)  # ends the process without a traceback of its own
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=signal.signal, initargs=ctrl_c) as process:
        try:
            return process.submit(work, case).result()
        except (RuntimeError, ValueError, TypeError, OSError, ImportError, MemoryError) as error:
            # Lack of memory, a process that was killed for it, a precision that the device lacks, no compiler ...
            return {"failure": f"{type(error).__name__}: {(str(error).strip() or 'unknown').splitlines()[0]}"}


def run_rounds(
    cases: Sequence[Case], rounds: int, after_round: Callable[[list[Figures]], None], run: Measure = measure_apart
) -> list[Figures]:
    """Measure all cases `rounds` times, so that what slows the machine for a while slows all of them.

    Later rounds leave out a case that has failed. `after_round` is called with the results so far.
    """
    results = [Figures() for _ in cases]
    for number in range(1, rounds + 1):
        for case, figures in zip(cases, results, strict=True):
            if "failure" not in figures:
                log.info("round %d of %d: %s", number, rounds, case)
                for name, samples in run(case).items():
                    figures[name] = samples if name == "failure" else [*figures.get(name, []), *samples]
        after_round(results)
    return results
