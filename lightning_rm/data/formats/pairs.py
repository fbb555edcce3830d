"""`parse_row` turns a raw row of any format into a `PairRow`, or into a `BadRow` that says what is wrong with it.

This file decides whether a value is good or bad; `published` knows how each format names its fields, `columns` which a
user renames. It knows one row at a time, and no file. Unknown fields are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_rm.data.formats.asked import after_system, check_asked, check_unread
from lightning_rm.data.formats.columns import other_fields, read_beside, renamed, without_prompts
from lightning_rm.data.formats.fields import (
    Raw,
    RowError,
    TableRow,
    has,
    identifier,
    numbers,
    optional_number,
    probability,
    required,
    truth,
)
from lightning_rm.data.formats.media import check_media
from lightning_rm.data.formats.messages import is_blank
from lightning_rm.data.formats.nested import check_depth
from lightning_rm.data.formats.published import plain_fields
from lightning_rm.data.formats.responses import Prefill, explicit_pair, implicit_pair
from lightning_rm.data.formats.template import read_chat_template_kwargs, read_tools
from lightning_rm.data.formats.turns import SILENCE, Turns, check_turns
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.digests import digest

PARSER_VERSION = 7
"""Part of every source's fingerprint: raise it when a row is read differently than before."""

STRENGTH_DISAGREES = "strength disagrees"

STRENGTH_TOLERANCE = 0.01
"""How far a strength column may be from what the votes give: the published ones were computed in half precision."""


def parse_row(
    raw: Raw,
    origin: str,
    *,
    format: str = "auto",
    columns: Mapping[str, str | None] | None = None,
    subset: str | None = None,
    prefill: Prefill = "error",
) -> PairRow | BadRow:
    """Read one row.

    Prompt and responses are texts or lists of turns (`turns.read_turns`). Without a prompt field the prompt is what
    both conversations begin with (`turns.implicit_pair`). Five rules are worth knowing:

    - A `system` (`asked.SYSTEM_FIELDS`) is the first turn of the prompt. A row is bad if it has no prompt but a field
      that usually carries one (`asked.PROMPT_FIELDS`), or if its prompt and responses leave out what that field says.
      Where `columns` hides the prompt, `{prompt: null}`, such fields are hidden with it: the pair is all that there is.
    - Images and the like are refused, and so is a mark for one in what the user says (`media`).
    - `votes` is read beside `strength_mean`, or where `columns` asks for it: a field of that name alone often counts
      annotators instead. Mean and spread are then computed from the votes, and must agree with their columns.
    - A pair whose label is below 1/2 is turned round (`PairRow.exchanged`): `chosen` is the response that is preferred,
      as in every published set, and so for all that compares a strength with the label, or learns from what is chosen.
    - A row without `id` is named by a digest of its text, one without `prompt_id` by a digest of its prompt; a pair
      that has no prompt at all shares its `prompt_id` with no other.

    Args:
        raw: field names to JSON-like values.
        origin: what to call the row in an error: `pairs.jsonl:17`.
        format: one of `published.FORMATS`, or `auto` for the first that matches.
        columns: field -> its name in `raw`, or a dotted path to it (`info.post`); None hides the field of that name.
        subset: the subset of the row, whatever it says itself.
        prefill: what to do with a prompt that ends with the assistant's turn: `error`, or `continue` it by each
            response.

    Returns:
        The pair, or what is wrong with it. Where the annotators prefer neither response, it is `tied`.
    """
    columns = columns or {}
    try:
        check_depth(raw, "the row")
        row, prompt, chosen, rejected = read_pair(raw, format, columns, prefill)
        mean, std, votes = _strength(row, votes_asked_for="votes" in columns)
        label, weight, tied = probability(row, "label"), optional_number(row, "weight", 0.0), truth(row, "tied") is True
        row_id = identifier(row, "id") or digest([prompt, chosen, rejected], 16)
        pair = PairRow(
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            id=row_id,
            prompt_id=identifier(row, "prompt_id") or (digest(prompt) if prompt else digest([chosen, rejected])),
            subset=subset or identifier(row, "subset") or "all",
            label=0.5 if tied else 1.0 if label is None else label,
            tied=tied,
            margin=optional_number(row, "margin"),
            weight=1.0 if weight is None else weight,
            gold_margin=optional_number(row, "gold_margin"),
            clean=truth(row, "clean"),
            strength_mean=mean,
            strength_std=std,
            votes=votes,
            tools=read_tools(row),
            chat_template_kwargs=read_chat_template_kwargs(row),
            origin=origin,
            others=(others := other_fields(raw, columns, read_votes=bool(votes))),
            unread=tuple(sorted(others.keys() - read_beside(raw, format, columns))),
            doubts=raw.doubts if isinstance(raw, TableRow) else (),
        )
        return pair.exchanged() if pair.label < 0.5 else pair
    except RowError as error:
        return BadRow(origin, error.reason, error.detail)


