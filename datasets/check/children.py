"""Work in processes of its own, which may die without taking the program with them."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

ORPHAN_CHECK = 5.0
"""Seconds after which a waiting child looks whether its parent is still there."""


class Died(NamedTuple):
    """A child ended before it had a result."""

    exit_code: int
    """Of the process; minus the number of the signal that ended it."""
    doing: str
    """What it told last that it was doing; empty if nothing."""

    @property
    def killed(self) -> bool:
        """Whether it was ended from outside, as the system does where memory runs out, and not by a crash."""
        return self.exit_code == -signal.SIGKILL


class Raised(NamedTuple):
    """The work raised an exception, which ended neither the child nor its answer."""

    message: str
    """Of the exception, with its type."""
    doing: str
    """As of Died."""


class _Child:
    def __init__(self, work: Callable):
        self.connection, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_serve, args=(work, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the child's end closes when it dies
        self.number, self.doing = -1, ""

    def give(self, number: int, item: Any) -> None:
        self.number, self.doing = number, ""
        with suppress(BrokenPipeError):  # `take` finds that it died
            self.connection.send(item)

    def take(self) -> tuple[bool, Any]:
        """Whether the item is done, and its result; a death is a result."""
        try:
            word, value = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return True, Died(self.process.exitcode, self.doing)
        if word == "doing":
            self.doing = value
        return word != "doing", Raised(value, self.doing) if word == "raised" else value

    def end(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def in_children(work: Callable[[Any, Callable[[str], None]], Any], items: Iterable, workers: int) -> Iterator[tuple]:
    """Give (number of the item, `work(item, tell)`, Raised or Died) for each item, in the order in which they are done.

    Args:
        work: a function of a module; its results are sent between processes. It may call `tell(text)` to say what it
            does next, which a Raised or Died repeats.
        items: what to work on.
        workers: processes at a time, at least 1. One that dies is replaced.
    """
    waiting, idle, busy = deque(enumerate(items)), [], {}
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                child = idle.pop() if idle else _Child(work)
                child.give(*waiting.popleft())
                busy[child.connection] = child
            for connection in wait(list(busy)):
                child = busy[connection]
                done, value = child.take()
                if not done:
                    continue
                del busy[connection]
                if isinstance(value, Died):
                    child.end()
                else:
                    idle.append(child)
                yield child.number, value
    finally:
        for child in [*idle, *busy.values()]:
            child.end()


def _serve(work: Callable, connection: Connection) -> None:
    parent = multiprocessing.parent_process()
    while parent.is_alive():
        if connection.poll(ORPHAN_CHECK):
            item = connection.recv()
            try:
                answer = "done", work(item, lambda text: connection.send(("doing", text)))
            except Exception as error:  # noqa: BLE001 (the parent tells it: a death stands for a crash alone)
                answer = "raised", f"{type(error).__name__}: {error}"
            connection.send(answer)
