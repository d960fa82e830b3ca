"""Exported networks: the twin of fixed shapes against the network, files against the network, programs on files."""

import copy
import importlib.util
import json

import numpy as np
import pytest
import torch
from matching import assert_same_people
from PIL import Image
from tiny import CFG, call, eager_model, picture, tiny_cfg
from torch.torch_version import TorchVersion

import demo
from defaults import load_cfg
from engine.checkpoint import save_checkpoint
from engine.exported import INPUTS, Description, ExportedNetwork
from engine.networks import open_network, weights_digest
from engine.searcher import Searcher, SearchRequest
from models import build_model, results
from models.build import FAMILIES
from models.fast import prepare_for_inference
from models.fixed import keep_best
from models.two_stage.fixed import FixedPersonSearch
from tools import export

BOXES = torch.tensor([[10.0, 10, 40, 80], [30, 5, 70, 60], [5, 30, 60, 85]])
SIZES = [(90, 120), (90, 120), (120, 90), (70, 140)]
"""Heights and widths of the images that are searched: three padded sizes, one of them twice."""
SMALL = {"MODEL__BACKBONE__NAME": "tiny_convnext"}
VARIANTS = {
    "glcnet": {},
    "seqnet": {"MODEL__CONTEXT__SCENE": "none", "MODEL__CONTEXT__GROUP": "none"},
    "seqnext": {"MODEL__SEARCH_HEAD__BOX_DELTAS": "agnostic", "MODEL__SEARCH_HEAD__SCORE": "own"},
    "multiscale": {"MODEL__CONTEXT__SCENE": "multiscale", "MODEL__CONTEXT__GROUP": "multiscale"},
    "pool": {"MODEL__CONTEXT__SCENE": "gate", "MODEL__CONTEXT__GROUP": "pool"},
}


def images():
    return [picture(*size, seed) for seed, size in enumerate(SIZES)]


def exported(model, people=30, boxes=2):
    """A network that the twin of another one runs: what a file does, without one."""
    twin = FixedPersonSearch(model, people)

    def run(arrays):
        assert list(arrays) == list(INPUTS)
        with torch.no_grad():
            return [output.numpy() for output in twin(*map(torch.from_numpy, arrays.values()))]

    thresholds = twin.thresholds
    limits = thresholds.min_score, thresholds.nms_iou, thresholds.max_detections
    described = Description(96, 160, 32, "rgb", people, boxes, model.embedding_width, *limits, True, "0")
    return ExportedNetwork(run, described)


def assert_same_results(found, expected, pixels=1e-3, tolerance=1e-5):
    for ours, theirs in zip(found, expected, strict=True):
        assert len(theirs.boxes) > 3
        assert_same_people(vars(ours), vars(theirs), pixels, tolerance)
        assert torch.equal(ours.query_boxes, theirs.query_boxes)
        torch.testing.assert_close(ours.query_embeddings, theirs.query_embeddings, atol=tolerance, rtol=0)
        assert (ours.thresholds, ours.weight_by_score) == (theirs.thresholds, theirs.weight_by_score)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_twin_finds_and_embeds_as_the_network(variant):
    model = eager_model(**({} if variant == "glcnet" else SMALL), **VARIANTS[variant])
    boxes = [BOXES[:count] for count in (3, 0, 1, 2)]
    assert_same_results(exported(model).search(images(), boxes), model.search(images(), boxes))


def test_the_best_people_are_found_where_there_are_more():
    model = eager_model(**SMALL, MODEL__CONTEXT__GROUP="none")
    for ours, theirs in zip(exported(model, people=3).search(images()), model.search(images()), strict=True):
        assert_same_people(vars(ours), {name: vars(theirs)[name][:3] for name in results.TENSORS[:3]}, 1e-3, 1e-5)


