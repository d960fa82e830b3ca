"""Stopping in good order: SIGTERM and SIGINT (Ctrl-C) are noted, and acted upon where it suits the program."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(BaseException):
    """A signal ended the program in good order. Not an Exception: nothing on the way takes it for a failure."""


class StopSignals:
    """A context in which the first SIGTERM or SIGINT is noted, and a second one ends the process at once.

    The second one has its plain effect, so that it ends even a process that hangs within a library; a shell shows
    128 + the signal's number. Child processes that are forked inside the context, such as those that read images, leave
    the first signal alone too: where one goes to the whole group of processes, they serve their parent to its end.

    To be entered from the main thread.
    """

    def __init__(self):
        self.received: str | None = None
        self._at_once = False

    def __enter__(self) -> "StopSignals":
        self._process = os.getpid()
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
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self.received = signal.Signals(number).name
        if self._at_once and os.getpid() == self._process:
            raise StoppedError(self.received)
