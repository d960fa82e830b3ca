"""Measure each case in a process of its own, in rounds."""

import logging
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from tools.benchmark_cases import Case, Measurement, Result
from tools.benchmark_evaluation import measure_evaluation
from tools.benchmark_inference import measure_inference
from tools.benchmark_network import options_of
from tools.benchmark_training import measure_training
from tools.benchmark_variants import VARIANTS
from tools.common import resolve_device
from utils.allocator import keep_freed_memory

log = logging.getLogger(__name__)

PARTS = {"inference": measure_inference, "training": measure_training, "evaluation": measure_evaluation}
"""What can be measured -> the function that does, from a case, its options and the device."""

FAILURES = (RuntimeError, ValueError, TypeError, MemoryError, ImportError, OSError)
"""What a case may fail with: no memory, a precision that the device lacks, no compiler ..."""


def measure(case: Case) -> Measurement:
    """Measure a case in this process, whose memory allocator is then set for good; failures become its `error`."""
    variant = VARIANTS.get(case.name)
    if variant is None or variant.tuned_allocator:
        keep_freed_memory()
    cfg = options_of(case)
    try:
        return PARTS[case.part](case, cfg, resolve_device(cfg.DEVICE))
    except FAILURES as error:
        return Measurement(error=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


def measure_apart(case: Case, work: Callable[[Case], Measurement] = measure) -> Measurement:
    """Have `work` measure a case in a new process: its memory and its allocator's settings are its own."""
    quiet_end = (signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it too, without a traceback of its own
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=signal.signal, initargs=quiet_end) as process:
        try:
            return process.submit(work, case).result()
        except BrokenProcessPool:
            return Measurement(error="the process was killed, most likely for want of memory")


def run_rounds(
    cases: Sequence[Case],
    rounds: int,
    done: Callable[[list[Result]], None],
    run: Callable[[Case], Measurement] = measure_apart,
) -> list[Result]:
    """Measure all cases one after the other, `rounds` times: what slows the machine for a while then slows them all.

    Args:
        cases: what to measure. One that has failed is left out of the later rounds.
        rounds: processes of each case.
        done: called with the results so far after each round.
        run: measures one case.
    """
    results = [Result(case) for case in cases]
    for number in range(1, rounds + 1):
        for result in results:
            if result.error is None:
                log.info("round %d of %d, %s", number, rounds, result.case.describe())
                result.rounds.append(run(result.case))
                if result.error is not None:
                    log.warning("%s failed: %s", result.case.describe(), result.error)
        done(results)
    return results
