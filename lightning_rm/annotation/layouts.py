"""Annotated pairs for other trainers: the layout of the paper's published data, and rows that TRL reads.

Neither has a label: the better response stands as `chosen`. A pair is turned round where its label is below one half,
and its strength with it. Whatever would change a pair's conversation is refused before anything is scored; what is only
left out is counted and reported. This file knows rows and numbers; no model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from lightning_rm.annotation.votes import Votes, kept_rows, said
from lightning_rm.data.formats.published import CHOSEN_SCORES, REJECTED_SCORES, STRENGTH_MEAN, STRENGTH_STD
from lightning_rm.data.rows import Message, PairRow, Source
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.drafts import draft_of

MAX_NAMED = 3
"""How many pairs a warning names; the others are counted."""


@dataclass(frozen=True)
class Annotated:
    """One pair and what the voters said of it.

    Args:
        row: the pair.
        mean: the strength.
        std: its spread.
        chosen: rewards of the voters that vote on it.
        rejected: the same of the other response.
    """

    row: PairRow
    mean: float
    std: float
    chosen: list[float]
    rejected: list[float]

    def turned(self) -> Self:
        """Return the pair with the other response as `chosen`."""
        row = self.row.exchanged()
        return replace(self, row=row, mean=-self.mean, chosen=self.rejected, rejected=self.chosen)


def check_fnlp(source: Source, pairs: PairDataset) -> None:
    """Raise ValueError for a pair that `write_fnlp` cannot write."""
    for _, row in kept_rows(source, pairs):
        _fnlp_turns(row)


def write_fnlp(source: Source, votes: Votes, path: Path) -> None:
    """Write annotated pairs as fnlp/hh-rlhf-strength-cleaned lays them out (arXiv 2401.06080): one JSON array.

    `chosen` and `rejected` are lists of turns, the user's first; `GPT4 label` is 1, 0 or -1 for unknown.

    Raises:
        ValueError: if a conversation has a turn that the layout has no place for, or the pair has tools.

    Warns:
        UserWarning: of ties, which are left out, and of labels, margins and weights, for which there is no place.
    """
    losses = _Losses(path)
    rows = (
        {
            **_fnlp_turns(pair.row),
            "GPT4 label": -1 if pair.row.clean is None else int(pair.row.clean),
            STRENGTH_MEAN: pair.mean,
            STRENGTH_STD: pair.std,
            CHOSEN_SCORES[0]: pair.chosen,
            REJECTED_SCORES[0]: pair.rejected,
        }
        for pair in _preferred_first(source, votes, losses)
    )
    with draft_of(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(rows):
            file.write((",\n" if number else "\n") + json.dumps(row, ensure_ascii=False))
        file.write("\n]\n")
    losses.warn()


def check_trl(source: Source, pairs: PairDataset) -> None:
    """Raise ValueError for a pair that `write_trl` cannot write."""
    first: PairRow | None = None
    for _, row in kept_rows(source, pairs):
        first = first or row
        if row.chat_template_kwargs.keys() != first.chat_template_kwargs.keys():
            one, other = (", ".join(found.chat_template_kwargs) or "none" for found in (first, row))
            raise ValueError(
                f"{row.place}: the row's chat_template_kwargs are {other}, and those of {first.place} are {one}; TRL "
                "reads its rows as one table, where each would get the other's as null: give all rows the same ones, "
                "or leave also.trl out"
            )


def write_trl(source: Source, votes: Votes, path: Path) -> None:
    """Write annotated pairs as JSONL for TRL's RewardTrainer: `prompt`, `chosen`, `rejected` as turns, and `margin`.

    The margin is the strength, signed. Tools are JSON text, and arguments of the chat template an object, where a pair
    has them.

    Raises:
        ValueError: if the chat template's arguments of two pairs do not have the same names.

    Warns:
        UserWarning: of ties, which are left out, and of labels, margins and weights, for which there is no place.
    """
    check_trl(source, votes.pairs)
    losses = _Losses(path)
    with draft_of(path) as draft, draft.open("w", encoding="utf-8") as file:
        for pair in _preferred_first(source, votes, losses):
            file.write(json.dumps(_trl_row(pair), ensure_ascii=False) + "\n")
    losses.warn()


def _trl_row(pair: Annotated) -> dict[str, Any]:
    row = pair.row
    written: dict[str, Any] = {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
    if row.tools:
        written["tools"] = json.dumps(row.tools)  # a table would give each tool the arguments of all others
    if row.chat_template_kwargs:
        written["chat_template_kwargs"] = row.chat_template_kwargs
    return written | {"margin": pair.mean}


@dataclass
class _Losses:
    """What a layout leaves out, and of which pairs.

    Args:
        path: the file that is written.
        found: what is left out -> where its pairs stand; `count` fills it.
    """

    path: Path
    found: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def count(self, row: PairRow) -> None:
        """Count what there is no place for; the strength takes the place of a margin."""
        losses = {
            "left out, since a label of one half prefers neither response": row.label == 0.5,
            "written as certain: there is no place for a label between 0 and 1": row.label not in (0.0, 0.5, 1.0),
            "written without the margin that they have, for which there is no place": row.margin is not None,
            "written without their weight, for which there is no place": row.weight != 1.0,
        }
        for what, is_met in losses.items():
            if is_met:
                self.found.setdefault(what, []).append(row.place)

    def warn(self) -> None:
        """Say what was counted."""
        for what, places in self.found.items():
            more = ", ..." if len(places) > MAX_NAMED else ""
            warnings.warn(
                f"{self.path}: {len(places):,} of the pairs {what} ({', '.join(places[:MAX_NAMED])}{more})",
                stacklevel=3,
            )


def _preferred_first(source: Source, votes: Votes, losses: _Losses) -> Iterator[Annotated]:
    """Yield the annotated pairs, turned round where the label says so, without ties."""
    for i, row in kept_rows(source, votes.pairs):
        losses.count(row)
        mean, std = float(votes.strength.mean[i]), float(votes.strength.std[i])
        pair = Annotated(row, mean, std, said(votes.chosen[i]), said(votes.rejected[i]))
        if row.label != 0.5:
            yield pair.turned() if row.label < 0.5 else pair


def _fnlp_turns(row: PairRow) -> Mapping[str, list[str]]:
    """Return the two conversations of a pair as texts that take turns."""
    for name, value in (("tools", row.tools), ("chat_template_kwargs", row.chat_template_kwargs)):
        if value:
            raise ValueError(f"{row.place} has {name}, for which the layout of also.fnlp has no place; leave it out")
    return {
        "chosen": _alternating((*row.prompt, *row.chosen), row.place),
        "rejected": _alternating((*row.prompt, *row.rejected), row.place),
    }


def _alternating(turns: Sequence[Message], place: str) -> list[str]:
    expected = [("user", "assistant")[number % 2] for number in range(len(turns))]
    if [turn["role"] for turn in turns] != expected:
        roles = ", ".join(turn["role"] for turn in turns)
        raise ValueError(
            f"{place} has the turns {roles}; the layout of also.fnlp knows user and assistant in turn: leave it out"
        )
    for number, turn in enumerate(turns):
        if more := [key for key in turn if key not in ("role", "content")]:
            raise ValueError(
                f"{place}, turn {number} has {', '.join(more)}; the layout of also.fnlp knows the text of a turn "
                "alone: leave it out"
            )
    return [turn["content"] for turn in turns]