def test_where_nobody_is_found_each_given_box_is_its_own_group():
    model = eager_model(**SMALL, MODEL__DETECTION_HEAD__SCORE_THRESH=0.9999)
    boxes = [BOXES] * len(SIZES)
    for ours, theirs in zip(exported(model).search(images(), boxes), model.search(images(), boxes), strict=True):
        assert not len(ours.boxes) and not len(theirs.boxes)
        torch.testing.assert_close(ours.query_embeddings, theirs.query_embeddings, atol=1e-5, rtol=0)


def test_boxes_are_kept_as_by_the_network():
    generator = torch.Generator().manual_seed(3)
    corners = 80 * torch.rand(4, 60, 2, generator=generator)
    sides = 40 * torch.rand(4, 60, 2, generator=generator) * (torch.rand(4, 60, 1, generator=generator) > 0.1)
    boxes, scores = torch.cat([corners, corners + sides], 2), torch.rand(4, 60, generator=generator)
    thresholds = results.Thresholds(0.2, 0.4, 25)
    index, kept = keep_best(boxes, scores, thresholds)
    assert index.shape == kept.shape == (4, 25)
    for row in range(4):
        assert index[row][kept[row]].tolist() == results.keep_best(boxes[row], scores[row], thresholds).tolist()


def test_copies_share_what_runs_and_search_the_same():
    network = exported(eager_model(**SMALL))
    prepared = prepare_for_inference(network)
    assert prepared.run is copy.deepcopy(network).run is network.run
    [(_, found)] = Searcher(network, "cpu")([SearchRequest(images()[0], BOXES[:1].numpy())])
    expected = network(images()[:1])[0]
    ours = {name: torch.from_numpy(getattr(found, name)) for name in expected}
    assert_same_people(ours, expected, 1e-3, 1e-6)


NOT_EXPORTED = {
    "oim_prw": "MODEL.DETECTION_HEAD.TYPE none",
    "seas_prw": "MODEL.SEARCH_HEAD.TYPE multi_granularity",
    "glcnet_companions_prw": "MODEL.CONTEXT.GROUP companions",
    "glcnet_coattention_cuhk_sysu": "MODEL.CONTEXT.SCENE coattention",
    "seqnext_gfn_prw": "MODEL.FILTER.TYPE combined",
    "glcnet_swin_prw": "MODEL.BACKBONE.NAME solider_swin_s",
}


@pytest.mark.parametrize("config", NOT_EXPORTED)
def test_parts_that_cannot_be_exported_are_named(config):
    cfg = load_cfg(CFG.replace("cuhk_sysu", config))
    with pytest.raises(ValueError, match=f"{NOT_EXPORTED[config]} cannot be exported"):
        FAMILIES["two_stage"].build_fixed(cfg, None, 8)


def stored(folder, cfg, model):
    """A checkpoint of a network."""
    save_checkpoint(folder / "best.pth", {"model": model.state_dict(), "config": cfg.dump()})
    return folder / "best.pth"


def test_arguments_that_cannot_be(tmp_path, capsys, monkeypatch):
    options = {"MODEL.FAMILY": "anchor_free", "MODEL.BACKBONE.NAME": "resnet18", "MODEL.BACKBONE.WEIGHTS": "none"}
    cfg = load_cfg(None, [word for pair in options.items() for word in pair])
    checkpoint = stored(tmp_path, cfg, build_model(cfg))
    monkeypatch.setattr(export, "check_packages", lambda: None)
    for out, told in (("x.pt", "must end in .onnx"), ("x.onnx", "take a checkpoint of MODEL.FAMILY two_stage")):
        assert call(export, "--ckpt", checkpoint, "--out", tmp_path / out) == 1
        assert told in capsys.readouterr().err
    assert call(export, "--ckpt", checkpoint, "--out", tmp_path / "x.onnx", "INPUT.MIN_SIZE", 0) == 1
    assert "INPUT.MIN_SIZE" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.6.0+cu124"))
    assert call(export, "--ckpt", checkpoint, "--out", tmp_path / "x.onnx") == 1
    assert "exporting takes torch 2.7 or newer, this is 2.6.0" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert call(export, "--ckpt", checkpoint, "--out", tmp_path / "x.onnx") == 1
    assert "onnx and onnxscript not installed: pip install -r requirements-export.txt" in capsys.readouterr().err


