"""Threads that wait for each other sleep where other programs are busy."""

import os

import pytest

from utils import openmp


@pytest.fixture
def busy(monkeypatch):
    """Sets how many of two processors are busy."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(openmp.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(openmp.time, "sleep", lambda _: None)

    def set_to(processors: float) -> None:
        readings = iter([(1000, 500), (1100, 500 + int(50 * (2 - processors)))])
        monkeypatch.setattr(openmp, "_ticks", lambda: next(readings))

    yield set_to
    os.environ.pop("OMP_WAIT_POLICY", None)


@pytest.mark.parametrize(("processors", "policy"), [(0.0, None), (0.2, None), (1.0, "passive"), (2.0, "passive")])
def test_threads_sleep_beside_busy_programs_only(busy, processors, policy):
    busy(processors)
    openmp.yield_to_other_programs()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_the_users_own_choice_stays(busy, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    busy(2.0)
    openmp.yield_to_other_programs()
    assert os.environ["OMP_WAIT_POLICY"] == "active"


def test_busy_processors_are_read_from_the_system():
    assert 0 <= openmp.busy_processors(0.01) <= (os.cpu_count() or 1)
