"""Synthetic worlds: who is seen where and with whom, and which identities and queries come of it."""

from collections import Counter

import numpy as np
import pytest

from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.build import choose_queries, drop_rare
from datasets.synthetic.world import FramePlan, Population, draw_population, plan_frames
from utils.errors import UserError


def planned(images: int = 240, **options) -> tuple[Population, list[FramePlan]]:
    config = SyntheticConfig(cameras=6, unlabelled_share=0.0, group_size=3, people=4.0, **options)
    rng = np.random.default_rng(0)
    population = draw_population(config, 60, rng)
    return population, plan_frames(config, population, images, rng)


def share_together(**options) -> float:
    population, plans = planned(**options)
    together = []
    for plan in plans:
        groups = [population.group_of[person] for person in plan.people]
        together += [groups.count(group) > 1 for group in groups]
    return np.mean(together)


def share_at_home(**options) -> float:
    population, plans = planned(**options)
    return np.mean([population.is_home(person, plan.camera) for plan in plans for person in plan.people])


def test_group_loyalty_decides_who_is_seen_together():
    assert share_together(group_loyalty=1.0) == 1.0
    assert 0.3 < share_together(group_loyalty=0.5) < 0.9
    assert share_together(group_loyalty=0.0, place_loyalty=0.0) < 0.25


def test_place_loyalty_decides_where_people_are_seen():
    assert share_at_home(place_loyalty=1.0) > 0.98
    assert share_at_home(place_loyalty=0.0) == pytest.approx(2 / 6, abs=0.1)


def test_everyone_is_seen_and_nobody_twice_in_an_image():
    population, plans = planned(images=32, empty_share=0.25)
    assert sum(not plan.people for plan in plans) == 8
    everyone = [[person for party in plan.parties for person in party] for plan in plans]
    assert all(len(set(people)) == len(people) for people in everyone)
    counts = Counter(sum(everyone, []))
    assert min(counts[person] for person in range(len(population.looks))) >= 3


def test_lookalikes_share_clothing_across_groups():
    population = draw_population(SyntheticConfig(lookalikes=0.5), 40, np.random.default_rng(0))
    alike = [look for look, count in Counter(population.looks).items() if count > 1]
    assert len(alike) == 10
    for look in alike:
        one, other = (person for person, its in enumerate(population.looks) if its == look)
        assert population.group_of[one] != population.group_of[other]
    assert len(set(planned()[0].looks)) == 60


def item(name: str, pids: list[int], visibility: float = 1.0) -> dict:
    boxes = np.array([[10 * k, 0, 10 * k + 8, 20] for k in range(len(pids))], np.int32).reshape(-1, 4)
    return {"img_name": name, "boxes": boxes, "pids": np.array(pids), "visibility": np.full(len(pids), visibility)}


def test_identities_seen_once_lose_their_identity():
    kept = drop_rare([item("a", [1, 2]), item("b", [1, -1])])
    assert [entry["pids"].tolist() for entry in kept] == [[1, -1], [1, -1]]


def test_queries_take_turns_and_prefer_clear_views():
    gallery = [item("a", [1], 0.4), item("b", [1, 2]), item("c", [2, 3], 0.5), item("d", [-1])]
    queries = choose_queries(gallery, 2, np.random.default_rng(0))
    assert sorted((query["pid"], query["img_name"]) for query in queries) == [(1, "b"), (2, "b")]
    assert len(choose_queries(gallery, 50, np.random.default_rng(0))) == 4
    with pytest.raises(UserError, match="more gallery images"):
        choose_queries([item("a", [1]), item("b", [2])], 5, np.random.default_rng(0))