def test_a_file_of_another_kind_is_refused(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs requirements-export.txt")
    with pytest.raises(FileNotFoundError, match=r"no network at .*none.onnx"):
        open_network(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match=r"text.onnx cannot be read as an ONNX file .*: export it again"):
        open_network(tmp_path / "text.onnx")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint, and what tools.export makes of it."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs requirements-export.txt")
    if torch.__version__ < export.LEAST_TORCH:
        pytest.skip(f"exporting takes torch {export.LEAST_TORCH}")
    folder = tmp_path_factory.mktemp("export")
    low = {"MODEL__DETECTION_HEAD__SCORE_THRESH": 0.01, "MODEL__SEARCH_HEAD__SCORE_THRESH": 0.01}
    checkpoint = stored(folder, tiny_cfg(**low, EVAL__AMP="bf16"), eager_model())
    assert call(export, "--ckpt", checkpoint, "--out", folder / "net.onnx", "--people", 30, "--boxes", 2) == 0
    return checkpoint, folder / "net.onnx"


@pytest.mark.slow
def test_the_file_finds_and_embeds_as_the_network(files):
    (_, model), (cfg, network) = open_network(files[0]), open_network(files[1])
    boxes = [BOXES[:count] for count in (3, 0, 1, 2)]
    assert_same_results(network.search(images(), boxes), model.eval().search(images(), boxes), 1e-2, 1e-4)
    assert weights_digest(network) == weights_digest(model)
    assert (cfg.EVAL.AMP, cfg.INPUT.MIN_SIZE, network.preprocess.min_size) == ("off", 96, 96)


@pytest.mark.slow
def test_the_file_says_how_it_is_used(files):
    import onnxruntime

    session = onnxruntime.InferenceSession(files[1], providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map["search"])
    assert described["mean"] == [0.485, 0.456, 0.406] and described["bgr"] is False
    assert (described["people"], described["boxes"], described["embedding"]) == (30, 2, 640)
    assert [value.name for value in session.get_inputs()] == list(INPUTS)
    assert [value.shape[1:] for value in session.get_outputs()] == [[30, 4], [30], [30], [30, 640], [2, 640]]


@pytest.mark.slow
def test_options_of_the_network_are_those_of_the_file(files, tmp_path, capsys):
    for option in (("INPUT.MIN_SIZE", "128"), ("MODEL.RPN.NMS_THRESH", "0.5"), ("EVAL.AMP", "bf16")):
        with pytest.raises(
            ValueError, match=f"was exported with {option[0]} .*: leave the option out, or export again"
        ):
            open_network(files[1], None, option)
    assert open_network(files[1], None, ["INPUT.BATCH_SIZE_TEST", "2"])[0].INPUT.BATCH_SIZE_TEST == 2
    assert call(export, "--ckpt", files[1], "--out", tmp_path / "again.onnx") == 1
    assert "cannot be exported: take a checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_runs_on_the_file(files, tmp_path):
    for number in range(3):
        pixels = (255 * picture(90, 120, number)).permute(1, 2, 0).numpy().astype(np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    asked = ["--query", tmp_path / "photos/0.png", "--box", 10, 10, 40, 80, "--gallery", tmp_path / "photos"]
    similarities = []
    for file, out in zip(files, ("torch", "onnx"), strict=True):
        words = ["--ckpt", file, *asked, "--out", tmp_path / out, *(["EVAL.AMP", "off"] * (out == "torch"))]
        assert call(demo, *words) == 0
        found = json.loads((tmp_path / out / "results.json").read_text(encoding="utf-8"))
        similarities.append([row["similarity"] for row in found["ranked"]])
    assert similarities[0] == pytest.approx(similarities[1], abs=1e-4)
