"""Weights under the names of published releases: told apart, placed, checked, and refused in one sentence."""

import json
import re
from pathlib import Path

import pytest
import torch
from releases import OPTIONS, released_model, released_weights
from tiny import picture, tiny_model

from defaults import load_cfg
from engine.checkpoint import fit_weights, load_weights, read_checkpoint, save_checkpoint
from engine.weights import identify
from models import build_model
from models.releases import CONFIG_FOLDER
from models.two_stage.releases import RELEASES

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / CONFIG_FOLDER).glob("*.yaml"))
TITLES = {release.config: release.title for release in RELEASES}
UNUSED = ["roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.cls_score.bias"]
BOX = torch.tensor([[20.0, 10, 60, 80]])


def changed(model):
    """The model with other weights, tables and statistics in every place."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) * 0.1 + 0.01)
    return model


def assert_equal_weights(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert not [key for key in ours if not torch.equal(ours[key], theirs[key])]


def wrapped_by_module(state):
    return {f"module.{key}": value for key, value in state.items()}


@pytest.mark.parametrize("release", OPTIONS)
@pytest.mark.parametrize(
    "wrap",
    [dict, wrapped_by_module, lambda state: {"model": wrapped_by_module(state), "optimizer": {}, "epoch": 3}],
    ids=["bare", "module", "checkpoint"],
)
def test_every_weight_of_a_release_finds_its_place(release, wrap):
    source, model = changed(released_model(release)), released_model(release)
    left_out = load_weights(model, wrap(released_weights(release, source)))
    assert left_out == (UNUSED if release.startswith("nae") else [])
    assert_equal_weights(model, source)


@pytest.mark.parametrize("release", OPTIONS)
def test_a_release_is_told_by_its_keys(release):
    assert identify(released_weights(release, released_model(release)), "it").title == TITLES[release]


def test_own_weights_are_told_by_their_keys_wrapped_or_not():
    source, model = changed(tiny_model()), tiny_model()
    load_weights(model, {"model": wrapped_by_module(source.state_dict())})
    assert_equal_weights(model, source)


def test_released_weights_search_as_their_network_does(tmp_path):
    source = released_model("glcnet_2024").eval()
    torch.save({"model": released_weights("glcnet_2024", source)}, tmp_path / "a.pth")
    model = released_model("glcnet_2024").eval()
    torch.nn.init.zeros_(model.search_head.embedding.projectors["part2_1"][0].weight)
    load_weights(model, tmp_path / "a.pth")
    image = picture(96, 120)
    ours, theirs = (m.query([image], [BOX])[0]["embeddings"] for m in (model, source))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["rpn.head.conv.weight", "rpn.head.conv.0.0.weight"])
def test_both_names_of_the_rpn_are_known(name):
    source, model = changed(released_model("seqnet")), released_model("seqnet")
    state = released_weights("seqnet", source)
    state[name] = state.pop("rpn.head.conv.weight")
    load_weights(model, state)
    assert torch.equal(model.rpn.head.conv[0][0].weight, source.rpn.head.conv[0][0].weight)


def test_one_of_two_aliases_is_enough():
    source, model = changed(released_model("glcnet_2021")), released_model("glcnet_2021")
    state = released_weights("glcnet_2021", source)
    load_weights(model, {key: value for key, value in state.items() if not key.startswith("cxt_")})
    assert_equal_weights(model, source)


def test_aliases_that_differ_are_refused():
    state = released_weights("glcnet_2021", released_model("glcnet_2021"))
    state["roi_heads.cxt_feat_extractor_scenario.3.bias"] += 1
    pair = "cxt_feat_extractor_scenario.3.bias and roi_heads.cxt_feat_extractor_scenario.3.bias"
    with pytest.raises(ValueError, match=f"two different tensors for one weight: {re.escape(pair)}$"):
        load_weights(released_model("glcnet_2021"), state)


def test_counters_that_old_files_lack_start_from_0(caplog):
    source, model = changed(released_model("seqnet")), released_model("seqnet")
    state = released_weights("seqnet", source)
    model.search_head.oim.header.fill_(3)
    model.stem.bn1.num_batches_tracked.fill_(9)
    with caplog.at_level("INFO"):
        load_weights(model, {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")})
    assert_equal_weights(model, source)
    assert "starts from 0 what it lacks" in caplog.text


def test_a_release_keeps_its_counters():
    source, model = released_model("seqnet"), released_model("seqnet")
    source.stem.bn1.num_batches_tracked.fill_(9)
    load_weights(model, released_weights("seqnet", source))
    assert model.stem.bn1.num_batches_tracked == 9


def test_weights_that_a_release_never_uses_are_reported(caplog):
    with caplog.at_level("INFO"):
        assert load_weights(released_model("nae"), released_weights("nae", released_model("nae"))) == UNUSED
    assert f"NAE (2020) itself never uses are left out: {', '.join(UNUSED)}" in caplog.text


def test_tables_of_another_training_set_are_left_out(caplog):
    source = changed(released_model("seqnet"))
    model = released_model("seqnet", MODEL__OIM__NUM_IDS=7, MODEL__OIM__QUEUE_SIZE=3)
    with caplog.at_level("INFO"):
        left_out = load_weights(model, released_weights("seqnet", source))
    assert left_out == ["search_head.oim.lut", "search_head.oim.cq"]
    assert "identity tables of another size" in caplog.text
    assert len(model.search_head.oim.lut) == 7
    assert torch.equal(model.stem.conv1.weight, source.stem.conv1.weight)


@pytest.mark.parametrize("release", OPTIONS)
def test_keys_without_a_place_are_listed(release):
    state = released_weights(release, released_model(release))
    state |= {"roi_heads.extra.weight": torch.zeros(1), "backbone.fc.bias": torch.zeros(1)}
    listed = "with 2 keys that are not known: roi_heads.extra.weight, backbone.fc.bias"
    with pytest.raises(ValueError, match=f"{re.escape(TITLES[release])} {listed}$"):
        load_weights(released_model(release), state)


def test_weights_of_another_shape_are_refused():
    state = released_weights("seqnet", released_model("seqnet"))
    state["backbone.bn1.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"1 of another shape: stem.bn1.bias \(3,\), not \(64,\)"):
        load_weights(released_model("seqnet"), state)


def test_a_missing_weight_is_named():
    state = released_weights("seqnet", released_model("seqnet"))
    del state["roi_heads.faster_rcnn_predictor.cls_score.bias"]
    with pytest.raises(ValueError, match="1 missing: detection_head.predictor.cls_score.bias"):
        load_weights(released_model("seqnet"), state)


@pytest.mark.parametrize("release", OPTIONS)
def test_the_config_of_the_right_network_is_named(release):
    state = released_weights(release, released_model(release))
    other = "seqnet" if release != "seqnet" else "glcnet_2021"
    both = f"{CONFIG_FOLDER}/{release}_cuhk_sysu.yaml or {CONFIG_FOLDER}/{release}_prw.yaml"
    with pytest.raises(ValueError, match=f"they are of {re.escape(TITLES[release])}, whose network is in {both}$"):
        load_weights(released_model(other), state)


@pytest.mark.parametrize("rows, dataset", [(5532, "cuhk_sysu"), (482, "prw")])
def test_the_table_tells_the_dataset(rows, dataset):
    state = released_weights("seqnet", released_model("seqnet"))
    state["roi_heads.reid_loss.lut"] = torch.zeros(rows, 256)
    with pytest.raises(ValueError, match=f"whose network is in {CONFIG_FOLDER}/seqnet_{dataset}.yaml$"):
        load_weights(tiny_model(), state)


def test_own_weights_name_the_config_of_their_run(tmp_path):
    state, path = released_model("seqnet").state_dict(), tmp_path / "a.pth"
    for checkpoint, told in (
        ({"model": state}, "need the config they were trained with"),
        ({"model": state, "config": "DEVICE: cpu"}, f"convert_checkpoint {path} --save-config"),
    ):
        save_checkpoint(path, checkpoint)
        with pytest.raises(ValueError, match=told):
            load_weights(tiny_model(), path)
    (tmp_path / "config.yaml").write_text("DEVICE: cpu")
    with pytest.raises(ValueError, match=f"is in {tmp_path / 'config.yaml'}$"):
        load_weights(tiny_model(), path)


def test_weights_of_another_kind_are_refused_with_their_keys():
    with pytest.raises(ValueError, match="neither this project's nor those of GLCNet.*2 unknown: fc.weight, fc.bias$"):
        load_weights(tiny_model(), {"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})
    many = {f"backbone.body.conv{i}.weight": torch.zeros(1) for i in range(40)} | {"fc.bias": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"41 unknown: backbone.body.conv0.* \(1\).*, fc.* \(1\)$"):
        load_weights(tiny_model(), many)


@pytest.mark.parametrize("source", [{}, {"model": {}}, {"epoch": 3}, {"model": [1]}])
def test_a_file_without_weights_is_refused(source):
    with pytest.raises(ValueError, match="the given state dict holds no weights"):
        load_weights(tiny_model(), source)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
def test_a_whole_release_file_is_read_as_data(tmp_path, zipped):
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [16])
    parts = {"optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict(), "epoch": 1}
    state = released_weights("seqnet", released_model("seqnet"))
    torch.save({"model": state, **parts}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(tmp_path / "a.pth").keys() == {"model", *parts}
    assert load_weights(released_model("seqnet"), tmp_path / "a.pth") == []


# ------------------------------------------------------------------------------------------------------------ configs
FACTS = {"seqnet": (48.42, 256), "glcnet_2021": (None, 512), "glcnet_2024": (None, 832), "nae": (33.44, 256)}
FACTS["nae_plus"] = FACTS["nae"]
"""Release -> millions of parameters, where they are published, and dimensions of an embedding."""


def test_each_release_has_a_config_for_each_dataset():
    wanted = {f"{release.config}_{dataset}" for release in RELEASES for dataset in ("cuhk_sysu", "prw")}
    assert {path.stem for path in CONFIGS} == wanted
    folders = [load_cfg(path).OUTPUT_DIR for path in [*CONFIGS, *(ROOT / "configs").glob("*.yaml")]]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_describes_the_network_of_the_release(path):
    release = path.stem.removesuffix("_cuhk_sysu").removesuffix("_prw")
    with torch.device("meta"):
        model = build_model(load_cfg(path))
    millions, dims = FACTS[release]
    if millions:
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert model.search_head.oim.lut.shape == ((482 if path.stem.endswith("prw") else 5532), dims)
    assert len(model.search_head.oim.cq) == (500 if path.stem.endswith("prw") else 5000)


@pytest.mark.parametrize("release", ["nae", "nae_plus"])
def test_key_lists_of_releases_without_known_answers_fit_their_config(release, shared_dir):
    tensors = json.loads((shared_dir / "golden" / f"keys_{release}.json").read_text())["tensors"]
    with torch.device("meta"):
        model = build_model(load_cfg(ROOT / CONFIG_FOLDER / f"{release}_cuhk_sysu.yaml"))
    # Single numbers in large shapes: they take no memory.
    state = {key: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape) for key, (shape, dtype) in tensors.items()}
    assert fit_weights(model.state_dict(), state, "the list")[1] == UNUSED
