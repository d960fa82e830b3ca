"""Weights under the names of published releases: recognised, mapped, checked, and refused in one sentence."""

import json
import re

import pytest
import torch
from releases import OPTIONS, released_model, released_weights
from tiny import ROOT, tiny_model

from defaults import load_cfg
from engine.checkpoint import fit_weights, identify, load_weights, read_checkpoint, save_checkpoint
from models import build_model
from models.build import FAMILIES
from models.releases import CONFIG_FOLDER
from models.two_stage.releases import RELEASES
from utils.errors import UserError

CONFIGS = sorted((ROOT / CONFIG_FOLDER).glob("*.yaml"))
TITLES = {release.config: release.title for release in RELEASES}
LEVELS = dict.fromkeys(["alignps", "alignps_plus"], [f"bbox_head.scales.{level}.scale" for level in range(1, 5)])
STRIPS = [(branch, strip) for branch in range(3) for strip in range(branch + 1)]
KEPT = [
    f"reid_roi_heads.embedder.encoders.{encoder}.branches.{branch}.strip_projectors.{strip}.drop_path.keep_prob"
    for encoder in (0, 1)
    for branch, strip in STRIPS
]
UNUSED = ["roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.cls_score.bias"]


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
def test_every_weight_of_a_release_finds_its_place(release, caplog):
    source, model = changed(released_model(release)), released_model(release)
    counters = [key for key in source.state_dict() if key.endswith("num_batches_tracked")]
    source.state_dict()[counters[0]].fill_(9)
    weights = {"model": wrapped_by_module(released_weights(release, source)), "optimizer": {}, "epoch": 3}
    assert identify(weights, "it").title == TITLES[release]
    with caplog.at_level("INFO"):
        left_out = load_weights(model, weights)
    assert_equal_weights(model, source)
    if release == "seas":
        assert left_out == KEPT
    elif release.startswith("nae"):
        assert left_out == UNUSED and f"as searching does not use it: {', '.join(UNUSED)}" in caplog.text
    else:
        assert left_out == []


