"""The program that tests: what it refuses before the network runs, and what an interruption leaves."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from scipy.io import loadmat
from tiny import CFG, call, words
from trees import PROTOCOLS, swapped, write_subsets

from datasets import open_subsets
from datasets.writers import save
from defaults import load_cfg
from engine.checkpoint import read_checkpoint
from engine.feature_files import Features
from engine.networks import match_thresholds, options_of
from engine.scoring import columns_of, only_columns, share_of_squared_norm
from engine.searcher import Searcher
from models import build_model
from tools import test as test_tool
from tools import testing
from utils.errors import UserError
from utils.evaluation.detection import HEIGHT_RANGES

DETECTING = {"MODEL__DETECTION_HEAD__SCORE_THRESH": 0.3, "MODEL__SEARCH_HEAD__SCORE_THRESH": 0.3}


def run(data: Path, out: Path, *arguments: str, **options) -> int:
    """Test a network with random weights, which it saves as the best of a run."""
    if not (out / "best.pth").exists():
        cfg = load_cfg(CFG, words(data, out, **DETECTING))
        torch.save({"model": build_model(cfg).state_dict(), "config": cfg.dump()}, out / "best.pth")
    return call(test_tool, "--cfg", CFG, *words(data, out, **DETECTING | options), *arguments)


def partial_in(out: Path) -> list[Path]:
    return sorted((out / "test").glob("partial-*"))


@pytest.fixture
def images_seen(monkeypatch) -> list[int]:
    """The number of images of each batch that the network searches."""
    search, seen = Searcher._search, []
    monkeypatch.setattr(Searcher, "_search", lambda self, batch: seen.append(len(batch)) or search(self, batch))
    return seen


def test_an_interrupted_test_resumes_and_removes_its_partial_results(cuhk, tmp_path, images_seen, monkeypatch, capsys):
    search = Searcher._search

    def stop_at_the_third(self, batch):
        if len(images_seen) == 2:
            raise KeyboardInterrupt
        return search(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Searcher, "_search", stop_at_the_third)
        assert run(cuhk, tmp_path, INPUT__BATCH_SIZE_TEST=2) == 130
    [folder] = partial_in(tmp_path)
    assert sum(images_seen) == 4
    images_seen.clear()
    assert run(cuhk, tmp_path, INPUT__BATCH_SIZE_TEST=3) == 0
    everything = sum(images_seen)
    assert partial_in(tmp_path) == [folder], "those of another batch size are left alone"
    images_seen.clear()
    assert run(cuhk, tmp_path, INPUT__BATCH_SIZE_TEST=2) == 0
    assert sum(images_seen) == everything - 4
    printed = capsys.readouterr().err
    assert f"searched {everything} of {everything} images" in printed
    assert f"{folder}: resumed with the features of 4 images found earlier" in printed
    assert f"searched {everything - 4} of {everything} images" in printed
    assert not partial_in(tmp_path)


def test_a_network_says_from_which_score_on_people_are_searched(cuhk, tmp_path, monkeypatch):
    """Those of AlignPS are far below those of other networks."""
    limits = []
    score = testing.score_search
    monkeypatch.setattr(testing, "score_search", lambda *args: limits.append(args[4]) or score(*args))
    assert run(cuhk, tmp_path, MODEL__GALLERY_SCORE_THRESH=0.125) == 0
    assert limits == [0.125]


@pytest.mark.parametrize("saved", [True, False])
def test_partial_results_are_kept_until_the_features_are_safe(saved, cuhk, tmp_path, monkeypatch):
    def fails(*_):
        raise UserError("scoring fails")

    monkeypatch.setattr(testing, "score_search", fails)
    features = tmp_path / "features.npz"
    assert run(cuhk, tmp_path, *(["--features", str(features)] if saved else [])) == 1
    assert features.exists() == saved
    assert len(partial_in(tmp_path)) == (0 if saved else 1)


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (["--gallery-size", "50", "7"], {}, "no gallery size 7"),
        ([], {"EVAL__CROSS_CAMERA": True}, "does not know its cameras"),
        ([], {"INPUT__BATCH_SIZE_TEST": 0}, "INPUT.BATCH_SIZE_TEST must be 1 or more, not 0"),
        ([], {"EVAL__AMP": "half"}, "EVAL.AMP 'half' is not one of off, fp16, bf16"),
    ],
)
def test_settings_are_refused_before_the_network_runs(arguments, options, message, cuhk, tmp_path, images_seen, capsys):
    assert run(cuhk, tmp_path, *arguments, **options) == 1
    assert message in capsys.readouterr().err
    assert not images_seen


def test_features_without_what_a_setting_needs_are_refused(cuhk, tmp_path, capsys):
    features = ["--features", str(tmp_path / "features.npz")]
    assert run(cuhk, tmp_path, *features) == 0
    assert run(cuhk, tmp_path, *features, "--gt") == 1
    assert "holds no ground-truth boxes" in capsys.readouterr().err
    (tmp_path / "features.npz").write_bytes(b"not features")
    assert run(cuhk, tmp_path, *features) == 1
    assert "not a valid file of features" in capsys.readouterr().err


def test_the_subsets_of_cuhk_sysu_are_further_rows(cuhk, tmp_path, images_seen):
    """One has the queries of the split, and scores as they do; the other scores as a dataset with its queries does."""
    data, other = (copytree(cuhk, tmp_path / name) for name in ("data", "other"))
    write_subsets(data)
    for size in (50, 100):
        path = other / PROTOCOLS / f"TestG{size}.mat"
        save(path, **{path.stem: swapped(loadmat(path)[path.stem])})
    kinds, features = ["--gt", "--cbgm"], ["--features", str(tmp_path / "features.npz")]

    def rows(root, *arguments):
        assert run(root, tmp_path, *kinds, *arguments) == 0
        return json.loads((tmp_path / "test" / "metrics.json").read_text())["search"]

    found, of_other = rows(data, *features, "--subsets"), rows(other)
    for start, gallery, expected in ((3, "occlusion", found[:3]), (6, "low resolution", of_other)):
        assert found[start : start + 3] == [pytest.approx(row | {"gallery": gallery}) for row in expected]
    assert len(found) == 9 and 0 < found[2]["mAP"] != found[8]["mAP"]
    images_seen.clear()
    assert rows(data, *features) == found[:3] and rows(data, *features, "--subsets") == found and not images_seen


def test_subsets_that_are_not_there_are_refused(cuhk, tmp_path, images_seen, capsys):
    assert run(cuhk, tmp_path, "--subsets") == 1
    assert "annotation/test/subset/Occlusion.mat is missing" in capsys.readouterr().err and not images_seen
    with pytest.raises(UserError, match="--subsets: PRW has no test subsets"):
        open_subsets(load_cfg(None, ["INPUT.DATASET", "PRW"]))


def test_an_untrained_network_is_scored_with_ground_truth_boxes(cuhk, tmp_path, capsys):
    assert run(cuhk, tmp_path, "--untrained") == 0
    [row] = json.loads((tmp_path / "test" / "metrics.json").read_text())["search"]
    assert row["boxes"] == "ground truth" and row["mAP"] > 0


@pytest.mark.parametrize("arguments", [["--gt", "--cbgm"], ["--untrained"]])
def test_each_feature_of_the_embedding_is_scored_alone(arguments, cuhk, tmp_path, capsys):
    assert run(cuhk, tmp_path, *arguments, "--by-feature") == 0
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert [row["feature"] for row in metrics["features"]] == ["res4", "res5"]
    assert [row["height"] for row in metrics["detection_by_height"]] == list(HEIGHT_RANGES)
    assert sum(row["share of squared norm"] for row in metrics["features"]) == pytest.approx(1, abs=1e-4)
    assert "by one feature of the embedding alone, boxes ground truth, gallery usual" in capsys.readouterr().out
    checkpoint = None if "--untrained" in arguments else str(tmp_path / "best.pth")
    assert (metrics["checkpoint"], metrics["epoch"], metrics["data"]) == (checkpoint, None, str(cuhk))
    assert metrics["features_file"] is None
    assert load_cfg(tmp_path / "test" / "config.yaml").MODEL.BACKBONE.NAME == "mobilenet_v2"


def test_features_of_another_network_or_of_none_are_refused(cuhk, tmp_path, images_seen, capsys):
    linear = {"MODEL__SEARCH_HEAD__TYPE": "linear"}
    assert run(cuhk, tmp_path, "--untrained", "--by-feature", **linear) == 1
    assert "is not made of several features; leave it out" in capsys.readouterr().err and not images_seen
    file = ["--features", str(tmp_path / "features.npz")]
    assert run(cuhk, tmp_path, *file) == 0
    assert run(cuhk, tmp_path, *file, "--by-feature", MODEL__EMBEDDING__RES4=7) == 1
    assert "have 135 dimensions in all, these embeddings 384" in capsys.readouterr().err


def test_columns_of_features_keep_their_direction_and_the_length_of_the_whole():
    rows = np.array([[3.0, 0, 4, 0], [0, 1, 0, 0]], np.float32)
    features = Features(gallery_feats=[rows], query_feats=[rows[:1]], context_feats=[rows], ground_truth_feats=[rows])
    last = only_columns(features, slice(2, 4))
    np.testing.assert_allclose(last.gallery_feats[0], [[5, 0], [0, 0]])
    np.testing.assert_allclose(last.query_feats[0], [[5, 0]])
    for rows_of in (features, Features(gallery_feats=[rows[:0]], ground_truth_feats=[rows])):
        assert share_of_squared_norm(rows_of, slice(2, 4)) == pytest.approx((16 / 25 + 0) / 2)
    assert columns_of({"own": 2, "scene": 2}) == {"own": slice(0, 2), "scene": slice(2, 4)}


def test_features_that_cannot_be_written_are_refused_before_the_search(cuhk, tmp_path, images_seen, capsys):
    (tmp_path / "file").touch()
    assert run(cuhk, tmp_path, "--features", str(tmp_path / "file" / "features.npz")) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err and not images_seen


def test_a_checkpoint_or_a_config_is_needed(cuhk, tmp_path, capsys):
    assert call(test_tool, "--cfg", CFG, *words(cuhk, tmp_path)) == 1
    assert "best.pth: train first, or give --ckpt FILE" in capsys.readouterr().err
    assert call(test_tool, "--gt") == 1
    assert "give --ckpt FILE, or --cfg FILE" in capsys.readouterr().err


def test_thresholds_are_printed_and_stored_in_a_copy_of_the_checkpoint(cuhk, tmp_path, monkeypatch, capsys):
    rows = [{"false_match_rate": rate, "threshold": 1 - 30 * rate, "true_matches_kept": 0.5} for rate in (1e-2, 1e-3)]
    rows += [{"false_match_rate": 1e-4, "threshold": None, "true_matches_kept": None}]
    monkeypatch.setattr(testing, "score_same_person", lambda *_: {"thresholds": rows})
    copy = tmp_path / "thresholds.pth"
    assert run(cuhk, tmp_path, "--thresholds-out", str(copy)) == 0
    printed = capsys.readouterr().out
    assert "0.01              0.700      50.00" in printed and "0.0001            unknown    unknown" in printed
    stored = match_thresholds(options_of(read_checkpoint(copy), "copy"))
    assert stored == (0.7, 0.97)
    assert [stored.verdict(value) for value in (0.97, 0.9, 0.7, 0.69)] == ["match", "possible", "possible", "unlikely"]
    rows[0]["threshold"] = None
    assert run(cuhk, tmp_path, "--thresholds-out", str(copy)) == 1
    assert "too few people to tell thresholds from" in capsys.readouterr().err


def test_without_thresholds_there_are_none_and_those_that_do_not_fit_are_refused():
    assert match_thresholds(load_cfg(None)) is None
    for values in ((0.5, 0.4), (0.0, 0.4), (0.5, 0.0)):
        words = zip(("EVAL.THRESHOLDS.POSSIBLE", "EVAL.THRESHOLDS.MATCH"), map(str, values), strict=True)
        with pytest.raises(UserError, match="EVAL.THRESHOLDS.POSSIBLE must be above 0"):
            match_thresholds(load_cfg(None, [word for pair in words for word in pair]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--untrained", "--thresholds-out", "copy.pth"], "--thresholds-out is for a trained network"),
        (["--ckpt", "{run}/best.pth", "--thresholds-out", "{run}/best.pth"], "is the checkpoint that is tested"),
    ],
)
def test_thresholds_have_a_checkpoint_and_a_file_of_their_own(arguments, message, cuhk, tmp_path, images_seen, capsys):
    assert run(cuhk, tmp_path, *(word.format(run=tmp_path) for word in arguments)) == 1
    assert message in capsys.readouterr().err and not images_seen
