"""Stopping in good order: the first SIGTERM or SIGINT (Ctrl-C) is noted, and acted upon where it suits the program."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from threading import Thread

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(BaseException):
    """A signal ended the program in good order. Not an Exception: no handler of errors may catch it."""


class StopSignals:
    """A context in which the first signal is noted in `received`; a second one ends the process at once.

    Under torchrun, which passes signals on to processes that may have received them already, a second one is ignored;
    30 seconds after the first it kills what still runs. To be entered from the main thread.
    """

    def __init__(self):
        self.received: str | None = None
        self._at_once = False

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def stopping_at_once(self) -> Iterator[None]:
        """Inside, a signal raises StoppedError immediately: for work that leaves nothing half done."""
        self._at_once = True
        try:
            if self.received:
                raise StoppedError(self.received)
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, _frame: object) -> None:
        self.received = signal.Signals(number).name
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN if "LOCAL_RANK" in os.environ else signal.SIG_DFL)
        if self._at_once:
            raise StoppedError(self.received)


def leave_signals_to_parent() -> None:
    """Let no signal but a SIGTERM from the parent end this process, one of a loader.

    A signal often goes to a whole group of processes. The parent is to finish its step, for which it needs its images;
    PyTorch would end the loader's process, and with an error then the parent. To be called in the main thread.
    """
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        Thread(target=_exit_for_parent, args=(parent_process().pid,), daemon=True).start()


def _exit_for_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
