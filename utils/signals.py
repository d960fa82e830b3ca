"""Stopping cleanly: the first SIGTERM or SIGINT (Ctrl-C) is recorded, and handled where the program can stop."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from threading import Thread

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(BaseException):
    """A signal stopped the program cleanly. Not an Exception, so that no handler of errors catches it."""


class StopSignals:
    """A context in which the first signal is recorded in `received`; a second one ends the process at once.

    Under torchrun, which forwards signals to processes that may have received them already, a second one is ignored;
    torchrun kills what still runs 30 seconds after the first. To be entered from the main thread.
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
        """Inside, a signal raises StoppedError immediately: for work that can be abandoned at any point."""
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


def leave_signals_to_parent(_worker: int = 0) -> None:
    """Have a loader process ignore all signals but a SIGTERM from its parent.

    A signal often reaches all processes of a group, but the parent still needs images to finish its step; without this
    the loader process would end, and the parent with an error. To be called in the main thread.
    """
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        Thread(target=_exit_for_parent, args=(parent_process().pid,), daemon=True).start()


def _exit_for_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
