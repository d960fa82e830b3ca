"""A training run on a small synthetic dataset, resumed, tested, and refused where its options or files are wrong."""

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
from tiny import CFG, ROOT, call, draw, words
from trees import rewrite

from datasets import build_dataset
from datasets.writers import struct
from defaults import load_cfg
from engine.run import TrainingRun
from engine.train import set_learning_rate
from tools import test as test_tool
from tools import train as train_tool
from utils.errors import UserError
from utils.signals import StopSignals


def train(data: Path, out: Path, *arguments: str, **options) -> int:
    return call(train_tool, "--cfg", CFG, *arguments, *words(data, out, **options))


def training_run(data: Path, out: Path, resume: bool = False, **options) -> TrainingRun:
    return TrainingRun(load_cfg(CFG, words(data, out, **options)), torch.device("cpu"), StopSignals(), resume)


@pytest.fixture(scope="module")
def run(cuhk, tmp_path_factory) -> Path:
    """The folder of a finished training run."""
    out = tmp_path_factory.mktemp("run")
    assert train(cuhk, out) == 0
    return out


def test_a_run_leaves_what_it_promises_and_is_not_overwritten(run, cuhk, capsys):
    names = {path.name for path in run.iterdir()}
    assert {"best.pth", "last.pth", "config.yaml", "log.txt", "metrics.json", "tensorboard"} <= names
    log = (run / "log.txt").read_text()
    assert "loss_box_reid" in log and "epoch 2: mAP" in log
    assert "NUM_IDS: 6" in (run / "config.yaml").read_text()
    assert train(cuhk, run) == 1
    assert "--resume" in capsys.readouterr().err


def test_training_starts_from_the_weights_of_a_checkpoint(run, cuhk, tmp_path):
    weights = torch.load(run / "last.pth", weights_only=True)["model"]
    started = training_run(cuhk, tmp_path, SOLVER__INIT_WEIGHTS=run / "last.pth")
    assert all(torch.equal(value, weights[key]) for key, value in started.model.state_dict().items())
    assert started.progress.epoch == 0 and not started.optimizer.state
    more = training_run(cuhk, tmp_path, SOLVER__INIT_WEIGHTS=run / "last.pth", MODEL__OIM__NUM_IDS=9)
    assert torch.equal(next(more.model.stem.parameters()), next(started.model.stem.parameters()))
    assert more.model.search_head.oim.lut.shape[0] == 9 and not more.model.search_head.oim.lut.any()
    shutil.copy(run / "last.pth", tmp_path)
    resumed = training_run(cuhk, tmp_path, resume=True, SOLVER__INIT_WEIGHTS="a file that is gone since")
    assert resumed.progress.epoch == 2


def test_a_resumed_run_takes_the_options_it_is_given(run, cuhk, tmp_path, caplog):
    shutil.copy(run / "last.pth", tmp_path)
    resumed = training_run(cuhk, tmp_path, resume=True, SOLVER__BASE_LR=0.0007, SOLVER__AMP="fp16")
    assert resumed.progress.epoch == 2 and resumed.optimizer.state
    after_the_milestone = resumed.schedule(resumed.progress.total_steps)
    assert set_learning_rate(resumed.optimizer, after_the_milestone) == pytest.approx(0.00007)
    assert (
        f"options differ from those in {tmp_path / 'last.pth'}: " in caplog.text
        and "SOLVER.BASE_LR 0.003 -> 0.0007" in caplog.text
    )


def test_a_finished_run_says_so_and_changes_no_file(run, cuhk, tmp_path, capsys):
    out = shutil.copytree(run, tmp_path / "run")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert train(cuhk, out, "--resume", SOLVER__BASE_LR=0.0007) == 0
    assert "the run is finished, 2 of 2 epochs" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


WRONG_STATES = {
    "of a release": (lambda state: {"model": state["model"]}, r"KeyError: 'optimizer'\): give the options"),
    "number of epochs in words": (lambda state: state | {"epoch": "two"}, "epoch is 'two'"),
    "of another network": (lambda state: state | {"model": {"stem.a": torch.zeros(1)}}, "do not fit the network"),
    "no optimiser": (lambda state: state | {"optimizer": {}}, r"KeyError: 'param_groups'\): give the options"),
}


def test_a_checkpoint_that_cannot_be_continued_from_is_named(run, cuhk, tmp_path):
    state, new = torch.load(run / "last.pth", weights_only=True), training_run(cuhk, tmp_path)
    for spoil, message in WRONG_STATES.values():
        with pytest.raises(UserError, match=f"a.pth .*{message}"):
            new._restore(spoil(state), Path("a.pth"))


