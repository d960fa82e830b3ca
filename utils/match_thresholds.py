"""From which similarity on two pictures of people are taken to show the same person."""

from typing import NamedTuple

POSSIBLE_RATE, MATCH_RATE = 1e-2, 1e-3
"""Shares of the pairs of different people that are called a possible match, or a match. At 1e-4 few true matches are
left: 1 to 13 % with small networks on drawn data and on PETS09-S2L1."""


class MatchThresholds(NamedTuple):
    """Least similarities of a match and of a possible match; every network has its own, which `tools.test` measures.

    Attributes:
        possible: least similarity of a possible match.
        match: least similarity of a match, `possible` or more.
    """

    possible: float
    match: float

    def verdict(self, similarity: float) -> str:
        """What a similarity says: "match", "possible" or "unlikely"."""
        if similarity >= self.match:
            return "match"
        return "possible" if similarity >= self.possible else "unlikely"
