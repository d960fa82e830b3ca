"""Fixtures shared by the tests."""

import os
from pathlib import Path

import pytest
import torch
from tiny import BACKBONES as TINY_BACKBONES
from tiny import draw

from datasets.writers import FORMATS
from models.backbone_specs import BACKBONES


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of known answers and real data, where a developer has one; the test is skipped elsewhere.

    Named by the environment variable PERSON_SEARCH_SHARED, or the folder `shared` beside the checkout.
    """
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("PERSON_SEARCH_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"no folder of known answers at {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Each test process computes with one thread: several run side by side."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the programs that tests start


@pytest.fixture(scope="session", autouse=True)
def tiny_backbones():
    """Networks of a few thousand weights can be backbones; tests of all backbones do not count them."""
    BACKBONES.update(TINY_BACKBONES)


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def cuhk(tmp_path_factory) -> Path:
    """A small synthetic dataset in CUHK-SYSU's format; not to be written to."""
    return draw(tmp_path_factory.mktemp("data") / "cuhk_sysu", "cuhk_sysu")


@pytest.fixture(params=FORMATS)
def fmt(request) -> str:
    """Each format of a dataset in turn."""
    return request.param
