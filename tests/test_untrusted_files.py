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


@pytest.fixture
def refused(capsys, recwarn) -> Callable[..., None]:
    """Runs a program: it fails with one sentence that names the file, and no code has run."""

    def check(program, arguments: list, named: str) -> None:
        code = run_program(program.main, program.parse_args(arguments))
        sentences = [line for line in capsys.readouterr().err.splitlines() if " INFO " not in line]
        assert code == 1
        assert len(sentences) == 1 and sentences[0].startswith("error: ") and named in sentences[0], sentences
        assert not [str(warning.message) for warning in recwarn]
        assert not Path(MARK).exists()

    return check


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
def test_a_checkpoint_with_code_is_refused(kind, folder, cuhk, refused):
    FILES[kind](folder / "stranger.pth")
    damaged, cfg, options = "stranger.pth is damaged, or is not", ["--cfg", CFG], words(cuhk, Path("run"))
    refused(convert_checkpoint, ["stranger.pth"], damaged)
    refused(test_tool, [*cfg, "--ckpt", "stranger.pth", "--out", "out", *options], damaged)
    refused(train_tool, [*cfg, *options, "MODEL.BACKBONE.WEIGHTS", "stranger.pth"], damaged)
    Path("run").mkdir(exist_ok=True)
    shutil.move("stranger.pth", "run/last.pth")
    refused(train_tool, ["--resume", *cfg, *options], "last.pth is damaged, or is not")


@pytest.mark.parametrize("kind", ["npy", "npz", "pickle of protocol 0", "zip"])
def test_features_with_code_are_refused(kind, folder, cuhk, refused):
    FILES[kind](folder / "stranger.npz")
    arguments = ["--cfg", CFG, "--features", "stranger.npz", *words(cuhk, Path("run"))]
    refused(test_tool, arguments, "stranger.npz is not a valid file of features")


CONFIGS = {
    "apply": f'SEED: !!python/object/apply:eval ["{EXPRESSION}"]',
    "apply to a key": f'!!python/object/apply:eval ["{EXPRESSION}"]: 1',
    "name": "SEED: !!python/name:os.system",
    "object": "SEED: !!python/object:subprocess.Popen {}",
    "literal": f'SEED: "{EXPRESSION}"',
    "literal in a list": f'SOLVER: {{MILESTONES: "[{EXPRESSION}]"}}',
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_with_code_is_refused(kind, folder, refused):
    (folder / "stranger.yaml").write_text(CONFIGS[kind])
    refused(train_tool, ["--cfg", "stranger.yaml"], "stranger.yaml")
    save_checkpoint(folder / "stranger.pth", {"model": {"stem.a": torch.zeros(1)}, "config": CONFIGS[kind]})
    refused(convert_checkpoint, ["stranger.pth", "--save-config", "config.yaml"], "the config in stranger.pth")


@pytest.mark.parametrize("option", ["SEED", "SOLVER.MILESTONES", "SOLVER.BASE_LR", "DETERMINISTIC"])
def test_an_option_with_code_is_refused(option, refused):
    refused(train_tool, ["--cfg", CFG, option, EXPRESSION], f"{option} must be of type")
