"""tools.convert_checkpoint describes a file, and what it writes opens as the network that was read."""

import hashlib
from functools import partial
from pathlib import Path

import pytest
import torch
from releases import NO_CONTEXT, released_model, released_weights
from tiny import call, picture, tiny_cfg

from defaults import load_cfg
from engine.checkpoint import load_weights, read_checkpoint, save_checkpoint
from models import build_model
from tools import convert_checkpoint, converting

BOX = torch.tensor([[20.0, 10, 60, 80]])


convert = partial(call, convert_checkpoint)


@pytest.fixture(scope="module")
def model():
    """A network with SeqNet's architecture, in eval mode; not to be changed."""
    return released_model("seqnet").eval()


@pytest.fixture
def own(model, tmp_path) -> Path:
    """A checkpoint of a training run."""
    config = tiny_cfg(**NO_CONTEXT).dump()
    state = {"model": model.state_dict(), "optimizer": {"state": {}}, "epoch": 7, "best": 0.5, "config": config}
    save_checkpoint(tmp_path / "own.pth", state)
    return tmp_path / "own.pth"


@pytest.fixture
def release(model, tmp_path) -> Path:
    """A SeqNet release, though of a tiny network."""
    torch.save({"model": released_weights("seqnet", model), "optimizer": {}, "epoch": 19}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


@pytest.fixture
def cfg(tmp_path) -> Path:
    """The config of `release`, whose network is tiny; with other tables than its own."""
    (tmp_path / "tiny.yaml").write_text(tiny_cfg(**NO_CONTEXT, MODEL__OIM__NUM_IDS=3).dump())
    return tmp_path / "tiny.yaml"


def reopened(path: Path, tmp_path: Path):
    """The network of a converted file, built from its own config."""
    checkpoint = read_checkpoint(path)
    (tmp_path / "reopened.yaml").write_text(checkpoint["config"])
    network = build_model(load_cfg(tmp_path / "reopened.yaml")).eval()
    return network, load_weights(network, path)


def embedding(network) -> torch.Tensor:
    return network.query([picture(96, 120)], [BOX])[0]["embeddings"]


def test_a_converted_release_opens_with_its_config_and_names_its_origin(model, release, cfg, tmp_path, capsys):
    assert convert(release, tmp_path / "out.pth", "--cfg", cfg) == 0
    network, left_out = reopened(tmp_path / "out.pth", tmp_path)
    assert left_out == []
    assert torch.equal(embedding(network), embedding(model))
    digest = hashlib.sha256(release.read_bytes()).hexdigest()
    origin = {"file": "theirs.pth", "sha256": digest, "format": "SeqNet (2021)", "epoch": 19}
    converted = read_checkpoint(tmp_path / "out.pth")
    assert converted.keys() == {"model", "config", "source"}
    assert converted["source"] == origin
    assert convert(tmp_path / "out.pth", tmp_path / "again.pth") == 0
    assert read_checkpoint(tmp_path / "again.pth")["source"] == origin
    assert f"written to {tmp_path / 'again.pth'}" in capsys.readouterr().out


def test_own_checkpoints_keep_what_a_resumed_run_needs_unless_stripped_or_half_as_large(model, own, tmp_path):
    assert convert(own, "--save-config", tmp_path / "config.yaml") == 0
    assert load_cfg(tmp_path / "config.yaml") == tiny_cfg(**NO_CONTEXT)
    assert convert(own, tmp_path / "whole.pth") == 0
    whole = read_checkpoint(tmp_path / "whole.pth")
    assert whole.keys() == {"model", "optimizer", "epoch", "best", "config", "source"}
    assert convert(own, tmp_path / "bare.pth", "--strip") == 0
    bare = read_checkpoint(tmp_path / "bare.pth")
    assert bare.keys() == {"model", "config", "source"}
    assert whole["model"].keys() - bare["model"].keys() == set(model.identity_memory)
    network, left_out = reopened(tmp_path / "bare.pth", tmp_path)
    assert left_out == list(model.identity_memory)
    assert torch.equal(embedding(network), embedding(model))

    assert convert(own, tmp_path / "half.pth", "--strip", "--half") == 0
    assert (tmp_path / "half.pth").stat().st_size < 0.55 * (tmp_path / "bare.pth").stat().st_size
    network, _ = reopened(tmp_path / "half.pth", tmp_path)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    similarity = torch.nn.functional.cosine_similarity(embedding(network), embedding(model))
    assert 0.999 < similarity < 1 - 1e-9


def test_what_cannot_be_done_is_refused_in_one_sentence(model, own, release, tmp_path, capsys):
    save_checkpoint(tmp_path / "bare.pth", dict(model.state_dict()))
    checkpoint, before = read_checkpoint(own), own.read_bytes()
    checkpoint["model"]["stem.bn1.running_var"][2] = 70000
    large, out = tmp_path / "large.pth", tmp_path / "out.pth"
    save_checkpoint(large, checkpoint)
    for arguments, message in (
        ((own, own, "--strip"), "is the file that is read: name another one to write"),
        ((own, "--half"), "name a file OUT"),
        (
            (tmp_path / "bare.pth", out),
            "bare.pth does not carry the options of its network: name its config file with --cfg",
        ),
        ((release, out), "do not fit the network"),  # the release's config: this network is tiny
        ((large, out, "--half"), f"{large}: stem.bn1.running_var holds values up to 70000"),
    ):
        assert convert(*arguments) == 1
        assert message in capsys.readouterr().err
    assert own.read_bytes() == before and not out.exists()


@pytest.fixture
def described(capsys, monkeypatch):
    """Describes a file without building a network: the facts printed, by name."""

    def describe(path: Path) -> dict[str, str]:
        monkeypatch.setattr(converting, "build_model", None)
        assert convert(path) == 0
        monkeypatch.undo()
        return {line[:11].strip(): line[11:].strip() for line in capsys.readouterr().out.splitlines()}

    return describe


def test_a_file_is_described_without_a_network(model, own, release, described):
    ours = described(own)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert ours.items() >= {
        "format": "this project", "tensors": str(len(model.state_dict())), "parameters": f"{millions:.2f} M",
        "lut": "10 x 384", "cq": "8 x 384", "epoch": "7", "config": "in the file", "besides": "best, optimizer",
    }.items()  # fmt: skip
    assert "float32" in ours["types"] and "int64" in ours["types"]
    theirs = described(release)
    assert theirs["format"] == "SeqNet (2021)"
    assert theirs["parameters"] == ours["parameters"]
    assert theirs["config"] == "configs/releases/seqnet_cuhk_sysu.yaml or configs/releases/seqnet_prw.yaml"


def test_keys_without_a_place_and_unused_ones_are_described(tmp_path, capsys, described):
    state = released_weights("nae", released_model("nae")) | {"roi_heads.extra": torch.zeros(1)}
    torch.save(state, tmp_path / "a.pth")
    facts = described(tmp_path / "a.pth")
    assert facts["not known"] == "roi_heads.extra"
    assert "cls_score.weight" in facts["never used"]
    assert convert(tmp_path / "a.pth", tmp_path / "out.pth") == 1
    assert "has keys that NAE (2020) does not have: roi_heads.extra" in capsys.readouterr().err
