"""Counts of what became of the rows of a data set, and the error that names those that the policy calls errors.

It knows reasons and the ways out of them; what is wrong with a row is found elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lightning_rm.data.rows import EXPECTED_REASONS, BadRow, GroupRow, PairRow
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.policy import (
    FEWER_THAN_TWO,
    IDENTICAL,
    IDENTICAL_CUT,
    IDENTICAL_IDS,
    NULL_OR_MISSING,
    OVERLONG,
    TURNED,
    TokenizePolicy,
)

MAX_ERRORS = 10
"""How many faults an error message shows; rows with the same fault count as one."""

MAX_NAMED = 3
"""How many rows of each fault it names; the others are counted."""


def noted(row: PairRow | GroupRow) -> dict[str, str]:
    """Return the report's entries for how a row was read: turned round, and keys whose table does not tell null from
    missing.
    """
    turned = {TURNED: ""} if isinstance(row, PairRow) and row.is_turned else {}
    return {NULL_OR_MISSING: ", ".join(row.doubts), **turned} if row.doubts else turned


@dataclass
class Tally:
    """Counts every row, and remembers those that the policy calls errors.

    Args:
        policy: what is an error.
        report: where rows are counted.
        noun: what a kept row is: a `pair` or a `group`.
        errors: fault -> the places of the rows that have it.
        ways_out: what to set so that these rows are not errors, in the order they were met.
    """

    policy: TokenizePolicy
    report: DataReport
    noun: str = "pair"
    errors: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    ways_out: dict[str, None] = field(default_factory=dict[str, None])

    def leave_out(self, origin: str, reason: str, detail: str) -> None:
        """Count a row that is not used."""
        self.report.leave_out(reason, f"{origin}: {detail}")
        if way_out := self._way_out(reason):
            self.errors.setdefault(f"{reason}: {detail}", []).append(origin)
            self.ways_out[way_out] = None

    def leave_out_bad(self, rows: Iterable[object]) -> None:
        """Count those of the rows that could not be read."""
        for row in rows:
            if isinstance(row, BadRow):
                self.leave_out(row.origin, row.reason, row.detail)

    def _way_out(self, reason: str) -> str | None:
        """Return what to set so that rows of this kind are not errors; None if they are not now."""
        if reason in EXPECTED_REASONS:
            return None
        if reason == OVERLONG:
            ways = "overlong=drop, overlong=truncate_prompt or a larger max_tokens"
            return ways if self.policy.overlong == "error" else None
        if reason in (IDENTICAL, IDENTICAL_IDS, IDENTICAL_CUT, FEWER_THAN_TWO):
            return "identical=drop" if self.policy.identical == "error" else None
        return "on_bad_row=drop" if self.policy.on_bad_row == "error" else None

    def add(self, other: Tally) -> None:
        """Add the counts of another tally, whose rows follow."""
        self.report.add(other.report)
        for fault, origins in other.errors.items():
            self.errors.setdefault(fault, []).extend(origins)
        self.ways_out |= other.ways_out

    def check(self, places: Sequence[str] = ()) -> None:
        """Check that there are no errors, and that something is left.

        Args:
            places: the files or data sets that were read, where they have a name.

        Raises:
            ValueError: if not.
        """
        name, read = self.report.name, self.report.read
        if self.errors:
            num_rows = sum(map(len, self.errors.values()))
            faults = list(self.errors.items())
            shown = [f"  {_named(rows)}: {fault}" for fault, rows in faults[:MAX_ERRORS]]
            more = sum(len(rows) for _, rows in faults[MAX_ERRORS:])
            shown += [f"  and {more:,} more"] if more else []
            raise ValueError(
                "\n".join([f"{name}: {num_rows:,} of {read:,} rows cannot be used", *shown])
                + f"\nMend them, or have them counted and left out with {' and '.join(self.ways_out)}."
            )
        if not self.report.kept:
            empty = f": there is no row in {_named(places)}" if places and not read else ""
            raise ValueError(f"{name}: no {self.noun} is left to use{empty}\n{self.report}")


def _named(places: Sequence[str]) -> str:
    """Name the first places: `pairs.jsonl:3`, or `pairs.jsonl:3, pairs.jsonl:4, pairs.jsonl:9 and 11 more`."""
    more = len(places) - MAX_NAMED
    return ", ".join(places[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
