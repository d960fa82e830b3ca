"""How much company repeats in a dataset, and the drawn search that says what it is worth."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny import call, tiny_cfg, tiny_model
from trees import NAMES, scene, small_tree

from datasets.writers import write_annotations
from engine.checkpoint import read_checkpoint, save_checkpoint
from engine.networks import options_of
from tools import company
from tools.company import chosen, drawn_search, repeated_company
from utils.evaluation import CompanionVoting, evaluate_search

BOXES = np.array([[0, 0, 20, 50], [40, 0, 60, 50], [80, 0, 100, 50]], np.int32)


def images_of(groups, cameras=2) -> list[dict]:
    """An image of each group of identities, the cameras in turn."""
    return [
        {"img_name": f"{number}.jpg", "boxes": BOXES[: len(pids)], "pids": np.array(pids), "cam_id": number % cameras}
        for number, pids in enumerate(groups)
    ]


PAIRS = [[1 + 2 * (k % 20), 2 + 2 * (k % 20)] for k in range(100)]
"""Twenty pairs of people, each five times together."""
CHANGING = [[1 + k % 20, 21 + (7 * k + k // 20) % 20] for k in range(100)]
"""Forty people, each five times, with somebody else each time."""


@pytest.mark.parametrize(
    ("groups", "in_both", "in_one"), [(PAIRS, 1, 0), (CHANGING, 0, 4 / 94), ([[1, -1], [1, -1], [2], [2]], 0, 0)]
)
def test_company_is_counted(groups, in_both, in_one):
    """Of CHANGING, four other images of a hundred show the second person."""
    shares = repeated_company(images_of(groups, cameras=len(groups)), np.random.default_rng(1))
    assert shares["the person in both"] == in_both
    assert shares["the person in one"] == pytest.approx(in_one, abs=0.01)


def test_a_second_person_in_an_image_without_the_first_counts_as_chance():
    shares = repeated_company(images_of([[1, 2], [2, 3], [1, 3]] * 2, cameras=6), np.random.default_rng(1))
    assert 0 < shares["the person in both"] < 1
    assert shares["the person in one"] == 1


@pytest.mark.parametrize(("groups", "least_gain"), [(PAIRS, 0.05), (CHANGING, -0.01)])
def test_voting_gains_where_company_repeats_and_does_not_lose_where_it_changes(groups, least_gain):
    given, _ = drawn_search(images_of(groups), 200, 1.2, np.random.default_rng(1))
    plain, voted = evaluate_search(**given), evaluate_search(**given, voting=CompanionVoting())
    assert 0.2 < plain["mAP"] < 0.9
    assert voted["mAP"] - plain["mAP"] > least_gain


def test_companions_recognised_without_error_gain_more_and_queries_are_compared_as_before():
    given, known = drawn_search(images_of(PAIRS), 200, 1.2, np.random.default_rng(1))
    voting = CompanionVoting(weight=0.4)
    assert evaluate_search(**known)["mAP"] == pytest.approx(evaluate_search(**given)["mAP"])
    assert evaluate_search(**known, voting=voting)["mAP"] > evaluate_search(**given, voting=voting)["mAP"] + 0.02


def test_the_best_settings_are_chosen_and_none_where_the_gain_may_be_chance():
    plain, small, large = np.full(100, 0.4), CompanionVoting(0.2), CompanionVoting(0.6)
    uneven = np.tile([0.9, -0.7], 50)  # 0.1 on average, one standard error being 0.08
    assert chosen({small: plain + 0.1, large: plain + 0.2}, plain) == large
    assert chosen({small: plain - 0.1, large: plain - 0.2}, plain) == small._replace(weight=0)
    assert chosen({large: plain + uneven}, plain).weight == 0


def test_the_program_prints_both_tables(fmt, tmp_path, capsys):
    small_tree(fmt, tmp_path)
    assert call(company, "--name", NAMES[fmt], "--root", str(tmp_path), "--split", "gallery", "--weights", "0.4") == 0
    printed = capsys.readouterr().out
    assert "the person in both" in printed and "companions, 0.4 and 0.998" in printed and "CBGM, " in printed


def test_the_choice_is_stored_in_a_copy_of_a_checkpoint(tmp_path, monkeypatch, capsys):
    """`tools.test --ckpt COPY` reads its options from it."""
    images = images_of(PAIRS)
    monkeypatch.setattr(company, "build_dataset", lambda *_: SimpleNamespace(annotations=images))
    best, copy = tmp_path / "best.pth", tmp_path / "voting.pth"
    save_checkpoint(best, {"model": tiny_model().state_dict(), "config": tiny_cfg().dump(), "epoch": 3})
    words = ("--name", "PRW", "--root", str(tmp_path), "--noise", "1.2", "--weights", "0.3", "--quantiles", "0.99")
    assert call(company, *words, "--ckpt", str(best), "--out", str(copy)) == 0
    assert "EVAL.COMPANIONS.WEIGHT 0.3 EVAL.COMPANIONS.QUANTILE 0.99" in capsys.readouterr().out
    stored = read_checkpoint(copy)
    assert options_of(stored, "copy", None, []).EVAL.COMPANIONS.WEIGHT == 0.3
    assert stored["epoch"] == 3
    assert call(company, *words, "--ckpt", str(best), "--out", str(best)) == 1
    assert call(company, *words, "--ckpt", str(best)) == 1
    assert "--ckpt FILE and --out FILE belong together" in capsys.readouterr().err


def test_people_seen_once_are_refused(tmp_path, capsys):
    _, gallery, queries = small_tree("prw", tmp_path)
    write_annotations("prw", tmp_path, [scene("prw", 1, 1, [(2, 10)]), scene("prw", 2, 2, [(5, 10)])], gallery, queries)
    assert call(company, "--name", "PRW", "--root", str(tmp_path)) == 1
    assert "no person of the train split is seen in two images" in capsys.readouterr().err
