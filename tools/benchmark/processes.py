"""Measuring each case in a process of its own."""

import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from engine.devices import select_device
from tools.benchmark.case import Case, Figures
from tools.benchmark.evaluation import measure_evaluation
from tools.benchmark.network import measure_inference, measure_training, options_of
from utils.allocator import keep_freed_memory

MEASURES = {"inference": measure_inference, "training": measure_training, "evaluation": measure_evaluation}


# Not in __main__, from which a new process cannot import.
def measure(case: Case) -> Figures:
    """Measure a case in this process and, except for `release`, tune the process's memory allocator."""
    if case.name != "release":
        keep_freed_memory()
    cfg = options_of(case)
    return MEASURES[case.part](case, cfg, select_device(cfg.DEVICE))  # the current device, which the timer waits for


def measure_apart(case: Case) -> Figures:
    """Measure a case in a new process, whose peak memory and allocator are its own; or a `failure` in one line."""
    ctrl_c = (signal.SIGINT, signal.SIG_DFL)  # ends the process without a traceback of its own
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=signal.signal, initargs=ctrl_c) as process:
        try:
            return process.submit(measure, case).result()
        except (RuntimeError, ValueError, TypeError, OSError, ImportError, MemoryError) as error:
            # Lack of memory, a process that was killed for it, a precision that the device lacks, no compiler ...
            return {"failure": f"{type(error).__name__}: {(str(error).strip() or 'unknown').splitlines()[0]}"}
