"""The fields that rewards add to a row, and the one response that stays of several. It knows rows; no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lightning_rm.scoring.parts import Refusal, Rewards

MOVED = ("responses", "chosen", "rejected", "response")
"""The fields that `best` reads or writes; all others stay."""


class Scored(NamedTuple):
    """A row's rewards.

    Args:
        origin: the row's place in its file.
        rewards: (k,), NaN where there is none; none at all for a row that cannot be read.
        members: (k, M), those of each member.
        one: whether the row holds one response and no list of them.
        refusal: why a response, or the whole row, has no reward; with several refused responses, that of the first.
    """

    origin: str
    rewards: Rewards
    members: Rewards
    one: bool
    refusal: Refusal | None

    @property
    def best(self) -> int | None:
        """The place of the highest reward, the first of equal ones; None where there is none."""
        return None if np.isnan(self.rewards).all() else int(np.nanargmax(self.rewards))


@dataclass(frozen=True)
class NewFields:
    """Which fields are added to a row.

    Args:
        prefix: in front of their names.
        best: the best response alone takes the place of the list, or of chosen and rejected.
        members: the members' rewards too; in a table where rows have several responses, those of one are a list of one.
    """

    prefix: str = ""
    best: bool = False
    members: bool = False

    @property
    def names(self) -> list[str]:
        """The names that rows must not have yet."""
        names = ["reward", "rewards", "best", "reason", *(["members"] if self.members else [])]
        return [f"{self.prefix}{name}" for name in names]

    def of(self, scored: Scored, *, nested: bool = False) -> dict[str, Any]:
        """Return the new fields of a row by their names.

            one response            {"reward": 0.5}
            several, or a pair      {"rewards": [0.5, 1.5, null], "best": 1, "reason": "overlong: ..."}
            several, best alone     {"reward": 1.5, "best": 1}
            a row that is not read  {"reward": null, "reason": "missing field: ..."}

        Args:
            scored: the row's rewards.
            nested: whether the members' rewards of one response are in a list too.
        """
        rewards, members = _numbers(scored.rewards), [_numbers(row) for row in scored.members]
        found: dict[str, Any] = {}
        if not rewards:
            found = {"reward": None, "members": None}
        elif scored.one:
            found = {"reward": rewards[0], "members": members if nested else members[0]}
        elif self.best:
            best = scored.best
            found = {"reward": None, "best": None, "members": None}
            if best is not None:
                found = {"reward": rewards[best], "best": best, "members": members[best]}
        else:
            found = {"rewards": rewards, "best": scored.best, "members": members}
        if not self.members:
            del found["members"]
        if scored.refusal is not None:
            found["reason"] = str(scored.refusal)
        return {f"{self.prefix}{name}": value for name, value in found.items()}

    def written(self, row: Mapping[str, Any], scored: Scored) -> dict[str, Any]:
        """Return a row with its new fields, and with the best response alone where that is asked for."""
        added = self.of(scored)
        place = scored.best
        if not self.best or scored.one or place is None:
            return {**row, **added}
        if row.get("responses") is not None:
            best = row["responses"][place]
            kept = {name: value for name, value in row.items() if name != "responses"}
        elif row.get("chosen") is not None and row.get("rejected") is not None:
            best = row[("chosen", "rejected")[place]]
            kept = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
        else:
            raise ValueError(
                f"{scored.origin}: best=true keeps one of the field 'responses', or of 'chosen' and 'rejected', and "
                "the row has them under other names; leave best out and take the one that `best` names"
            )
        if "response" in kept:
            raise ValueError(f"{scored.origin}: best=true writes the field 'response', and the row has one; rename it")
        return {**kept, "response": best, **added}


def _numbers(values: Rewards) -> list[float | None]:
    """Return the shortest decimals that are these float32; None for NaN."""
    return [None if np.isnan(value) else float(str(value)) for value in values]
