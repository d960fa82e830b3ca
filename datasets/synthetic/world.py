"""Who lives in a synthetic world: people, their looks, their groups, the cameras they keep to, and who is seen when."""

from dataclasses import dataclass

import numpy as np

from datasets.synthetic.wardrobe import draw_look

_MIN_SIGHTINGS = 3  # planned images of each identity: one more than the rules ask for, in case one is hidden


@dataclass(frozen=True)
class Population:
    """The people of one split. Members are indices 0 ... n - 1 of `looks`; cameras are numbered from 1."""

    looks: tuple
    groups: tuple
    group_of: tuple
    homes: tuple
    """For each group, its own cameras."""


@dataclass(frozen=True)
class FramePlan:
    """Who is in an image: `parties` are tuples of people (indices) who walk together."""

    camera: int
    parties: tuple
    strangers: int


def draw_population(config, count, rng):
    """A `Population` of `count` people."""
    groups = _draw_groups(count, config.group_size, rng)
    group_of = np.empty(count, int)
    for number, members in enumerate(groups):
        group_of[list(members)] = number
    size = min(config.cameras, max(2, round(config.home_share * config.cameras)))
    homes = [tuple(sorted((1 + rng.permutation(config.cameras)[:size]).tolist())) for _ in groups]
    looks = [draw_look(rng) for _ in range(count)]
    for one, other in _pair_lookalikes(group_of, round(config.lookalikes * count / 2), rng):
        looks[other] = looks[one]
    return Population(tuple(looks), tuple(groups), tuple(group_of.tolist()), tuple(homes))


def _draw_groups(count, mean_size, rng):
    groups, first = [], 0
    while first < count:
        size = int(rng.integers((mean_size + 1) // 2, 3 * mean_size // 2 + 1))
        groups.append(tuple(range(first, min(first + size, count))))
        first += size
    return groups


def _pair_lookalikes(group_of, count, rng):
    """Up to `count` disjoint pairs of people of different groups."""
    left, pairs = rng.permutation(len(group_of)).tolist(), []
    while left and len(pairs) < count:
        one = left.pop()
        other = next((person for person in left if group_of[person] != group_of[one]), None)
        if other is not None:
            left.remove(other)
            pairs.append((one, other))
    return pairs


class _Planner:
    """Fills images with parties, preferring people who were seen less."""

    def __init__(self, config, population, rng):
        self.config, self.population, self.rng = config, population, rng
        self.sightings = np.zeros(len(population.looks), int)

    def _prefer(self, numbers, seen):
        weights = 1.0 / (1.0 + np.asarray(seen, float)) ** 2
        return int(self.rng.choice(numbers, p=weights / weights.sum()))

    def _pick_group(self, camera, present):
        groups, homes = self.population.groups, self.population.homes
        free = [number for number, members in enumerate(groups) if not present.intersection(members)]
        if self.rng.random() < self.config.place_loyalty:
            free = [number for number in free if camera in homes[number]]
        if not free:
            return ()
        return groups[self._prefer(free, [self.sightings[list(groups[number])].mean() for number in free])]

    def _pick_person(self, camera, present):
        free = [person for person in range(len(self.population.looks)) if person not in present]
        if self.rng.random() < self.config.place_loyalty:
            free = [person for person in free if camera in self.population.homes[self.population.group_of[person]]]
        return self._prefer(free, self.sightings[free]) if free else None

    def party(self, camera, present):
        """A group as it turns up: its members, or a random person in the place of each who stays away."""
        party = []
        for member in self._pick_group(camera, present):
            person = member
            if self.rng.random() >= self.config.group_loyalty:
                person = self._pick_person(camera, present)
            if person is not None and person not in present:
                party.append(person)
                present.add(person)
        self.sightings[party] += 1
        return tuple(party)

    def companions(self, person, present):
        """The person with those of its group who come along."""
        group = self.population.groups[self.population.group_of[person]]
        party = [person]
        for member in group:
            if member != person and member not in present and self.rng.random() < self.config.group_loyalty:
                party.append(member)
        self.sightings[party] += 1
        return tuple(party)


def plan_frames(config, population, count, rng):
    """`count` `FramePlan`s in which every person is seen; cameras take turns."""
    planner = _Planner(config, population, rng)
    empty = set(rng.permutation(count)[: min(round(config.empty_share * count), count - 3)].tolist())
    plans = []
    for index in range(count):
        camera = 1 + index % config.cameras
        if index in empty:
            plans.append(FramePlan(camera, (), 0))
            continue
        people = int(rng.integers(1, max(2, round(2 * config.people))))
        strangers = int(rng.binomial(people, config.unlabelled_share))
        parties, present = [], set()
        for _ in range(people):
            if len(present) + strangers < people and (party := planner.party(camera, present)):
                parties.append(party)
        plans.append(FramePlan(camera, tuple(parties), strangers))
    return _complete(planner, plans, [index for index in range(count) if index not in empty])


def _complete(planner, plans, open_frames):
    """Plans in which everyone has the least number of sightings; the least crowded images take more people."""
    population = planner.population
    for person in range(len(population.looks)):
        home = population.homes[population.group_of[person]]
        while planner.sightings[person] < min(_MIN_SIGHTINGS, len(open_frames)):
            present = {index: {seen for party in plans[index].parties for seen in party} for index in open_frames}
            free = [index for index in open_frames if person not in present[index]]
            chosen = min(free, key=lambda index: (plans[index].camera not in home, len(present[index]), index))
            party = planner.companions(person, present[chosen])
            plan = plans[chosen]
            plans[chosen] = FramePlan(plan.camera, (*plan.parties, party), plan.strangers)
    return plans
