"""Signals that ask a program to stop: the first, its echo, and the second."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils import signals
from utils.signals import StoppedError, StopSignals, leave_signals_to_parent

ROOT = Path(__file__).resolve().parents[1]


def test_the_first_signal_is_noted_and_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("inside", [True, False])
def test_work_that_leaves_nothing_half_done_is_stopped_at_once(inside):
    done = []
    with StopSignals() as stop, pytest.raises(StoppedError, match="SIGINT"):
        if not inside:
            os.kill(os.getpid(), signal.SIGINT)
        with stop.stopping_at_once():
            os.kill(os.getpid(), signal.SIGINT)
            done.append(True)
    assert not done


def test_an_echo_is_the_same_signal_and_a_later_one_ends_at_once():
    program = """
import os, signal
from utils import signals
now = [100.0]
signals.monotonic = lambda: now[0]
with signals.StopSignals(echo=10) as stop:
    for now[0] in (100.0, 101.0, 109.9):
        os.kill(os.getpid(), signal.SIGTERM)
        print(stop.received, flush=True)
    now[0] = 110.0
    os.kill(os.getpid(), signal.SIGTERM)
    print("goes on", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stdout == "SIGTERM\n" * 3


def serve(ready) -> None:
    leave_signals_to_parent()
    ready.set()
    while True:
        signal.pause()


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="no sigtimedwait on this system")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_loader_process_is_ended_by_its_parent_alone(method):
    context = multiprocessing.get_context(method)
    ready = context.Event()
    child = context.Process(target=serve, args=(ready,), daemon=True)
    child.start()
    assert ready.wait(60)
    for number in signals.SIGNALS:
        subprocess.run(["kill", f"-{number:d}", str(child.pid)], check=True)
    child.join(0.3)
    assert child.exitcode is None, "a signal of another process ended it"
    child.terminate()
    child.join(60)
    assert child.exitcode == 0
