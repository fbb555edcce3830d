"""Read one row of responses to a prompt, to a `GroupRow`. It knows the fields of a row; no file and no tokenizer."""

from __future__ import annotations

from collections.abc import Iterable

from lightning_rm.data.formats.asked import PROMPT_FIELDS, after_system, check_unread
from lightning_rm.data.formats.columns import renamed
from lightning_rm.data.formats.fields import (
    BAD_VALUE,
    Columns,
    Raw,
    RowError,
    TableRow,
    check_one_each,
    has,
    identifier,
    items_of,
    numbers,
    optional_number,
    read_by,
    required,
)
from lightning_rm.data.formats.media import MEDIA_FIELDS, check_media
from lightning_rm.data.formats.messages import is_blank
from lightning_rm.data.formats.nested import check_depth
from lightning_rm.data.formats.responses import Prefill, answer_turns, continued
from lightning_rm.data.formats.scores import SCORE_FIELDS, UNPAIRED_FIELDS, is_unpaired, plain_scored, read_scores
from lightning_rm.data.formats.template import read_chat_template_kwargs, read_tools
from lightning_rm.data.formats.turns import SILENCE, Turns, check_turns, prompt_turns
from lightning_rm.data.rows import BadRow, GroupRow
from lightning_rm.digests import digest

GROUP_PARSER_VERSION = 7
"""Part of every fingerprint: raise it when a row is read differently than before."""


GROUP_FIELDS = frozenset(
    {"prompt", "responses", "id", "prompt_id", "subset", "gold", "votes", "weight"}
    | {"tools", "functions", "chat_template_kwargs"}
)
"""The plain fields that are read; only `prompt` and `responses` must be there. `scores.SCORE_FIELDS` are read too."""

KNOWN_FIELDS = GROUP_FIELDS | SCORE_FIELDS | frozenset(PROMPT_FIELDS) | frozenset(MEDIA_FIELDS)
"""Every field that is read, or hidden by `columns`."""

READ_OF_SCORED = KNOWN_FIELDS - {"gold", "votes"} - UNPAIRED_FIELDS
"""Those of them that are read where responses are scored: their pairs come from the scores alone. Of a response with a
label `UNPAIRED_FIELDS` are read too."""


def parse_group(raw: Raw, origin: str, columns: Columns | None = None, prefill: Prefill = "error") -> GroupRow | BadRow:
    """Read one row.

    An empty response is read all the same: policies write them, and the data module counts them. A single `response`
    is a group of one; scores are read by `scores`. A row without `id` is named by a digest of its text, one without
    `prompt_id` by a digest of its prompt.

    Args:
        raw: field names to JSON-like values.
        origin: what to call the row in an error: `responses.jsonl:17`.
        columns: as in `GroupFile`.
        prefill: as in `pairs.parse_row`.

    Returns:
        The group, or what is wrong with it.
    """
    try:
        check_depth(raw, "the row")
        named = renamed(raw, columns or {})
        row = plain_scored(named)
        prompt, responses = group_turns(row, columns, prefill)
        scores, weight = read_scores(row, len(responses)), optional_number(row, "weight", 0.0)
        return GroupRow(
            prompt=prompt,
            responses=responses,
            id=identifier(row, "id") or digest([prompt, *responses], 16),
            prompt_id=identifier(row, "prompt_id") or digest(prompt),
            subset=identifier(row, "subset") or "all",
            scores=scores,
            gold=_gold(row, len(responses)),
            votes=_votes(row, len(responses)),
            weight=1.0 if weight is None else weight,
            tools=read_tools(row),
            chat_template_kwargs=read_chat_template_kwargs(row),
            origin=origin,
            unread=_unread(raw, columns or {}, UNPAIRED_FIELDS if is_unpaired(named) else ()) if scores else (),
            doubts=raw.doubts if isinstance(raw, TableRow) else (),
        )
    except RowError as error:
        return BadRow(origin, error.reason, error.detail)


def group_turns(row: Raw, columns: Columns | None, prefill: Prefill) -> tuple[Turns, tuple[Turns, ...]]:
    """Read the turns of a prompt and of each response to it; an empty response becomes one empty turn.

    Raises:
        RowError: if they cannot be read.
    """
    prompt = prompt_turns(required(row, "prompt"))
    values = items_of(required(row, "responses"), "field 'responses'", " of responses")
    if not values:
        raise RowError(BAD_VALUE, "field 'responses' is an empty list; leave the row out, or sample again")
    named = {f"response {place}": value for place, value in enumerate(values)}
    answers = {name: answer_turns(prompt, value, name) or SILENCE for name, value in named.items()}
    check_turns(prompt, {name: said for name, said in answers.items() if not is_blank(said[-1])})
    prompt, answers = continued(prompt, answers, prefill)
    check_unread(row, [prompt, *answers.values()])
    check_media(row, columns or {}, prompt)
    return after_system(row, prompt), tuple(answers.values())


def _unread(raw: Raw, columns: Columns, also: Iterable[str]) -> tuple[str, ...]:
    """Return the fields of a row of scored responses that nothing reads."""
    read = READ_OF_SCORED.union(columns, read_by(columns, raw), also)
    return tuple(sorted(name for name, value in raw.items() if value is not None and name not in read))


def _gold(row: Raw, num_responses: int) -> tuple[float, ...]:
    if not has(row, "gold"):
        return ()
    gold = numbers(row["gold"], "field 'gold'")
    check_one_each("gold", len(gold), num_responses)
    return gold


def _votes(row: Raw, num_responses: int) -> tuple[tuple[float, ...], ...]:
    """Return the voters' rewards of each response; every response must have as many voters."""
    if not has(row, "votes"):
        return ()
    items = items_of(row["votes"], "field 'votes'", " of lists of numbers, one a response")
    votes = tuple(numbers(item, f"field 'votes', response {place}") for place, item in enumerate(items))
    check_one_each("votes", len(votes), num_responses)
    if len(voters := {len(rewards) for rewards in votes}) > 1 or 0 in voters:
        raise RowError(BAD_VALUE, f"field 'votes' has {sorted(voters)} votes a response; it must be one number above 0")
    return votes
