"""From numbers of several worlds to `holds`, `does not hold` or `cannot be told`. It knows no claim and no file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from lightning_rm.analysis.paired import paired_difference

State = Literal["holds", "does not hold", "cannot be told"]


class Part(NamedTuple):
    """One sentence of a claim that can be true or false.

    Args:
        says: the sentence.
        found: the mean and its interval, in words.
        state: what the interval makes of it.
    """

    says: str
    found: str
    state: State


class Verdict(NamedTuple):
    """A claim with its parts: it holds where all do, and does not where one does not."""

    letter: str
    title: str
    paper: str
    parts: tuple[Part, ...]

    @property
    def state(self) -> State:
        states = {part.state for part in self.parts}
        if "does not hold" in states:
            return "does not hold"
        return "cannot be told" if "cannot be told" in states or not states else "holds"


def part(says: str, values: Sequence[float], low: float = float("-inf"), high: float = float("inf")) -> Part:
    """Whether the mean of a number over worlds lies between two bounds, by Student's 95 % interval.

    It holds where the whole interval lies between them, does not where all of it lies outside, on one side, and cannot
    be told else: one world tells nothing.

    Args:
        says: the sentence, bounds and all.
        values: of the number, one a world.
        low: the lower bound.
        high: the upper bound.
    """
    found = paired_difference(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))
    if found is None:
        return Part(says, "not run", "cannot be told")
    if found.num < 2:
        return Part(says, f"{found.mean:.3f}, one world", "cannot be told")
    if not found.has_interval:  # a share of all, or of none, in every world
        found = found._replace(low=found.mean, high=found.mean)
    inside, outside = low < found.low and found.high < high, found.high <= low or found.low >= high
    state: State = "holds" if inside else "does not hold" if outside else "cannot be told"
    return Part(says, f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]", state)
