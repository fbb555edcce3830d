"""`RoundTable`: the results of rounds as a table, as files and as metrics. It knows measures; no policy and no text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_rm.drafts import write_text
from lightning_rm.markup import markdown_table
from lightning_rm.rlhf.changes import Change, change
from lightning_rm.rlhf.measures import Measures, read_judged
from lightning_rm.rlhf.rounds import Round, num_falls
from lightning_rm.rlhf.weighed_file import weighed_by
from lightning_rm.told import read_object

COLUMNS = {
    "gold": ("gold", "{:.3f}"),
    "win": ("win", "{:.1%}"),
    "tie": ("tie", "{:.1%}"),
    "lose": ("lose", "{:.1%}"),
    "reward": ("reward", "{:+.3f}"),
    "reward_std": ("spread", "{:.3f}"),
    "agreement": ("agrees", "{:.3f}"),
    "kl": ("KL", "{:.2f}"),
    "length": ("tokens", "{:.1f}"),
    "distinct_2": ("distinct-2", "{:.3f}"),
    "self_bleu": ("self-BLEU", "{:.3f}"),
    "perplexity": ("perplexity", "{:.2f}"),
}
"""Measure -> what the terminal calls it, and how it is written."""

EFFECTIVE = "effective_pairs"
"""The share of a round's pairs that its weights are worth: `Importance.effective` by their number."""


@dataclass(frozen=True)
class RoundTable:
    """Rounds in order, round 0 first.

    Args:
        measures: number of a round -> what came out.
        counts: number of a round -> what its policy learned from, by count.
        stopped: whether the rounds ended before the last, because worth fell.
        changes: number of a round -> how much more it is worth than the one before.
        weighed: number of a round whose pairs have weights -> `Weighed.summary` of them.
    """

    measures: dict[int, Measures]
    counts: dict[int, dict[str, Any]]
    stopped: bool = False
    changes: dict[int, Change] = field(default_factory=dict[int, Change])
    weighed: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])

    @property
    def best(self) -> int:
        """The round of highest worth; the first of equal ones."""
        return max(self.measures, key=lambda number: self.measures[number].worth)

    def rows(self) -> list[dict[str, str]]:
        """Return the table, a row per round, in words; a column that no round has is left out."""
        rows: list[dict[str, str]] = []
        for number, measures in self.measures.items():
            values = {name: getattr(measures, name) for name in COLUMNS}
            if number == 0:  # against itself, each of the start policy's responses is a tie
                values |= dict.fromkeys(("win", "tie", "lose"))
            written = {
                COLUMNS[name][0]: "" if value is None else COLUMNS[name][1].format(value)
                for name, value in values.items()
            }
            share = self._effective(number)
            written["effective"] = "" if share is None else f"{share:.1%}"
            rows.append({"round": str(number), **written})
        empty = [name for name in rows[0] if not any(row[name] for row in rows)]
        return [{name: value for name, value in row.items() if name not in empty} for row in rows]

    def notes(self) -> list[str]:
        """Return the remarks below the table."""
        first = self.measures[0]
        what = "gold" if first.gold is not None else "the share of wins (ties half, and one half for round 0)"
        worth = [measures.worth for measures in self.measures.values()]
        notes = [
            f"{first.num_prompts:,} held-out prompts, {first.num_responses:,} responses a round; win, tie and lose are "
            "against the start policy, so round 0, which is that policy, has none; reward is that of the round's own "
            "model less the start policy's",
            f"{what} is highest in round {self.best}",
        ]
        if self.weighed:
            notes.append("effective: how many of its pairs a round's weights are worth; all of them if all weigh alike")
        notes += [f"round {number} less round {number - 1}: {self.changes[number]}" for number in self.changes]
        if (falls := num_falls(worth)) and len(worth) > 1:
            notes.append(f"{what} has fallen for {falls} {'round' if falls == 1 else 'rounds'} at the end")
        if self.stopped:
            notes.append("stopped there by patience=")
        for number, measures in self.measures.items():
            told = {
                "empty responses": measures.num_empty,
                "cut off at max_new_tokens": measures.num_unfinished,
                "too long for the reward model": measures.num_overlong,
                "without a verdict": measures.num_no_verdict,
                "prompts whose rewards are all equal, not learned": self.counts.get(number, {}).get(
                    "num_equal_groups", 0
                ),
            }
            if some := [f"{count:,} {name}" for name, count in told.items() if count]:
                notes.append(f"round {number}: {', '.join(some)}")
        return notes

    def metrics(self) -> dict[int, dict[str, float]]:
        """Return for each round what a logger logs: `rlhf/gold` and so on."""
        return {
            number: {
                **{f"rlhf/{name}": value for name, value in asdict(measures).items() if value is not None},
                **{f"rlhf/policy_{name}": value for name, value in self.counts.get(number, {}).items()},
                **({} if (share := self._effective(number)) is None else {f"rlhf/{EFFECTIVE}": share}),
            }
            for number, measures in self.measures.items()
        }

    def series(self) -> dict[str, list[float | None]]:
        """Return measure -> its value in every round, for a figure."""
        names = [*asdict(self.measures[0]), "worth"]
        return {name: [getattr(measures, name) for measures in self.measures.values()] for name in names}

    def write(self, folder: Path) -> list[Path]:
        """Write `rounds.json`, `.csv` and `.md`, each whole or not at all."""
        told = {
            "best": self.best,
            "stopped": self.stopped,
            "rounds": {
                number: asdict(measures)
                | {"policy": self.counts.get(number, {})}
                | ({"change": asdict(self.changes[number])} if number in self.changes else {})
                | ({"weighed": self.weighed[number]} if number in self.weighed else {})
                for number, measures in self.measures.items()
            },
        }
        table = io.StringIO()
        writer = csv.DictWriter(table, ["round", *asdict(self.measures[0]), EFFECTIVE])
        writer.writeheader()
        for number, measures in self.measures.items():
            writer.writerow({"round": number, **asdict(measures), EFFECTIVE: self._effective(number)})
        rows = self.rows()
        lines = markdown_table([list(rows[0]), *(list(row.values()) for row in rows)])
        texts = {
            "rounds.json": json.dumps(told, indent=2) + "\n",
            "rounds.csv": table.getvalue(),
            "rounds.md": "\n".join(["# Rounds", "", lines, "", *(f"- {note}" for note in self.notes()), ""]),
        }
        return [write_text(folder / name, text) for name, text in texts.items()]

    def _effective(self, number: int) -> float | None:
        """Return `EFFECTIVE` of a round; None where its pairs have no weights."""
        told = self.weighed.get(number)
        return None if told is None else told["effective"] / told["num_pairs"]


def read_rounds(rounds: Iterable[Round], stopped: bool = False) -> RoundTable:
    """Read what rounds left in their folders."""
    measures: dict[int, Measures] = {}
    counts: dict[int, dict[str, Any]] = {}
    changes: dict[int, Change] = {}
    weighed: dict[int, dict[str, float]] = {}
    before: list[dict[str, Any]] = []
    for round in rounds:
        measures[round.number], said = read_judged(round.folder)
        if (path := round / "policy.json").is_file():
            counts[round.number] = read_object(path)
        if (path := round / "weighed.parquet").is_file():
            told = weighed_by(path)
            weighed[round.number] = {name: told[name] for name in ("num_pairs", "effective", "num_clipped")}
        if found := change(said, before):
            changes[round.number] = found
        before = said
    return RoundTable(measures, counts, stopped, changes, weighed)
