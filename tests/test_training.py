"""The programs on a small synthetic dataset: train, resume, test, features on disk."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import draw, words
from trees import rewrite

from datasets import build_dataset
from datasets.writers import struct
from tools import test as test_tool
from tools import train as train_tool
from tools.common import run_program

ROOT = Path(__file__).resolve().parents[1]
CFG = str(ROOT / "configs" / "cuhk_sysu.yaml")
NAMES = {"cuhk_sysu": "CUHK-SYSU", "prw": "PRW", "movienet_cs": "MovieNet-CS"}


def train(*arguments: str) -> int:
    return run_program(train_tool.main, train_tool.parse_args(["--cfg", CFG, *arguments]))


def test(*arguments: str) -> int:
    return run_program(test_tool.main, test_tool.parse_args(["--cfg", CFG, *arguments]))


test.__test__ = False


@pytest.fixture(scope="module")
def run(cuhk, tmp_path_factory) -> Path:
    """A finished training run."""
    out = tmp_path_factory.mktemp("run")
    assert train(*words(cuhk, out)) == 0
    return out


def test_a_run_leaves_what_it_promises(run):
    names = {path.name for path in run.iterdir()}
    assert {"best.pth", "last.pth", "config.yaml", "log.txt", "metrics.json", "tensorboard"} <= names
    log = (run / "log.txt").read_text()
    assert "loss_box_reid" in log and "epoch 2: mAP" in log
    assert "NUM_IDS: 6" in (run / "config.yaml").read_text()
    assert any((run / "tensorboard").iterdir())


def test_a_new_run_does_not_overwrite_an_old_one(run, cuhk, capsys):
    assert train(*words(cuhk, run)) == 1
    assert "--resume" in capsys.readouterr().err


def test_a_resumed_run_takes_the_rates_it_is_given(run, cuhk, tmp_path, caplog):
    shutil.copy(run / "last.pth", tmp_path)
    changed = words(cuhk, tmp_path, SOLVER__MAX_EPOCHS=3, SOLVER__BASE_LR=0.0007, SOLVER__AMP="bf16")
    assert train("--resume", *changed) == 0
    log = (tmp_path / "log.txt").read_text()
    assert "lr 0.000070" in log  # after the milestone
    assert "options differ" in log and "SOLVER.BASE_LR 0.003 -> 0.0007" in log


WRONG_STATES = {
    "of a release": (lambda state: {"model": state["model"]}, r"KeyError: 'optimizer'\): give the options"),
    "without config": (
        lambda state: state | {"config": None},
        "is not a checkpoint: no dict with text as keys and as `config`",
    ),
    "number of epochs in words": (lambda state: state | {"epoch": "two"}, "epoch is 'two'"),
    "of another network": (lambda state: state | {"model": {"stem.a": torch.zeros(1)}}, "do not fit the network"),
    "no weights": (lambda state: state | {"model": {1: 2}}, "holds no weights"),
    "no optimiser": (lambda state: state | {"optimizer": {}}, r"KeyError: 'param_groups'\): give the options"),
}


@pytest.mark.parametrize("spoil, message", WRONG_STATES.values(), ids=WRONG_STATES)
def test_a_checkpoint_that_cannot_be_continued_from_is_named(spoil, message, run, cuhk, tmp_path, capsys):
    torch.save(spoil(torch.load(run / "last.pth", weights_only=True)), tmp_path / "last.pth")
    assert train("--resume", *words(cuhk, tmp_path)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"^error: .*{tmp_path / 'last.pth'} .*{message}", error), error


def test_one_pass_is_scored_under_every_setting_and_again_from_its_features(run, cuhk, tmp_path, capsys):
    features = tmp_path / "features.npz"
    arguments = ["--cbgm", "--gt", "--gallery-size", "-1", "50", "--features", str(features), "--out", str(tmp_path)]
    options = words(cuhk, run)
    assert test(*options, *arguments) == 0
    first = json.loads((tmp_path / "metrics.json").read_text())
    assert [(row["boxes"], row["CBGM"]) for row in first["search"]] == 2 * [
        ("detected", "no"), ("detected", "yes"), ("ground truth", "no"),
    ]  # fmt: skip
    truth = first["search"][2]
    assert truth["mAP"] > 0
    (run / "best.pth").rename(run / "hidden.pth")
    try:
        assert test(*options, *arguments) == 0
    finally:
        (run / "hidden.pth").rename(run / "best.pth")
    assert json.loads((tmp_path / "metrics.json").read_text()) == first
    assert "ground truth" in capsys.readouterr().out


@pytest.mark.parametrize(
    "fmt", ["cuhk_sysu", *(pytest.param(fmt, marks=pytest.mark.slow) for fmt in ("prw", "movienet_cs"))]
)
def test_each_format_trains_and_tests_through_the_shell_scripts(fmt, tmp_path):
    data = draw(tmp_path / fmt, fmt)
    short = {"cuhk_sysu": "cuhk", "prw": "prw", "movienet_cs": "mvn"}[fmt]
    options = words(data, tmp_path / "run", NAMES[fmt], SOLVER__MAX_EPOCHS=1, SOLVER__MILESTONES="[]")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for script in (f"run_{short}.sh", f"test_{short}.sh"):
        done = subprocess.run(
            ["sh", str(ROOT / script), "cpu", *options], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    assert len(metrics["search"]) == 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"INPUT__DATA_ROOT": "nowhere"}, "nowhere is no folder"),
        ({"MODEL__OIM__NUM_IDS": 3}, "NUM_IDS is 3, but the training set has 6"),
        ({"SOLVER__MILESTONES": "[7]"}, "SOLVER.MILESTONES"),
        ({"SOLVER__AMP": "fp12"}, "SOLVER.AMP 'fp12' is not one of off, fp16, bf16"),
        ({"INPUT__BATCH_SIZE_TRAIN": 1}, "GROUP needs INPUT.BATCH_SIZE_TRAIN of 2"),
        ({"CKPT_PERIOD": 0}, "CKPT_PERIOD must be 1 or more"),
        ({"EVAL__GALLERY_SIZE": 7}, "gallery size 7"),
        ({"INPUT__NUM_WORKERS": -1}, "INPUT.NUM_WORKERS must be 0 or more, not -1"),
        ({"EVAL__AMP": "half"}, "EVAL.AMP 'half' is not one of off, fp16, bf16"),
        ({"DEVICE": "cuda:9"}, "DEVICE cuda:9 does not exist"),
        ({"MODEL__BACKBONE__NAME": "resnet5"}, "'resnet5' is not one of resnet18"),
        ({"SOLVER__BASE_LRR": 1}, "no option 'SOLVER.BASE_LRR'; the nearest is 'SOLVER.BASE_LR'"),
        ({"SOLVER__BASE_LR": "fast"}, "SOLVER.BASE_LR must be of type float (and finite), but is 'fast'"),
    ],
)
def test_wrong_options_are_one_sentence(options, message, cuhk, tmp_path, capsys):
    assert train(*words(cuhk, tmp_path, **options)) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_damaged_images_end_training_or_are_skipped(cuhk, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(cuhk, data)
    first = build_dataset("CUHK-SYSU", data, "train").annotations[0]["img_path"]
    Path(first).write_bytes(Path(first).read_bytes()[:300])
    once = {"SOLVER__MAX_EPOCHS": 1, "SOLVER__MILESTONES": "[]", "INPUT__BATCH_SIZE_TRAIN": 4}
    assert train(*words(data, tmp_path / "error", **once)) == 1
    assert re.search(rf"error: {first} cannot be read as an image .*DAMAGED_IMAGES skip", capsys.readouterr().err)
    assert train(*words(data, tmp_path / "skip", INPUT__DAMAGED_IMAGES="skip", INPUT__NUM_WORKERS=2, **once)) == 0
    log = (tmp_path / "skip" / "log.txt").read_text()
    assert log.count(f"skipped: {first} cannot be read") == 1
    assert "epoch 1: skipped 1 images that cannot be read" in log
    assert train(*words(data, tmp_path / "small", INPUT__MAX_PIXELS=100, **once)) == 1
    assert "160 x 96, more than 100 pixels: scale it down or raise" in capsys.readouterr().err


def test_what_is_wrong_with_annotations_is_in_the_log(cuhk, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(cuhk, data)
    shown = next(item for item in build_dataset("CUHK-SYSU", data, "train").annotations if len(item["boxes"]))
    away, empty = [[900, 20, 30, 90]], [[5, 5, 0, 9]]

    def change(images):
        (found,) = [image for image in images.flat if image["imname"][0] == shown["img_name"]]
        fields = ("idlocate", "ishard")
        found["box"] = struct([(np.array(box), 0) for box in (away, empty)], fields)

    rewrite(data / "annotation" / "Images.mat", change)
    assert train(*words(data, tmp_path / "run", INPUT__BATCH_SIZE_TRAIN=4, EVAL_PERIOD=0)) == 0
    log, screen = (tmp_path / "run" / "log.txt").read_text(), capsys.readouterr().err
    lines = [line for line in log.splitlines() if "has no area and is left out" in line]
    assert lines and all("WARNING" in line and "Images.mat" in line and line in screen for line in lines)
    message = r"skipped: .*train split, (\S+): \[900, 20, 930, 110\] .* lies outside the 160 x 96 pixels"
    (named,) = re.findall(message, log)
    assert shown["img_name"] in named
    counts = re.findall(r"epoch (\d): skipped 1 boxes outside their images", log)
    assert counts == ["1", "2"]
