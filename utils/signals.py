"""Stopping in good order: SIGTERM and SIGINT (Ctrl-C) are noted, and acted upon where it suits the program."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from time import monotonic

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO_SECONDS = 10.0
"""Under torchrun a signal may come twice: from who ends the job, to all its processes, and passed on by torchrun."""
SECONDS_TO_LOOK_UP = 2.0
"""Between two looks of a loader's process whether its parent is still there."""


class StoppedError(BaseException):
    """A signal ended the program in good order. Not an Exception: nothing on the way takes it for a failure."""


class StopSignals:
    """A context in which the first SIGTERM or SIGINT is noted, and a second one ends the process at once.

    The second one has its plain effect, so that it ends even a process that hangs within a library; a shell shows
    128 + the signal's number.

    To be entered from the main thread.

    Args:
        echo: seconds after the first signal in which others count as the same one. 0 for none; with more, a process
            that hangs is left to who started it, as torchrun ends its processes 30 seconds after the signal.
    """

    def __init__(self, echo: float = 0.0):
        self.received: str | None = None
        self._echo, self._first = echo, 0.0
        self._at_once = False

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def stopping_at_once(self) -> Iterator[None]:
        """Inside, a signal raises StoppedError where it finds the program: for work that leaves nothing half done.

        Raises:
            StoppedError: a signal came, inside or before.
        """
        self._at_once = True
        try:
            if self.received:
                raise StoppedError(self.received)
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, _frame: object) -> None:
        if self.received is None:
            self._first, self.received = monotonic(), signal.Signals(number).name
            if not self._echo:
                self._let_through()
            if self._at_once:
                raise StoppedError(self.received)
        elif monotonic() - self._first >= self._echo:
            self._let_through()
            os.kill(os.getpid(), number)

    def _let_through(self) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)


def leave_signals_to_parent() -> None:
    """Have this process, a loader's, serve its parent to the end: no signal stops it but a SIGTERM from the parent.

    A signal often goes to a whole group of processes. The parent is to finish its step, and needs its images; PyTorch
    would end the loader's process, and with an error then the parent. To be called in the main thread of a process
    that multiprocessing started.
    """
    if hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    while parent.is_alive():
        received = signal.sigtimedwait({signal.SIGTERM}, SECONDS_TO_LOOK_UP)
        if received and received.si_pid == parent.pid:
            break
    os._exit(0)
