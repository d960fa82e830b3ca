"""Synthetic worlds: who is seen where and with whom, and which identities and queries come of it."""

from collections import Counter

import numpy as np
import pytest

from datasets.synthetic.build import choose_queries, drop_rare
from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.world import FramePlan, Population, draw_population, plan_frames
from utils.errors import UserError


def planned(images: int = 240, **options) -> tuple[Population, list[FramePlan]]:
    config = SyntheticConfig(cameras=6, unlabelled_share=0.0, group_size=3, people=4.0, **options)
    rng = np.random.default_rng(0)
    population = draw_population(config, 60, rng)
    return population, plan_frames(config, population, images, rng)


def shares(**options) -> tuple[float, float]:
    """Of all sightings, those with another of the group, and those at one of the group's own cameras."""
    population, plans = planned(**options)
    together, at_home = [], []
    for plan in plans:
        groups = [population.group_of[person] for person in plan.people]
        together += [groups.count(group) > 1 for group in groups]
        at_home += [population.is_home(person, plan.camera) for person in plan.people]
    return np.mean(together), np.mean(at_home)


def test_loyalty_decides_with_whom_and_where_people_are_seen():
    together, at_home = shares(group_loyalty=1.0, place_loyalty=1.0)
    assert together == 1.0
    assert at_home > 0.98
    assert 0.3 < shares(group_loyalty=0.5)[0] < 0.9
    together, at_home = shares(group_loyalty=0.0, place_loyalty=0.0)
    assert together < 0.25
    assert at_home == pytest.approx(2 / 6, abs=0.1)


def test_everyone_is_seen_and_nobody_twice_in_an_image():
    population, plans = planned(images=32, empty_share=0.25)
    assert sum(not plan.people for plan in plans) == 8
    assert all(len(plan.people) == sum(map(len, plan.parties)) for plan in plans)
    counts = Counter(person for plan in plans for person in plan.people)
    assert min(counts[person] for person in range(len(population.looks))) >= 3


def test_lookalikes_share_clothing_across_groups():
    population = draw_population(SyntheticConfig(lookalikes=0.5), 40, np.random.default_rng(0))
    alike = [look for look, count in Counter(population.looks).items() if count > 1]
    assert (len(alike), len(set(population.looks))) == (10, 30)
    for look in alike:
        one, other = (person for person, its in enumerate(population.looks) if its == look)
        assert population.group_of[one] != population.group_of[other]


def item(name: str, pids: list[int], visibility: float = 1.0) -> dict:
    boxes = np.array([[10 * k, 0, 10 * k + 8, 20] for k in range(len(pids))], np.int32).reshape(-1, 4)
    return {"img_name": name, "boxes": boxes, "pids": np.array(pids), "visibility": np.full(len(pids), visibility)}


def test_identities_seen_once_lose_theirs_and_queries_take_turns_and_prefer_clear_views():
    kept = drop_rare([item("a", [1, 2]), item("b", [1, -1])])
    assert [entry["pids"].tolist() for entry in kept] == [[1, -1], [1, -1]]
    gallery = [item("a", [1], 0.4), item("b", [1, 2]), item("c", [2, 3], 0.5), item("d", [-1])]
    queries = choose_queries(gallery, 2, np.random.default_rng(0))
    assert sorted((query["pid"], query["img_name"]) for query in queries) == [(1, "b"), (2, "b")]
    assert len(choose_queries(gallery, 50, np.random.default_rng(0))) == 4
    with pytest.raises(UserError, match="more gallery images"):
        choose_queries([item("a", [1]), item("b", [2])], 5, np.random.default_rng(0))
