"""From which similarity on two pictures of people are taken to show the same person."""

from typing import NamedTuple


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
