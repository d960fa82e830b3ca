"""Weights are loaded strictly, and files are read as data."""

import pickle

import pytest
import torch
from tiny import picture, tiny_model

from engine.checkpoint import load_weights, read_checkpoint, save_checkpoint


class Payload:
    """An object that would run code when unpickled."""

    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('ran').touch()",))


def test_weights_come_back_the_same_from_path_checkpoint_and_state_dict(tmp_path):
    model = tiny_model().eval()
    image = picture(96, 120)
    box = torch.tensor([[10.0, 5, 50, 90]])
    expected = model.query([image], [box])[0]["embeddings"]
    checkpoint = {"model": model.state_dict(), "epoch": 3}
    save_checkpoint(tmp_path / "a.pth", checkpoint)
    for source in (tmp_path / "a.pth", checkpoint, model.state_dict()):
        other = tiny_model().eval()
        torch.nn.init.zeros_(other.search_head.embedding.projectors["res4"][0].weight)
        assert load_weights(other, source) == []
        assert torch.equal(other.query([image], [box])[0]["embeddings"], expected)


def test_tables_of_another_training_set_are_left_out(caplog):
    model = tiny_model(MODEL__OIM__NUM_IDS=0, MODEL__OIM__QUEUE_SIZE=3)
    with caplog.at_level("INFO"):
        assert load_weights(model, tiny_model().state_dict()) == ["search_head.oim.lut", "search_head.oim.cq"]
    assert "identity tables of another size" in caplog.text


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda s: s.pop("stem.conv1.weight"), "1 missing: stem.conv1.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 not in the network: extra"),
        (lambda s: s.update({"stem.bn1.bias": torch.zeros(3)}), r"stem.bn1.bias \(3,\), not \(64,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_their_keys(spoil, message):
    state = dict(tiny_model().state_dict())
    spoil(state)
    with pytest.raises(ValueError, match=message):
        load_weights(tiny_model(), state)


def test_a_file_that_holds_code_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Payload()}, "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "c.pth").write_bytes(b"")
    for name in ("a.pth", "b.pth", "c.pth"):
        with pytest.raises(ValueError, match=rf"{name} is damaged, or is not a checkpoint of data alone"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "a.pth", {"epoch": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        save_checkpoint(tmp_path / "a.pth", {"epoch": lambda: None})
    assert read_checkpoint(tmp_path / "a.pth") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*best.pth"):
        load_weights(tiny_model(), tmp_path / "best.pth")