def test_other_forms_of_files_are_known():
    """Own weights of several devices; the RPN's names since torchvision 0.13; no counters, which start from 0."""
    source, model = changed(released_model("seqnet")), released_model("seqnet")
    load_weights(model, {"model": wrapped_by_module(source.state_dict())})
    assert_equal_weights(model, source)

    state, model = released_weights("seqnet", source), released_model("seqnet")
    state["rpn.head.conv.0.0.weight"] = state.pop("rpn.head.conv.weight")
    model.search_head.oim.header.fill_(3)
    model.stem.bn1.num_batches_tracked.fill_(9)
    load_weights(model, {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")})
    assert_equal_weights(model, source)


def test_one_of_two_aliases_is_enough_but_they_may_not_differ():
    source, model = changed(released_model("glcnet_2021")), released_model("glcnet_2021")
    state = released_weights("glcnet_2021", source)
    load_weights(model, {key: value for key, value in state.items() if not key.startswith("cxt_")})
    assert_equal_weights(model, source)
    state["roi_heads.cxt_feat_extractor_scenario.3.bias"] += 1
    pair = "cxt_feat_extractor_scenario.3.bias and roi_heads.cxt_feat_extractor_scenario.3.bias"
    with pytest.raises(UserError, match=f"two different tensors for one weight: {re.escape(pair)}$"):
        load_weights(model, state)


def test_weights_with_a_gallery_filter_are_refused_without_one():
    state, rows = released_weights("seqnext_gfn", released_model("seqnext_gfn")), torch.zeros(483, 1)
    state |= {key: rows for key in state if key.endswith("reid_loss.lut")}
    with pytest.raises(UserError, match=f"not in the network: gallery_filter.*{CONFIG_FOLDER}/seqnext_gfn_prw.yaml$"):
        load_weights(released_model("seqnext"), state)


@pytest.mark.parametrize("release", OPTIONS)
@pytest.mark.parametrize("rows, datasets", [(5532, ["cuhk_sysu"]), (482, ["prw"]), (10, ["cuhk_sysu", "prw"])])
def test_the_config_of_the_right_network_is_named(release, rows, datasets):
    state = released_weights(release, released_model(release))
    state |= {key: torch.zeros(rows, 1) for key in state if key.endswith("reid_loss.lut")}
    files = " or ".join(f"{CONFIG_FOLDER}/{release}_{dataset}.yaml" for dataset in datasets)
    with pytest.raises(UserError, match=f"they are of {re.escape(TITLES[release])}, whose network is in {files}$"):
        load_weights(tiny_model(MODEL__DETECTION_HEAD__POOL="average", MODEL__EMBEDDING__RES4=7), state)


def test_own_weights_name_the_config_of_their_run(tmp_path):
    state, path = released_model("seqnet").state_dict(), tmp_path / "a.pth"
    for checkpoint, advice in (
        ({"model": state}, "need the config they were trained with"),
        ({"model": state, "config": "DEVICE: cpu"}, f"convert_checkpoint {path} --save-config"),
    ):
        save_checkpoint(path, checkpoint)
        with pytest.raises(UserError, match=advice):
            load_weights(tiny_model(), path)
    (tmp_path / "config.yaml").write_text("DEVICE: cpu")
    with pytest.raises(UserError, match=f"is in {tmp_path / 'config.yaml'}$"):
        load_weights(tiny_model(), path)


def test_weights_of_another_kind_are_refused_with_their_keys():
    with pytest.raises(UserError, match="neither this project's nor those of GLCNet.*: fc.weight, fc.bias$"):
        identify({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, "it")
    many = {f"backbone.body.conv{i}.weight": torch.zeros(1) for i in range(40)} | {"fc.bias": torch.zeros(1)}
    with pytest.raises(UserError, match=r"backbone.body.conv0.weight, .*conv3.weight and 37 more$"):
        identify(many, "it")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
def test_a_whole_release_file_is_read_as_data(tmp_path, zipped):
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [16])
    others = {"optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict(), "epoch": 1}
    state = released_weights("seqnet", released_model("seqnet"))
    torch.save({"model": state, **others}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(tmp_path / "a.pth").keys() == {"model", *others}
    assert load_weights(released_model("seqnet"), tmp_path / "a.pth") == []


# ------------------------------------------------------------------------------------------------------------ configs
FACTS = {"seqnet": (48.42, 256), "glcnet_2021": (None, 512), "glcnet_2024": (None, 832), "nae": (33.44, 256)}
FACTS |= {"nae_plus": FACTS["nae"], "alignps": (42.18, 256), "alignps_plus": (43.05, 256), "seqnext": (119.0, 2048)}
FACTS |= {"seqnext_gfn": (148.03, 2048), "seas": (140.4, 1024)}
ONE_MORE = ("alignps", "alignps_plus", "seqnext", "seqnext_gfn", "seas")
"""Releases that count 483 identities in PRW."""
"""Release -> millions of parameters, where they are known, and dimensions of an embedding."""


def test_each_release_has_a_config_for_each_dataset():
    releases = [release for family in FAMILIES.values() for release in family.releases]
    wanted = {f"{release.config}_{dataset}" for release in releases for dataset in ("cuhk_sysu", "prw")}
    assert {path.stem for path in CONFIGS} == wanted


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_describes_the_network_of_the_release(path):
    release = path.stem.removesuffix("_cuhk_sysu").removesuffix("_prw")
    with torch.device("meta"):
        model = build_model(load_cfg(path))
    millions, dims = FACTS[release]
    if millions:
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    lut, cq, _ = (model.state_dict()[key] for key in model.identity_memory)
    identities, queue = (482 + (release in ONE_MORE), 500) if path.stem.endswith("prw") else (5532, 5000)
    assert lut.shape == (identities, dims) and cq.shape == (queue, dims)


@pytest.mark.parametrize(
    "release, unused",
    [
        ("nae", UNUSED),
        ("nae_plus", UNUSED),
        ("seqnext", []),
        ("seqnext_gfn", []),
        ("seas", KEPT),
        *LEVELS.items(),
    ],
)
def test_key_lists_of_releases_fit_their_config(release, unused, shared_dir):
    file = f"keys_{release.removeprefix('seqnext_')}.json"
    tensors = json.loads((shared_dir / "golden" / file).read_text())["tensors"]
    with torch.device("meta"):
        model = build_model(load_cfg(ROOT / CONFIG_FOLDER / f"{release}_cuhk_sysu.yaml"))
    # Single numbers in large shapes: they take no memory.
    state = {key: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape) for key, (shape, dtype) in tensors.items()}
    left_out = [key for key in fit_weights(model, state, "the list")[1] if key not in model.identity_memory]
    assert left_out == unused
