"""Files written completely or not at all, numbered checkpoints of which damaged ones are skipped, and the log."""

import logging
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import fill_disk

from engine.checkpoint import read_checkpoint, save_checkpoint
from engine.feature_files import Features, save_features
from engine.run_folder import RunFolder
from utils.files import write_json
from utils.logging import log_to_file, set_up_logging


def state(number: int) -> dict:
    generator = torch.Generator().manual_seed(number)
    return {"epoch": number, "model": {f"w{i}": torch.rand(40, generator=generator) for i in range(3)}}


def numbers(path: Path) -> dict[str, int]:
    """Which state each checkpoint of a folder holds."""
    return {file.name: read_checkpoint(file)["epoch"] for file in path.glob("*.pth")}


def features(path: Path) -> None:
    dets, feats = np.zeros((2, 5), np.float32), np.zeros((2, 4), np.float32)
    names = {"gallery_names": ["a.jpg"], "query_names": ["a.jpg 1"]}
    save_features(path, Features([dets], [feats], query_feats=[feats[:1]], **names))


WRITERS = {
    "checkpoint": lambda path: save_checkpoint(path, state(1)),
    "features": features,
    "json": lambda path: write_json(path, {"mAP": 0.5}),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_says_how_many_bytes_were_missing(writer, tmp_path, monkeypatch):
    path = tmp_path / "file"
    WRITERS[writer](path)
    whole = path.read_bytes()
    for room in {0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        with monkeypatch.context() as patch:
            fill_disk(patch, room)
            with pytest.raises(OSError, match=f"No space left on device: .*{path.name}"):
                WRITERS[writer](path)
        assert path.read_bytes() == whole
        assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    with monkeypatch.context() as patch:
        fill_disk(patch, len(whole))
        WRITERS[writer](path)
    assert path.stat().st_size == len(whole)


def test_the_newest_and_the_best_are_kept(tmp_path):
    folder = RunFolder(tmp_path, keep=3)
    for number in range(1, 6):
        folder.save(state(number))
        if number == 2:
            folder.save_best(state(number))
    assert numbers(tmp_path) == {"last.pth": 5, "last.1.pth": 4, "last.2.pth": 3, "best.pth": 2}
    assert [path.name for path in folder.checkpoints()] == ["last.pth", "last.1.pth", "last.2.pth", "best.pth"]
    RunFolder(tmp_path, keep=1).save(state(6))
    assert numbers(tmp_path) == {"last.pth": 6, "best.pth": 2}


@pytest.mark.parametrize("renames", range(5))
def test_a_crash_between_two_renames_loses_nothing(renames, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, keep=3)
    for number in (1, 2, 3):
        folder.save(state(number))
    plain, left = Path.replace, iter(range(renames))

    def replace(path, target):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return plain(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            folder.save(state(4))
    assert sorted(numbers(tmp_path).values()) == [1, 2, 3]
    assert folder.newest()[0]["epoch"] == 3
    folder.save(state(5))
    assert folder.newest()[0]["epoch"] == 5
    assert {3, 5} <= set(numbers(tmp_path).values())


def test_damaged_checkpoints_are_skipped_and_renamed_with_a_warning_or_each_is_named(tmp_path, caplog):
    folder = RunFolder(tmp_path, keep=2)
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        folder.newest()
    folder.save(state(1))
    folder.save(state(2))
    (tmp_path / "last.pth").write_bytes(b"hello")
    found, path = folder.newest()
    assert found["epoch"] == 1 and path == tmp_path / "last.1.pth"
    folder.rename_damaged()
    assert re.search(r"last.pth is .*renamed to last.pth.damaged", caplog.text)
    folder.save(state(3))
    assert numbers(tmp_path) == {"last.pth": 3, "last.1.pth": 1}
    for name in ("last.pth", "last.1.pth", "best.pth"):
        (tmp_path / name).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"(?s)every checkpoint .* is damaged.*last.pth .*last.1.pth .*best.pth"):
        folder.newest()
    folder.save_best(state(7))
    assert folder.newest()[0]["epoch"] == 7


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_a_log_line_that_cannot_be_written_is_an_error():
    set_up_logging()
    log_to_file(FULL)
    try:
        with pytest.raises(OSError, match="No space left on device: the log would lack lines: .*/dev/full"):
            logging.getLogger("engine").info("epoch 1")
    finally:
        with suppress(OSError):  # what could not be written is tried once more
            logging.basicConfig(force=True)
        logging.basicConfig(force=True)


def test_the_log_file_begins_with_what_was_logged_before_it_was_opened_and_is_appended_to(tmp_path):
    for run in ("first", "second"):
        set_up_logging()
        logging.getLogger("engine").info("%s: set-up", run)
        log_to_file(tmp_path / "run" / "log.txt")
        logging.getLogger("engine").info("%s: training", run)
        logging.basicConfig(force=True)
    lines = [line.partition(" INFO ")[2] for line in (tmp_path / "run" / "log.txt").read_text().splitlines()]
    assert lines == ["first: set-up", "first: training", "second: set-up", "second: training"]
