"""Signals that ask a program to stop: the first and the second, and those that loader processes get."""

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


@pytest.mark.parametrize("torchrun", [False, True])
def test_a_second_signal_ends_at_once_but_under_torchrun_which_repeats_the_first(torchrun):
    program = """
import os, signal
from utils.signals import StopSignals
with StopSignals() as stop:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
        print(stop.received, flush=True)
"""
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    environment |= {"LOCAL_RANK": "0"} if torchrun else {}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == (0 if torchrun else -signal.SIGTERM)
    assert ended.stdout == "SIGINT\n" * (2 if torchrun else 1)


def serve(ready) -> None:
    leave_signals_to_parent()
    ready.set()
    while True:
        signal.pause()


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="no sigwaitinfo on this system")
def test_a_loader_process_is_ended_by_its_parent_alone():
    context = multiprocessing.get_context("fork")
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
