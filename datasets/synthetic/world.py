"""Who lives in a synthetic world: people, their looks, their groups and cameras, and who is in which image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from datasets.synthetic.config import SyntheticConfig
from datasets.synthetic.wardrobe import Look, draw_look

_MIN_SIGHTINGS = 3  # planned images of each identity: one more than a query needs, in case the person is hidden in one

Party = tuple[int, ...]
"""People who walk together."""


@dataclass(frozen=True)
class Population:
    """The people of one split, numbered from 0; cameras are numbered from 1."""

    looks: tuple[Look, ...]
    groups: tuple[Party, ...]
    group_of: tuple[int, ...]
    homes: tuple[tuple[int, ...], ...]
    """For each group, its own cameras."""

    def is_home(self, person: int, camera: int) -> bool:
        """Whether the camera is one of the person's group's own."""
        return camera in self.homes[self.group_of[person]]


@dataclass
class FramePlan:
    """Who is in an image; `strangers` is the number of people without identity."""

    camera: int
    parties: list[Party]
    strangers: int

    @property
    def people(self) -> set[int]:
        """All people with identity."""
        return {person for party in self.parties for person in party}


def draw_population(config: SyntheticConfig, count: int, rng: Generator) -> Population:
    """A `Population` of `count` people."""
    groups: list[Party] = []
    while (first := sum(map(len, groups))) < count:
        size = rng.integers((config.group_size + 1) // 2, 3 * config.group_size // 2 + 1)
        groups.append(tuple(range(first, min(first + int(size), count))))
    group_of = [number for number, members in enumerate(groups) for _ in members]
    size = min(config.cameras, max(2, round(config.home_share * config.cameras)))
    homes = [tuple(sorted((1 + rng.permutation(config.cameras)[:size]).tolist())) for _ in groups]
    looks = [draw_look(rng) for _ in range(count)]
    ones, others = rng.permutation(count // 2), count // 2 + rng.permutation(count - count // 2)
    for one, other in list(zip(ones, others, strict=False))[: round(config.lookalikes * count / 2)]:
        if group_of[one] != group_of[other]:
            looks[other] = looks[one]
    return Population(tuple(looks), tuple(groups), tuple(group_of), tuple(homes))


class _Planner:
    """Fills images with groups of people, preferring those in fewer images so far."""

    def __init__(self, config: SyntheticConfig, population: Population, rng: Generator) -> None:
        self.config, self.population, self.rng = config, population, rng
        self.sightings = np.zeros(len(population.looks), int)
        self.singles = [(person,) for person in range(len(population.looks))]

    def _pick(self, parties: Sequence[Party], camera: int, present: set[int]) -> Party:
        """One of those parties of which nobody is there yet; () where there is none."""
        free = [party for party in parties if not present.intersection(party)]
        if self.rng.random() < self.config.place_loyalty:
            free = [party for party in free if self.population.is_home(party[0], camera)]
        if not free:
            return ()
        weights = 1.0 / (1.0 + np.array([self.sightings[list(party)].mean() for party in free])) ** 2
        return free[self.rng.choice(len(free), p=weights / weights.sum())]

    def party(self, camera: int, present: set[int]) -> Party:
        """The members of a group, a random person in the place of each who stays away; added to `present`."""
        party = []
        for member in self._pick(self.population.groups, camera, present):
            comes = self.rng.random() < self.config.group_loyalty
            for person in (member,) if comes else self._pick(self.singles, camera, present):
                if person not in present:
                    party.append(person)
                    present.add(person)
        self.sightings[party] += 1
        return tuple(party)

    def frame(self, camera: int) -> FramePlan:
        """An image of a camera with a random number of people."""
        people = int(self.rng.integers(1, max(2, round(2 * self.config.people))))
        strangers = int(self.rng.binomial(people, self.config.unlabelled_share))
        plan, present = FramePlan(camera, [], strangers), set()
        for _ in range(people):
            if len(present) + strangers < people and (party := self.party(camera, present)):
                plan.parties.append(party)
        return plan

    def complete(self, person: int, plans: Sequence[FramePlan]) -> None:
        """Add the person, and those of its group who come along, to the least crowded images, its own cameras' first,
        until it has enough sightings."""
        while self.sightings[person] < min(_MIN_SIGHTINGS, len(plans)):
            free = [plan for plan in plans if person not in plan.people]
            plan = min(free, key=lambda plan: (not self.population.is_home(person, plan.camera), len(plan.people)))
            group = self.population.groups[self.population.group_of[person]]
            others = [member for member in group if member != person and member not in plan.people]
            party = [person, *(member for member in others if self.rng.random() < self.config.group_loyalty)]
            self.sightings[party] += 1
            plan.parties.append(tuple(party))


def plan_frames(config: SyntheticConfig, population: Population, count: int, rng: Generator) -> list[FramePlan]:
    """`count` images in which every person is seen; cameras take turns."""
    planner = _Planner(config, population, rng)
    empty = set(rng.permutation(count)[: min(round(config.empty_share * count), count - 3)].tolist())
    cameras = [1 + index % config.cameras for index in range(count)]
    plans = [
        FramePlan(camera, [], 0) if index in empty else planner.frame(camera) for index, camera in enumerate(cameras)
    ]
    filled = [plan for index, plan in enumerate(plans) if index not in empty]
    for person in range(len(population.looks)):
        planner.complete(person, filled)
    return plans