def test_one_pass_is_scored_under_every_setting_and_again_from_its_features(run, cuhk, tmp_path, capsys):
    arguments = ["--cfg", CFG, "--cbgm", "--companions", "--gt", "--gallery-size", "-1", "50", "--out", tmp_path]
    arguments += ["--features", tmp_path / "features.npz", *words(cuhk, tmp_path)]
    shutil.copy(run / "best.pth", tmp_path)
    assert call(test_tool, *arguments) == 0
    first = json.loads((tmp_path / "metrics.json").read_text())
    assert [(row["boxes"], row["re-ranking"]) for row in first["search"]] == 2 * [
        ("detected", "none"), ("detected", "CBGM"), ("detected", "companions"), ("ground truth", "none"),
    ]  # fmt: skip
    assert first["search"][3]["mAP"] > 0
    (tmp_path / "best.pth").unlink()
    assert call(test_tool, *arguments) == 0
    unknown = {"checkpoint": None, "epoch": None}  # of features from a file
    assert (first["checkpoint"], first["epoch"]) == (str(tmp_path / "best.pth"), 1)
    assert json.loads((tmp_path / "metrics.json").read_text()) == first | unknown
    assert "ground truth" in capsys.readouterr().out


FORMATS = {"cuhk_sysu": ("cuhk", "CUHK-SYSU"), "prw": ("prw", "PRW"), "movienet_cs": ("mvn", "MovieNet-CS")}


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
def test_each_format_trains_and_tests_through_the_shell_scripts(fmt, tmp_path):
    short, name = FORMATS[fmt]
    options = words(draw(tmp_path / fmt, fmt), tmp_path / "run", name, SOLVER__MAX_EPOCHS=1, SOLVER__MILESTONES="[]")
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
        ({"SOLVER__MILESTONES": "[0]"}, "SOLVER.MILESTONES"),
        ({"SOLVER__INIT_WEIGHTS": "gone.pth"}, "gone.pth"),
        ({"SOLVER__AMP": "fp12"}, "SOLVER.AMP 'fp12' is not one of off, fp16, bf16"),
        ({"INPUT__BATCH_SIZE_TRAIN": 1, "MODEL__CONTEXT__GROUP": "stack"}, "GROUP needs INPUT.BATCH_SIZE_TRAIN of 2"),
        ({"CKPT_PERIOD": 0}, "CKPT_PERIOD must be 1 or more"),
        ({"EVAL__GALLERY_SIZE": 7}, "gallery size 7"),
        ({"INPUT__NUM_WORKERS": -1}, "INPUT.NUM_WORKERS must be 0 or more, not -1"),
        ({"EVAL__AMP": "half"}, "EVAL.AMP 'half' is not one of off, fp16, bf16"),
    ],
)
def test_wrong_options_are_one_sentence(options, message, cuhk, tmp_path, capsys):
    assert train(cuhk, tmp_path, **options) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


ONCE = {"SOLVER__MAX_EPOCHS": 1, "SOLVER__MILESTONES": "[]", "INPUT__BATCH_SIZE_TRAIN": 4}


def test_damaged_images_end_training_or_are_skipped(cuhk, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(cuhk, data)
    first = build_dataset("CUHK-SYSU", data, "train").annotations[0]["img_path"]
    Path(first).write_bytes(Path(first).read_bytes()[:300])
    assert train(data, tmp_path / "error", **ONCE) == 1
    assert re.search(rf"error: {first} cannot be read as an image .*DAMAGED_IMAGES skip", capsys.readouterr().err)
    assert train(data, tmp_path / "skip", INPUT__DAMAGED_IMAGES="skip", INPUT__NUM_WORKERS=2, **ONCE) == 0
    log = (tmp_path / "skip" / "log.txt").read_text()
    assert log.count(f"skipped: {first} cannot be read") == 1
    assert "epoch 1: skipped 1 images that cannot be read" in log
    assert train(data, tmp_path / "small", INPUT__MAX_PIXELS=100, **ONCE) == 1
    assert "160 x 96, more than 100 pixels: scale it down or raise" in capsys.readouterr().err


def test_what_is_wrong_with_annotations_is_in_the_log(cuhk, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(cuhk, data)
    shown = next(item for item in build_dataset("CUHK-SYSU", data, "train").annotations if len(item["boxes"]))
    away, empty = [[900, 20, 30, 90]], [[5, 5, 0, 9]]

    def change(images):
        (found,) = [image for image in images.flat if image["imname"][0] == shown["img_name"]]
        found["box"] = struct([(np.array(box), 0) for box in (away, empty)], ("idlocate", "ishard"))

    rewrite(data / "annotation" / "Images.mat", change)
    assert train(data, tmp_path / "run", **ONCE) == 0
    log, screen = (tmp_path / "run" / "log.txt").read_text(), capsys.readouterr().err
    lines = [line for line in log.splitlines() if "has no area and is left out" in line]
    assert lines and all("WARNING" in line and "Images.mat" in line and line in screen for line in lines)
    message = r"skipped: .*train split, (\S+): \[900, 20, 930, 110\] .* lies outside the 160 x 96 pixels"
    (named,) = re.findall(message, log)
    assert shown["img_name"] in named
    assert "epoch 1: skipped 1 boxes outside their images" in log
