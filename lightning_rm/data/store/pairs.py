"""Tokenised pairs on disk, read in place: an Arrow file, mapped into memory, with fast access to any pair.

The file (`store.pair_file`) holds whole conversations as token ids, the targets and marks of each row, and what tables
show of it. A row is a pair, or k scored responses to one prompt; their pairs are made here and are not stored
(`store.responses`).
Nothing here knows a tokenizer or where the pairs came from. Workers get the path and map the file again, so a data set
costs its pages once, however many processes read it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_rm.data.origins import moved
from lightning_rm.data.rows import TIE
from lightning_rm.data.store.columns import SequenceColumn, in_order_of_appearance, numbers_of, shares_of_votes
from lightning_rm.data.store.pair_file import SCHEMA
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.store.responses import ScoredPairs, scored_pairs
from lightning_rm.data.store.table import open_table
from lightning_rm.strength import Strength, Target, Targets
from lightning_rm.tokens import Sample

FOUND = ("first_of_list", "list_lengths", "list_strength", "prompt_index", "text_lengths")
"""What is found for the pairs of a data set when it is first asked for, and is another of other pairs."""


@dataclass(frozen=True)
class PairText:
    """A pair in words, as it stands after any cut: for tables that people read."""

    prompt: str
    chosen: str
    rejected: str
    id: str


@dataclass(frozen=True)
class PairPlace:
    """What joins a pair to the data that it came from.

    Args:
        id: as the source calls the pair.
        prompt_id: as the source calls its prompt.
        origin: file and line, or data set and row; empty for made data.
    """

    id: str
    prompt_id: str
    origin: str

    def __str__(self) -> str:
        """What to call the pair in an error: where it stands, or its id where nobody knows."""
        return self.origin or f"pair {self.id}"


class PairDataset:
    """N tokenised preference pairs.

    Args:
        path: the Arrow file that `prepare_pairs` wrote.
        name: what this data set is called in reports.
        places: what the source's rows stand in now (`origins.places_of`): the file may be of the same rows elsewhere.
        ties: whether two responses of one score are a pair: `drop`, or `keep` them with the label 1/2.

    Attributes:
        lengths: (N, 2) int64, tokens of the chosen and the rejected conversation.
        prompt_lengths: (N,) int64, tokens of the prompt, with which both conversations begin.
        strength: of the N pairs, NaN where the data is not annotated; of scored responses the difference of their
            scores, each the mean over its attributes.
        scores: (2, N, A) of chosen and rejected by attribute, NaN where nobody scored.
        list_index: (N,) int64, ascending: pairs of one row of the file, which a batch never parts, share a number.
        single: (N,) bool, one response that stands for a pair: chosen and rejected are the same, the label is 1/2.
        num_tied: rows of scored responses that make no pair, for all have one score and ties are dropped.
        source_row: (N,) int64, each pair's place among all rows, good and bad, of its source.
        subset_names: what the numbers in column `subset` mean.
        attributes: what the A scores are called.
        report: what became of every row of the source.
        changed: target -> the treatments that made it other than the data has it.

    Raises:
        ValueError, KeyError, OSError: if the file is not whole or is another kind of file.
    """

    def __init__(
        self,
        path: Path | str,
        name: str = "data",
        places: Sequence[str] = (),
        ties: Literal["drop", "keep"] = "drop",
    ) -> None:
        self.path, self.name, self.ties = Path(path), name, ties
        table, metadata = open_table(self.path, SCHEMA, "tokenised pairs")
        self._table = table
        self._places = tuple(places)
        self._moved = dict(zip(json.loads(metadata[b"places"]), places, strict=False))
        report = DataReport.from_json(metadata[b"report"].decode())
        self.report = replace(report.moved(self._moved), name=name)
        self.subset_names: tuple[str, ...] = tuple(json.loads(metadata[b"subset_names"]))
        attributes: tuple[str, ...] = tuple(json.loads(metadata[b"attributes"]))
        self.attributes = attributes or ("score",)
        self._ids = SequenceColumn(table["ids"])
        made = scored_pairs(table["scores"], self._ids.num_responses, len(attributes), ties)
        if made.num_tied:
            report, tied = self.report, {TIE: self.report.reasons.get(TIE, 0) + made.num_tied}
            self.report = replace(report, kept=report.kept - made.num_tied, reasons=report.reasons | tied)
            if not len(made.row):
                raise ValueError(f"{name}: the responses of every row are tied, so there is no pair; set ties=keep")
        self._rows = made.row  # where in the file each pair stands
        self._sides = made.sides  # and which two of the row's responses it is
        self.scores, self.single = made.scores, made.single
        self.num_tied = made.num_tied

        def column(name: str) -> NDArray[Any]:
            """A column of the file by pair: that of its rows where each is one pair."""
            return numbers_of(table[name])[made.row] if attributes else numbers_of(table[name])

        self.list_index: NDArray[np.int64] = np.unique(made.row, return_inverse=True)[1] if attributes else made.row
        self.prompt_lengths: NDArray[np.int64] = column("prompt_length")
        self._columns = {name: column(name) for name in ("label", "margin", "weight", "subset", "clean", "gold_margin")}
        if made.tied.any():
            self._columns["label"] = np.where(made.tied, 0.5, self._columns["label"])
        self._columns["level"] = np.broadcast_to(np.nan, len(made.row))  # treatments make levels
        self.source_row: NDArray[np.int64] = column("source_row")
        self.lengths: NDArray[np.int64] = (
            self._ids.lengths[self._ids.first[made.row][:, None] + made.sides]
            if attributes
            else self._ids.lengths.reshape(-1, 2)
        )
        self.strength = self._strength(made if attributes else None, column("strength_mean"), column("strength_std"))
        self.changed: Mapping[Target, Sequence[str]] = {}
        self._treated_by: Targets | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.path, self.name, self._places, self.ties, self._treated_by)

    def treated(self, targets: Targets) -> Self:
        """Return the same pairs with other targets, those left out that `targets` does not keep.

        Args:
            targets: of the N pairs, as `strength.treat` makes them of `targets()`.
        """
        kept = np.flatnonzero(targets.kept)
        pairs = copy.copy(self)
        for found in FOUND:
            pairs.__dict__.pop(found, None)
        pairs._treated_by = targets
        pairs._rows, pairs._sides = self._rows[kept], self._sides[kept]
        pairs.scores, pairs.single = self.scores[:, kept], self.single[kept]
        pairs.list_index = np.unique(self.list_index[kept], return_inverse=True)[1]
        pairs.prompt_lengths = self.prompt_lengths[kept]
        columns = self._columns | {name: getattr(targets, name) for name in ("label", "margin", "weight", "level")}
        pairs._columns = {name: values[kept] for name, values in columns.items()}
        pairs.source_row, pairs.lengths = self.source_row[kept], self.lengths[kept]
        pairs.strength = self.strength.of_rows(kept)
        return pairs

    def targets(self) -> Targets:
        """Return the targets that the data set itself gives its pairs."""
        columns = self._columns
        return Targets.of(columns["label"], np.nan_to_num(columns["margin"]), columns["weight"])

    @property
    def level(self) -> NDArray[np.float64]:
        """(N,) how far chosen is preferred, a whole number, NaN where no treatment said."""
        return self._columns["level"]

    def sample(self, i: int) -> Sample:
        """Return the token sequences of pair `i`, chosen first."""
        first = int(self._ids.first[self._rows[i]])
        sequences = tuple(self._ids.get(first + side) for side in self._sides[i].tolist())
        return Sample(sequences, int(self.prompt_lengths[i]), row=int(self.list_index[i]))

    @property
    def prompt_keys(self) -> NDArray[np.int64]:
        """(N,) 64 bits of the digest of each pair's `prompt_id`."""
        return numbers_of(self._table["prompt_key"])[self._rows]

    @cached_property
    def prompt_index(self) -> NDArray[np.int64]:
        """(N,) the same number for pairs of one prompt, found when it is first asked for."""
        return in_order_of_appearance(self.prompt_keys)

    def prompt_texts(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the prompts of many pairs in words."""
        return self._table["prompt_text"].take(pa.array(self._rows[rows])).to_pylist()

    @property
    def has_lists(self) -> bool:
        """Whether several pairs are of one row."""
        return self.num_lists < len(self)

    @property
    def num_lists(self) -> int:
        """L, the rows that the pairs are of."""
        return int(self.list_index[-1]) + 1

    @cached_property
    def first_of_list(self) -> NDArray[np.int64]:
        """(L,) the first pair of each row; the others follow it."""
        return np.searchsorted(self.list_index, np.arange(self.num_lists))

    @cached_property
    def list_lengths(self) -> NDArray[np.int64]:
        """(L, k) tokens of every response that the pairs of a row have; 0 where a row has fewer than k."""
        lengths = np.zeros((self.num_lists, int(self._sides.max()) + 1), np.int64)
        lengths[self.list_index[:, None], self._sides] = self.lengths
        return lengths

    @cached_property
    def list_strength(self) -> NDArray[np.float64]:
        """(L,) the mean strength of each row's pairs, over those that have one; NaN where none has."""
        mean = self.strength.mean
        total = np.add.reduceat(np.nan_to_num(mean), self.first_of_list)
        number = np.add.reduceat(~np.isnan(mean), self.first_of_list, dtype=np.int64)
        return total / np.where(number > 0, number, np.nan)

    @cached_property
    def text_lengths(self) -> NDArray[np.int64]:
        """(L,) tokens that the LM loss reads of each row: of every response that is chosen in one of its pairs."""
        chosen = self._sides[:, 0]
        _, first = np.unique(self.list_index * (int(chosen.max()) + 1) + chosen, return_index=True)
        num_tokens = self.lengths[first, 0] - np.maximum(self.prompt_lengths[first], 1)
        return np.bincount(self.list_index[first], num_tokens).astype(np.int64)

    def pairs_of(self, lists: Sequence[int]) -> NDArray[np.int64]:
        """Return the pairs of some rows, row by row."""
        ends = np.append(self.first_of_list[1:], len(self))
        return np.concatenate([np.arange(self.first_of_list[place], ends[place]) for place in lists])

    def columns(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the columns of a `PreferenceBatch` for the pairs `rows`, all but `valid`.

        Args:
            rows: P row numbers.

        Returns:
            `label`, `margin` (0 where the data has none), `weight`, `level`, `clean`, `gold_margin` and `strength` (NaN
            where unknown), all (P,) float32; `subset` and `row`, (P,) long; `length`, (2, P) long, tokens of each
            response; `scores`, (2, P, A) float32; `group` and `side`, (P,) and (2, P) long, numbers of the pair's row
            among those of the batch and of its two responses in it.
        """
        index = np.asarray(rows, dtype=np.int64)
        values = self._columns | {"strength": self.strength.mean}
        columns = {name: torch.from_numpy(column[index]) for name, column in values.items()}
        columns = {name: column if name == "subset" else column.float() for name, column in columns.items()}
        columns["margin"] = columns["margin"].nan_to_num(nan=0.0)
        lengths = self.lengths[index] - self.prompt_lengths[index][:, None]
        columns["length"] = torch.from_numpy(lengths).T.contiguous()
        columns["row"] = torch.from_numpy(index)
        columns["scores"] = torch.from_numpy(self.scores[:, index]).float()
        columns["group"] = torch.from_numpy(np.unique(self.list_index[index], return_inverse=True)[1])
        columns["side"] = torch.from_numpy(self._sides[index].T.copy())
        return columns

    def votes(self, i: int) -> tuple[float, ...]:
        """Return the votes on pair `i`; empty where the data is not annotated."""
        return tuple(self._table["votes"][int(self._rows[i])].as_py())

    def ids(self) -> list[str]:
        """Return what the source calls the N pairs."""
        return self._table["id"].take(pa.array(self._rows)).to_pylist()

    def place(self, i: int) -> PairPlace:
        """Return where pair `i` comes from."""
        return self.places([i])[0]

    def places(self, rows: Sequence[int]) -> list[PairPlace]:
        """Return where many pairs come from."""
        found = self._table.select(["id", "prompt_id", "origin"]).take(pa.array(self._rows[np.asarray(rows, np.int64)]))
        columns = zip(*(column.to_pylist() for column in found.columns), strict=True)
        return [PairPlace(id, prompt_id, moved(origin, self._moved)) for id, prompt_id, origin in columns]

    def text(self, i: int) -> PairText:
        """Return pair `i` in words."""
        prompt, texts, id = (self._table[name][int(self._rows[i])].as_py() for name in ("prompt_text", "texts", "id"))
        chosen, rejected = (texts[side] for side in self._sides[i].tolist())
        return PairText(prompt, chosen, rejected, id)

    def _strength(self, made: ScoredPairs | None, mean: NDArray[np.float64], std: NDArray[np.float64]) -> Strength:
        """Return the strength that the file has, or for scored responses the difference of their scores."""
        share = shares_of_votes(self._table["votes"])
        if made is None:
            return Strength.of(mean, std, share)
        difference = made.score[0] - made.score[1]
        return Strength.of(np.where(np.isnan(difference), mean, difference), std, share[made.row])


def _again(
    path: Path, name: str, places: Sequence[str], ties: Literal["drop", "keep"], targets: Targets | None
) -> PairDataset:
    """Return the data set of a pickle: the file is mapped again, so that workers do not copy it."""
    pairs = PairDataset(path, name, places, ties)
    return pairs if targets is None else pairs.treated(targets)