def read_pair(
    raw: Raw,
    format: str,
    columns: Mapping[str, str | None],
    prefill: Prefill = "error",
    *,
    as_given: bool = False,
) -> tuple[Raw, Turns, Turns, Turns]:
    """Read the two conversations of a pair.

    Args:
        raw: as in `parse_row`.
        format: as there.
        columns: as there.
        prefill: as there.
        as_given: take the first response for chosen where the row says elsewhere which one is, and responses that say
            nothing as empty turns: they are scored, and not trained on.

    Returns:
        The row under the plain field names; the turns of prompt, chosen and rejected.

    Raises:
        RowError: if they cannot be read, or one says nothing.
    """
    row = plain_fields(without_prompts(renamed(raw, columns), columns), format, as_given=as_given)
    prompt, chosen, rejected = _turns(row, prefill)
    check_media(row, columns, prompt)
    if as_given:
        chosen, rejected = chosen or SILENCE, rejected or SILENCE
    sides = {"chosen": chosen, "rejected": rejected}
    check_turns(prompt, {name: said for name, said in sides.items() if not (as_given and is_blank(said[-1]))})
    return row, prompt, chosen, rejected


def _turns(row: Raw, prefill: Prefill) -> tuple[Turns, Turns, Turns]:
    chosen, rejected = required(row, "chosen"), required(row, "rejected")
    prompt = row.get("prompt")
    if prompt is None or (prompt in ("", []) and not isinstance(chosen, str)):
        turns = implicit_pair(chosen, rejected)
        is_found = not isinstance(chosen, str) and any(turn["role"] == "user" for turn in turns[0])
    else:
        turns = explicit_pair(prompt, chosen, rejected, prefill)
        is_found = bool(turns[0])
    if is_found:
        check_unread(row, turns)
    else:
        check_asked(row)
    prompt, chosen, rejected = turns
    return after_system(row, prompt), chosen, rejected


def _strength(row: Raw, votes_asked_for: bool) -> tuple[float | None, float | None, tuple[float, ...]]:
    """Return mean, population standard deviation and votes; a published spread may be the sample standard deviation."""
    mean, std = optional_number(row, "strength_mean"), optional_number(row, "strength_std", 0.0)
    if not has(row, "votes") or (mean is None and not votes_asked_for):
        return mean, std, ()
    votes = numbers(row["votes"], "field 'votes'")
    if not votes:
        return mean, std, ()
    num_votes, center = len(votes), math.fsum(votes) / len(votes)
    squares = math.fsum((vote - center) ** 2 for vote in votes)
    spread, sample_spread = math.sqrt(squares / num_votes), math.sqrt(squares / max(num_votes - 1, 1))
    for name, column, computed in (("mean", mean, (center,)), ("spread", std, (spread, sample_spread))):
        if column is not None and min(abs(column - value) for value in computed) > STRENGTH_TOLERANCE:
            raise RowError(
                STRENGTH_DISAGREES,
                f"the {name} of {num_votes} votes is {computed[0]:.4g}, its column says {column:.4g}",
            )
    return center, spread, votes
