"""Weights are loaded strictly, and files that are damaged or of another kind are refused in one sentence."""

import io
import pickle
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from disks import damaged_copies
from tiny import picture, tiny_model

from engine.checkpoint import load_weights, read_checkpoint, save_checkpoint
from utils.errors import UserError


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
    source, model = tiny_model(), tiny_model(MODEL__OIM__NUM_IDS=7, MODEL__OIM__QUEUE_SIZE=3)
    source.search_head.oim.header.fill_(6)
    with caplog.at_level("INFO"):
        assert load_weights(model, source.state_dict()) == list(model.identity_memory)
    assert "identity tables are missing or of another size" in caplog.text
    assert (len(model.search_head.oim.lut), model.search_head.oim.header) == (7, 0)


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
    with pytest.raises(UserError, match=message):
        load_weights(tiny_model(), state)


def test_a_checkpoint_that_is_missing_or_cannot_be_opened_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*best.pth"):
        load_weights(tiny_model(), tmp_path / "best.pth")
    save_checkpoint(tmp_path / "a.pth", {"epoch": 1})

    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied: .*a.pth"):
        read_checkpoint(tmp_path / "a.pth")


CONTENT = {"model": {"stem.a": torch.arange(300.0)}, "epoch": 3, "config": "SEED: 1"}


def is_refused(path: Path) -> bool:
    """Whether a damaged file of CONTENT is refused in one sentence that names it; if not, what is read is right."""
    try:
        found = read_checkpoint(path)
    except UserError as error:
        assert str(path) in str(error) and "take another" in str(error) and "\n" not in str(error)
        return True
    assert torch.equal(found["model"]["stem.a"], CONTENT["model"]["stem.a"])
    assert found | {"model": CONTENT["model"]} == CONTENT
    return False


def with_checksum(path: Path, content: dict) -> None:
    """As earlier versions of this project did: a line of text behind the archive."""
    torch.save(content, path)
    path.write_bytes(path.read_bytes() + b"\ncrc32 %08x" % zlib.crc32(path.read_bytes()))


@pytest.mark.parametrize("save", [save_checkpoint, with_checksum])
def test_a_damaged_checkpoint_is_refused_or_its_content_is_whole(save, tmp_path):
    path = tmp_path / "a.pth"
    save(path, CONTENT)
    assert not is_refused(path)
    refused = 0
    for damaged in damaged_copies(path.read_bytes()):
        path.write_bytes(damaged)
        refused += is_refused(path)
    assert refused > 60  # the others changed the padding between tensors


def test_an_entry_marked_as_a_folder_is_damage(tmp_path):
    """PyTorch would leave its tensor as the memory happened to be; no checksum covers the mark."""
    save_checkpoint(tmp_path / "a.pth", CONTENT)
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[content.index(b"PK\1\2") + 38] |= 0x10  # the first entry's external attributes
    (tmp_path / "a.pth").write_bytes(content)
    assert is_refused(tmp_path / "a.pth")


def archive(pickled: bytes) -> bytes:
    """A file as torch.save writes it, around a pickle made by hand."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as entries:
        entries.writestr("archive/data.pkl", pickled)
        entries.writestr("archive/version", "3\n")
    return file.getvalue()


OTHER_FILES = {
    "names what it never stored": archive(b"\x80\x02h\x99."),
    "calls with wrong arguments": archive(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02tR."),
    "list": archive(pickle.dumps([1], 2)),
    "number as key": archive(pickle.dumps({1: 2}, 2)),
    "number as config": archive(pickle.dumps({"config": 3}, 2)),
    "empty": b"",
    "text": b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("content", OTHER_FILES.values(), ids=OTHER_FILES)
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    assert is_refused(tmp_path / "a.pth")


READER_ERRORS = {
    RecursionError("PyTorch's"): (UserError, "a.pth is damaged, or is not a checkpoint of data alone"),
    MemoryError(): (OSError, "not enough memory to read: .*a.pth"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"): (OSError, "not enough memory to read: .*a.pth"),
}


@pytest.mark.parametrize("error", READER_ERRORS, ids=repr)
def test_whatever_a_reader_raises_is_one_sentence(error, tmp_path, monkeypatch):
    """A whole file is not damaged because memory is short: training would resume from an older one."""
    save_checkpoint(tmp_path / "a.pth", {"epoch": 1})

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    kind, message = READER_ERRORS[error]
    with pytest.raises(kind, match=message) as caught:
        read_checkpoint(tmp_path / "a.pth")
    assert "PyTorch" not in str(caught.value)


NO_WEIGHTS = [
    {},
    {1: torch.ones(2)},
    {"stem.a": {"b": torch.ones(1)}},
    {"stem.a": torch.ones(2).to_sparse()},
    {"stem.a": torch.ones(2, device="meta")},
    3,
]


@pytest.mark.parametrize("weights", NO_WEIGHTS)
def test_what_holds_no_weights_is_refused_under_its_name(weights):
    with pytest.raises(UserError, match=r"^runs/last.pth holds no weights: .*take another"):
        load_weights(tiny_model(), {"model": weights}, "runs/last.pth")
