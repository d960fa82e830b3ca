"""A network through every program, as a user calls them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import call, interrupt_before_step
from training_process import assert_same

import demo
from datasets import build_dataset
from defaults import load_cfg
from engine.checkpoint import load_weights
from models import build_model
from tools import convert_checkpoint, test, train

Options = Callable[[Path, Path], list]
"""From a dataset and a run's folder to the arguments of programs: two epochs or more, a checkpoint at each step."""


def walk(options: Options, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Train, interrupt, resume, test, convert and demo on data in CUHK-SYSU's format; the run that was not stopped."""
    run = _trained_and_resumed(options, data, folder, monkeypatch)
    assert call(test, *options(data, run), "--cbgm", "--companions", "--gt") == 0
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    assert [row["boxes"] for row in metrics["search"]] == [*["detected"] * 3, "ground truth"]
    assert metrics["search"][3]["mAP"] > 0
    _convert_and_demo(run, data, folder)
    return run


def _trained_and_resumed(options: Options, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    whole, broken = folder / "whole", folder / "broken"
    assert call(train, *options(data, whole)) == 0
    interrupt_before_step(6, monkeypatch)
    assert call(train, *options(data, broken)) == 130
    assert call(train, "--resume", *options(data, broken)) == 0
    states = [torch.load(run / "last.pth", weights_only=True) for run in (whole, broken)]
    for state in states:
        del state["config"]
    assert_same(*states)
    return whole


def _convert_and_demo(run: Path, data: Path, folder: Path) -> None:
    small, config = folder / "small.pth", folder / "small.yaml"
    assert call(convert_checkpoint, run / "best.pth", small, "--strip", "--save-config", config) == 0
    model = build_model(load_cfg(config))
    assert load_weights(model, small) == list(model.identity_memory)
    for name, value in torch.load(small, weights_only=True)["model"].items():
        assert torch.equal(value, model.state_dict()[name]), name

    query = build_dataset("CUHK-SYSU", data, "query").annotations[0]
    pictures = ["--query", query["img_path"], "--box", *query["boxes"][0], "--gallery", data / "Image" / "SSM"]
    assert call(demo, "--cfg", config, "--ckpt", small, *pictures, "--out", folder / "demo") == 0
    assert json.loads((folder / "demo" / "results.json").read_text())["ranked"]
    assert (folder / "demo" / "overview.jpg").is_file()
