"""From rows of responses to tokenised groups on disk: as `tokenize` does it for pairs, by the same templates and cuts.

A response that is empty or too long is left out by itself; a group that is left with fewer than two different ones is
left out whole. Repeats stay, since a policy does say the same again, as in the difference loss
over k responses (arXiv 2401.06080, eq 11). All of it is counted. This file knows no layout, no batch and no model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.formats.messages import is_blank
from lightning_rm.data.origins import places_of
from lightning_rm.data.rows import GroupRow, GroupSource
from lightning_rm.data.store.groups import GROUP_SCHEMA, GROUP_VERSION, GroupDataset
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.draft import Draft
from lightning_rm.data.tokenize.fitting import fit
from lightning_rm.data.tokenize.policy import FEWER_THAN_TWO, NO_RESPONSE, OVERLONG, TEMPLATE, TokenizePolicy
from lightning_rm.data.tokenize.preparing import chunks_of, notes, prepared
from lightning_rm.data.tokenize.tally import Tally, noted

EMPTY, REPEATED, TOO_LONG = "empty", "repeated", "overlong"
"""Why a response is left out of its group."""


def prepare_groups(
    source: GroupSource,
    tokenizer: PreTrainedTokenizerBase,
    policy: TokenizePolicy,
    cache_dir: Path | str | None = None,
    name: str = "responses",
) -> GroupDataset:
    """Return the tokenised groups of a source: read from the cache, or made and put there.

    Args:
        source: rows of responses, good and bad; not read when the cache file is there.
        tokenizer: as `load_tokenizer` gives it.
        policy: what to do with the bad and the long. `overlong` is about single responses: `drop` leaves out those that
            are too long; `truncate_prompt` cuts the prompt, for all responses of the group alike, until they fit, and
            leaves out those that do not even then.
        cache_dir: a folder; None takes `cache.default_cache_dir()`.
        name: what the data set is called in reports, errors and batches.

    Raises:
        ValueError: for rows that the policy calls errors, the whole source read and the first ten shown; and when no
            group is left.
    """

    def build(file: BinaryIO) -> None:
        _write(file, source, tokenizer, Tally(policy, DataReport(name, notes=notes(tokenizer)), noun="group"))

    return prepared(
        source,
        tokenizer,
        policy,
        cache_dir,
        GROUP_VERSION,
        load=lambda path: GroupDataset(path, name, places_of(source)),
        build=build,
    )


@dataclass
class _Group:
    """A group on its way to token ids, and how many of its responses were left out, by reason."""

    place: int
    row: GroupRow
    draft: Draft[GroupRow] | None = None
    lost: Counter[str] = field(default_factory=Counter[str])

    def keep(self, places: Sequence[int], reason: str) -> None:
        """Leave out all responses but those at `places`, for one reason."""
        if lost := len(self.row.responses) - len(places):
            self.lost[reason] += lost
            self.row = self.row.only(places)
            if self.draft:
                draft = self.draft
                self.draft = replace(
                    draft,
                    row=self.row,
                    responses=[draft.responses[place] for place in places],
                    texts=[draft.texts[place] for place in places],
                    ids=[draft.ids[place] for place in places],
                )

    @property
    def different(self) -> list[int]:
        """The places of the responses that are unlike those before them, in token ids where they are known."""
        items = self.draft.ids if self.draft and not self.draft.failure else self.row.responses
        return [place for place, item in enumerate(items) if item not in items[:place]]

    def left_out_for(self, policy: TokenizePolicy, least: int) -> tuple[str, str] | None:
        """Return the reason to leave the whole group out and what was found, None for a group that is kept."""
        lost = self.lost
        if self.draft and self.draft.failure:
            return TEMPLATE, self.draft.failure
        if policy.overlong == "error" and lost[TOO_LONG]:
            return OVERLONG, f"{lost[TOO_LONG]} of its responses make over max_tokens={policy.max_tokens:,} tokens"
        if (num_different := len(self.different)) < least:
            found = f"{num_different} of {len(self.row.responses) + lost.total()}"
            return FEWER_THAN_TWO if least == 2 else NO_RESPONSE, f"{found}: {_listed(lost)}" if lost else found
        return None


def _write(file: BinaryIO, source: GroupSource, tokenizer: PreTrainedTokenizerBase, tally: Tally) -> None:
    """Write every group of a source that is kept, chunk by chunk, and the report at the end."""
    num_kept, num_repeated, lost = 0, 0, Counter[str]()
    with pa.ipc.new_file(file, GROUP_SCHEMA) as writer:
        for chunk in chunks_of(source):
            tally.leave_out_bad(row for _, row in chunk)
            groups = [(place, row) for place, row in chunk if isinstance(row, GroupRow)]
            kept = thinned(groups, tokenizer, tally, lost)
            num_kept += sum(len(draft.ids) for draft in kept)
            num_repeated += sum(len(draft.ids) - len(set(map(tuple, draft.ids))) for draft in kept)
            if kept:
                writer.write_batch(pa.RecordBatch.from_pylist(list(map(_columns, kept)), schema=GROUP_SCHEMA))
        places = places_of(source)
        tally.check(places)
        note = responses_kept(num_kept, lost, num_repeated)
        metadata = {"report": tally.report.to_json(), "note": note, "places": json.dumps(places)}
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=GROUP_SCHEMA), custom_metadata=metadata)


def thinned(
    rows: Sequence[tuple[int, GroupRow]],
    tokenizer: PreTrainedTokenizerBase,
    tally: Tally,
    lost: Counter[str],
    *,
    are_scored: bool = False,
) -> list[Draft[GroupRow]]:
    """Return the groups of a chunk that are used, without the responses that are not; every row is counted.

    Args:
        rows: groups and their places in their source.
        tokenizer: as `load_tokenizer` gives it.
        tally: counts the rows.
        lost: counts the responses that are left out, by reason.
        are_scored: whether responses are scored: then one alone is a group, and a repeated one keeps only its first
            score. Else groups need two different responses, and repeats stay.
    """
    groups, least = [_Group(place, row) for place, row in rows], 1 if are_scored else 2
    _thin_and_fit(groups, tokenizer, tally.policy, least)
    kept: list[Draft[GroupRow]] = []
    for group in groups:
        if are_scored and group.draft and not group.draft.failure:
            group.keep(group.different, REPEATED)
        lost.update(group.lost)
        if draft := _kept(group, tally, least):
            kept.append(draft)
    return kept


def responses_kept(num_kept: int, lost: Counter[str], num_repeated: int = 0) -> str:
    """Return what became of the responses of a data set, in words."""
    note = f"{num_kept:,} responses kept" + (f", {num_repeated:,} of them repeated" if num_repeated else "")
    return note + (f"; left out: {_listed(lost)}" if lost else "")


def _thin_and_fit(
    groups: Sequence[_Group], tokenizer: PreTrainedTokenizerBase, policy: TokenizePolicy, least: int
) -> None:
    """Encode the responses of a chunk, leaving out those that are empty or too long."""
    for group in groups:
        responses = group.row.responses
        group.keep([place for place, turns in enumerate(responses) if not is_blank(turns[-1])], EMPTY)
    _fit(groups, tokenizer, policy, least)
    shortened: list[_Group] = []
    for group in groups:
        if group.draft and not group.draft.failure:
            group.keep([place for place, ids in enumerate(group.draft.ids) if len(ids) <= policy.max_tokens], TOO_LONG)
            if group.lost[TOO_LONG]:
                shortened.append(group)
    _fit(shortened, tokenizer, policy, least)  # a response that no cut makes fit does not cost the others their prompt


def _fit(groups: Sequence[_Group], tokenizer: PreTrainedTokenizerBase, policy: TokenizePolicy, least: int) -> None:
    """Encode the groups that have enough different responses."""
    pairable = [group for group in groups if len(group.different) >= least]
    for group, draft in zip(
        pairable, fit([(group.place, group.row) for group in pairable], tokenizer, policy), strict=True
    ):
        group.draft = draft


def _kept(group: _Group, tally: Tally, least: int) -> Draft[GroupRow] | None:
    """Return the draft of a group, None if it is not used; it is counted either way."""
    if left_out := group.left_out_for(tally.policy, least):
        tally.leave_out(group.row.place, *left_out)
        return None
    draft = cast(Draft[GroupRow], group.draft)  # of every group with enough different responses
    changes = {f"{reason} responses left out": "" for reason, count in group.lost.items() if count}
    tally.report.keep(draft.changes | changes | noted(draft.row), group.row.place, draft.row.unread)
    return draft


def _columns(draft: Draft[GroupRow]) -> dict[str, object]:
    """Return one group as a row of the file."""
    row = draft.row
    return {
        "ids": draft.ids,
        "prompt_length": draft.prompt_length,
        "gold": row.gold,
        "votes": row.votes,
        "id": row.id,
        "source_row": draft.place,
    }


def _listed(lost: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in lost.items() if count)
