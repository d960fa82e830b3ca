"""Signals that ask a program to stop: the first and the second."""

import os
import signal
import subprocess
import sys

import pytest
from tiny import ROOT

from utils.signals import StoppedError, StopSignals


@pytest.mark.parametrize("inside", [True, False])
def test_work_that_leaves_nothing_half_done_is_stopped_at_once(inside):
    done, before = [], signal.getsignal(signal.SIGINT)
    with StopSignals() as stop, pytest.raises(StoppedError, match="SIGINT"):
        if not inside:
            os.kill(os.getpid(), signal.SIGINT)
        with stop.stopping_at_once():
            os.kill(os.getpid(), signal.SIGINT)
            done.append(True)
    assert not done and signal.getsignal(signal.SIGINT) is before


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
