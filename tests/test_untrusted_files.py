"""Checkpoints, features and configs from strangers: whatever code they carry, no program runs it."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import tiny_model, words

from engine.checkpoint import save_checkpoint
from tools import convert_checkpoint
from tools import test as test_tool
from tools import train as train_tool
from tools.common import run_program

ROOT = Path(__file__).resolve().parents[1]
CFG = str(ROOT / "configs" / "cuhk_sysu.yaml")
MARK = "ran"
"""File that the code in each file here would create in the working folder."""
EXPRESSION = f"__import__('pathlib').Path('{MARK}').touch()"


class Payload:
    """An object that would create the mark when unpickled."""

    def __reduce__(self):
        return eval, (EXPRESSION,)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_refused(program, arguments: list, named: str, capsys, recwarn) -> None:
    """Run a program: it fails with one sentence that names the file, and no code has run."""
    code = run_program(program.main, program.parse_args([str(word) for word in arguments]))
    sentences = [line for line in capsys.readouterr().err.splitlines() if " INFO " not in line]
    assert code == 1
    assert len(sentences) == 1 and sentences[0].startswith("error: ") and named in sentences[0], sentences
    assert not [str(warning.message) for warning in recwarn]
    assert not Path(MARK).exists()


def test_the_code_would_run():
    """Where a reader lets it: the tests below would see it."""
    pickle.loads(pickle.dumps(Payload()))  # noqa: S301
    Path(MARK).unlink()
    yaml.unsafe_load(CONFIGS["apply"])
    Path(MARK).unlink()
    eval(EXPRESSION)  # noqa: S307
    assert Path(MARK).exists()


def with_objects(path: Path, save: Callable, **arrays: np.ndarray) -> None:
    """Write NumPy's file with an array of objects to a path that NumPy would change."""
    objects = np.array([Payload()], dtype=object)
    with path.open("wb") as file:
        save(file, **arrays, gallery_dets=objects) if arrays else save(file, objects)


FILES: dict[str, Callable[[Path], object]] = {
    "zip": lambda path: torch.save({"model": Payload()}, path),
    "weights beside": lambda path: torch.save({"model": tiny_model().state_dict(), "epoch": Payload()}, path),
    "legacy": lambda path: torch.save({"model": Payload()}, path, _use_new_zipfile_serialization=False),
    "pickle of protocol 0": lambda path: path.write_bytes(pickle.dumps(Payload(), 0)),
    "npy": lambda path: with_objects(path, np.save),
    "npz": lambda path: with_objects(path, np.savez, gallery_names=np.array(["a"])),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_checkpoint_with_code_is_refused(kind, folder, cuhk, capsys, recwarn):
    FILES[kind](folder / "stranger.pth")
    assert_refused(convert_checkpoint, ["stranger.pth"], "stranger.pth is damaged, or is not", capsys, recwarn)
    arguments = ["--cfg", CFG, "--ckpt", "stranger.pth", "--out", "out", *words(cuhk, Path("run"))]
    assert_refused(test_tool, arguments, "stranger.pth is damaged, or is not", capsys, recwarn)
    start = words(cuhk, Path("run"), MODEL__BACKBONE__WEIGHTS="stranger.pth")
    assert_refused(train_tool, ["--cfg", CFG, *start], "stranger.pth is damaged, or is not", capsys, recwarn)
    Path("run").mkdir(exist_ok=True)
    shutil.move("stranger.pth", "run/last.pth")
    resume = ["--resume", "--cfg", CFG, *words(cuhk, Path("run"))]
    assert_refused(train_tool, resume, "last.pth is damaged, or is not", capsys, recwarn)


@pytest.mark.parametrize("kind", ["npy", "npz", "pickle of protocol 0", "zip"])
def test_features_with_code_are_refused(kind, folder, cuhk, capsys, recwarn):
    FILES[kind](folder / "stranger.npz")
    arguments = ["--cfg", CFG, "--features", "stranger.npz", *words(cuhk, Path("run"))]
    assert_refused(test_tool, arguments, "stranger.npz is not a valid file of features", capsys, recwarn)


CONFIGS = {
    "apply": f'SEED: !!python/object/apply:eval ["{EXPRESSION}"]',
    "apply to a key": f'!!python/object/apply:eval ["{EXPRESSION}"]: 1',
    "name": "SEED: !!python/name:os.system",
    "object": "SEED: !!python/object:subprocess.Popen {}",
    "literal": f'SEED: "{EXPRESSION}"',
    "literal in a list": f'SOLVER: {{MILESTONES: "[{EXPRESSION}]"}}',
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_with_code_is_refused(kind, folder, capsys, recwarn):
    (folder / "stranger.yaml").write_text(CONFIGS[kind])
    assert_refused(train_tool, ["--cfg", "stranger.yaml"], "stranger.yaml", capsys, recwarn)
    save_checkpoint(folder / "stranger.pth", {"model": {"stem.a": torch.zeros(1)}, "config": CONFIGS[kind]})
    arguments = ["stranger.pth", "--save-config", "config.yaml"]
    assert_refused(convert_checkpoint, arguments, "the config in stranger.pth", capsys, recwarn)


@pytest.mark.parametrize("option", ["SEED", "SOLVER.MILESTONES", "SOLVER.BASE_LR", "DETERMINISTIC"])
def test_an_option_with_code_is_refused(option, capsys, recwarn):
    assert_refused(train_tool, ["--cfg", CFG, option, EXPRESSION], f"{option} must be of type", capsys, recwarn)
