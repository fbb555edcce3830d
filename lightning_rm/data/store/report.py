"""What became of every row of a data set: read, kept, left out and why. It knows counts and words, no tokens.

A report is stored with the tokenised rows, so that a cached start shows the same table as the first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from lightning.pytorch.utilities import rank_zero_warn

from lightning_rm.counts import and_others
from lightning_rm.data.origins import moved
from lightning_rm.data.rows import BY_BENCHMARK, BY_BOOTSTRAP, BY_FOLD, BY_SHARE, BY_WEIGHT, BY_WHERE

MAX_EXAMPLES = 3
"""How many rows a report names for each reason."""

MAX_UNREAD = 12
"""How many unread fields a report names."""

WISHED = frozenset({BY_WHERE, BY_WEIGHT, BY_FOLD, BY_BOOTSTRAP, BY_SHARE, BY_BENCHMARK})
"""Reasons for rows that are left out because the user asked for it."""


class RowsLeftOut(UserWarning):
    """Not every row is used as it stands. Commands show a table of it instead of this warning."""


@dataclass
class DataReport:
    """Counts of one data set; `read == kept + sum(reasons.values())`.

    Args:
        name: the data set.
        read: rows that the source gave, good and bad.
        kept: pairs, or groups of responses, that are trained or measured on.
        reasons: reason -> rows left out for it.
        changes: change -> rows kept with it (`prompt cut`, `response cut`).
        examples: reason or change -> a few of its rows, where to find them and what was found, each finding once.
        notes: what else was decided for the whole set, such as a default chat template.
        unread: field that is not read -> rows kept that have it.
    """

    name: str = "data"
    read: int = 0
    kept: int = 0
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    changes: dict[str, int] = field(default_factory=dict[str, int])
    examples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    notes: list[str] = field(default_factory=list[str])
    unread: dict[str, int] = field(default_factory=dict[str, int])

    def leave_out(self, reason: str, example: str) -> None:
        """Count a row that is not used."""
        self.read += 1
        self._count(self.reasons, reason, example)

    def keep(self, changes: Mapping[str, str], origin: str, unread: Iterable[str] = ()) -> None:
        """Count a row that is used, what was changed in it (change -> what and where in the row, or nothing), and its
        fields that nothing reads.
        """
        self.read += 1
        self.kept += 1
        for change, detail in sorted(changes.items()):
            self._count(self.changes, change, f"{origin}: {detail}" if detail else origin)
        for name in unread:
            self.unread[name] = self.unread.get(name, 0) + 1

    def add(self, other: DataReport) -> None:
        """Count the rows that follow, as another report has them; the notes are this one's."""
        self.read += other.read
        self.kept += other.kept
        for counts, more in ((self.reasons, other.reasons), (self.changes, other.changes)):
            for what, count in more.items():
                counts[what] = counts.get(what, 0) + count
                for example in other.examples.get(what, []):
                    self._show(what, example)
        for name, count in other.unread.items():
            self.unread[name] = self.unread.get(name, 0) + count

    def moved(self, names: Mapping[str, str]) -> DataReport:
        """Return the report with its examples under the names that their files have now."""
        examples = {what: [moved(example, names) for example in found] for what, found in self.examples.items()}
        return replace(self, examples=examples)

    def warn(self) -> None:
        """Warn, once a data set, of rows that are left out or changed: without a table nobody would know."""
        if self.reasons.keys() - WISHED or self.changes:
            rank_zero_warn(str(self), category=RowsLeftOut)

    def to_json(self) -> str:
        """Return the report as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DataReport:
        """Return the report that `to_json` wrote."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.read:,} rows read, {self.kept:,} kept"]
        for heading, counts in (("left out", self.reasons), ("kept, but", self.changes)):
            for what, count in counts.items():
                examples = "; ".join(self.examples.get(what, []))
                lines.append(f"  {heading}: {what} {count:,}" + (f" ({examples})" if examples else ""))
        return "\n".join([*lines, *(f"  {note}" for note in (*self.notes, *unread_note([self])))])

    def _count(self, counts: dict[str, int], what: str, example: str) -> None:
        counts[what] = counts.get(what, 0) + 1
        self._show(what, example)

    def _show(self, what: str, example: str) -> None:
        examples = self.examples.setdefault(what, [])
        found = example.partition(": ")[2]
        if len(examples) < MAX_EXAMPLES and not (found and any(known.endswith(f": {found}") for known in examples)):
            examples.append(example)


def unread_note(reports: Iterable[DataReport]) -> list[str]:
    """Return a line on the fields that are not read, with the rows that have each; nothing where there is none."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.unread)
    if not counts:
        return []
    named = ", ".join(f"{name!r} {count:,}" for name, count in counts.most_common(MAX_UNREAD))
    return [f"fields that are not read, and the rows that have them: {named}{and_others(len(counts) - MAX_UNREAD)}"]
