"""Which response a reviewer sees first, and what a choice of a side means for the label: what keeps a review blind.

It knows names of pairs and decisions; no texts, no file and no reviewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_rm.annotation.reviews import Verdict
from lightning_rm.digests import short_key

Choice = Literal["keep", "flip", "first", "second", "tie", "skip"]


class AskError(ValueError):
    """A question that this review does not answer, in words for the one who asks."""


@dataclass(frozen=True)
class Sides:
    """The order of two responses, the same whenever a pair is shown.

    Args:
        blind: whether responses change places by chance, so that nothing tells which is the chosen one.
        seed: of the chance.
    """

    blind: bool
    seed: int

    def are_swapped(self, pair_id: str) -> bool:
        """Tell whether the rejected response stands first."""
        chance = short_key(f"{self.seed} {pair_id}".encode(), num_bytes=1)[0]
        return self.blind and chance % 2 == 1

    def decision(self, pair_id: str, choice: Choice) -> Verdict:
        """Return what a choice says of the label.

        Raises:
            AskError: if a blind reviewer names the label.
        """
        if choice in ("first", "second"):
            return "keep" if (choice == "first") != self.are_swapped(pair_id) else "flip"
        if self.blind and choice in ("keep", "flip"):
            raise AskError("in a blind review say which is better: first, second, tie or skip")
        return choice

    def choice(self, pair_id: str, decision: str) -> str:
        """Return a decision as a reviewer may see it: in a blind review by its side."""
        if self.blind and decision in ("keep", "flip"):
            return "first" if (decision == "keep") != self.are_swapped(pair_id) else "second"
        return decision
