"""Responses from files: a row with a prompt and a list of responses, read to a `GroupRow`.

`lightning-rm sample` writes such files; so does any script that samples a policy. This file knows one format and no
tokenizer: readers find the raw rows, `turns` reads conversations in any shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from lightning_rm.data.fields import (
    BAD_VALUE,
    WRONG_TYPE,
    Raw,
    RowError,
    digest,
    has,
    identifier,
    numbers,
    required,
    shown,
)
from lightning_rm.data.formats import read_chat_template_kwargs, read_tools, renamed
from lightning_rm.data.options import Columns
from lightning_rm.data.readers import find_files, read_file
from lightning_rm.data.rows import BadRow, GroupRow, Message
from lightning_rm.data.sources import Paths, file_digests
from lightning_rm.data.turns import Turns, answer_turns, check_turns, is_blank, prompt_turns

GROUP_PARSER_VERSION = 1
"""Part of every fingerprint: raise it when a row is read to something else than before."""

GROUP_FIELDS = frozenset(
    {"prompt", "responses", "id", "prompt_id", "gold", "votes", "tools", "chat_template_kwargs"},
)
"""The fields that are read; only `prompt` and `responses` must be there."""


class ResponseFile:
    """Groups of responses from files: JSONL, JSON arrays, both also as `.gz`, and Parquet.

    A row has `prompt`, a text or a list of messages; `responses`, a list of texts or of lists of messages; and may have
    `id` and `prompt_id`, `gold`, a number for each response, `votes`, for each response a list of the rewards that
    voters give it, and `tools` and `chat_template_kwargs` for the chat template.

    Args:
        path: a path, a glob or a list of them.
        columns: field -> its name in the file, or a dotted path to it; None hides a field of that name.

    Raises:
        ValueError: if there is no such file, or for a column that is not read; while reading, if a file is damaged.
    """

    def __init__(self, path: Paths, columns: Columns | None = None) -> None:
        self.files = find_files(path)
        self.columns = dict(columns or {})
        if unknown := sorted(set(self.columns) - GROUP_FIELDS):
            raise ValueError(
                f"columns names {unknown[0]!r}, which is no field of a group of responses; a column is written "
                f"{{field: name in the file}}, and the fields are {', '.join(sorted(GROUP_FIELDS))}"
            )

    def fingerprint(self) -> str:
        """A digest of the files' bytes, in order, and of the columns."""
        return digest(["responses", GROUP_PARSER_VERSION, self.columns, file_digests(self.files)], 64)

    def __iter__(self) -> Iterator[GroupRow | BadRow]:
        """The rows of every file in order; their places are `responses.jsonl:17`."""
        for file in self.files:
            for record in read_file(file):
                yield record if isinstance(record, BadRow) else parse_group(record.raw, record.where, self.columns)


def response_files(
    path: Paths | Mapping[str, Paths] | None, columns: Columns | None = None
) -> ResponseFile | dict[str, ResponseFile] | None:
    """One source, or several named ones, from what a user writes in a configuration.

    Args:
        path: a path, a glob or a list of them for one source; name -> such for several; None for none.
        columns: as in `ResponseFile`, for every source.
    """
    if path is None:
        return None
    if isinstance(path, Mapping):
        return {name: ResponseFile(one, columns) for name, one in path.items()}
    return ResponseFile(path, columns)


def parse_group(raw: Raw, where: str, columns: Columns | None = None) -> GroupRow | BadRow:
    """Read one row.

    A response that says nothing is read all the same: policies give such, and the data module counts them. A row
    without `id` is named by a digest of its text, one without `prompt_id` by a digest of its prompt.

    Args:
        raw: field names to JSON-like values.
        where: what to call the row in an error: `responses.jsonl:17`.
        columns: as in `ResponseFile`.

    Returns:
        The group, or what is wrong with it.
    """
    try:
        row = renamed(raw, columns or {})
        prompt = prompt_turns(required(row, "prompt"))
        responses = _responses(row, prompt)
        return GroupRow(
            prompt=prompt,
            responses=responses,
            id=identifier(row, "id") or digest([prompt, *responses], 16),
            prompt_id=identifier(row, "prompt_id") or digest(prompt),
            gold=_gold(row, len(responses)),
            votes=_votes(row, len(responses)),
            tools=read_tools(row),
            chat_template_kwargs=read_chat_template_kwargs(row),
        )
    except RowError as error:
        return BadRow(where, error.reason, error.detail)


def _responses(row: Raw, prompt: Turns) -> tuple[Turns, ...]:
    values = _items(required(row, "responses"), "field 'responses' must be a list of responses")
    if not values:
        raise RowError(BAD_VALUE, "field 'responses' is an empty list; leave the row out, or sample again")
    named = {f"response {place}": value for place, value in enumerate(values)}
    silent: Turns = (Message(role="assistant", content=""),)
    turns = {name: answer_turns(prompt, value, name) or silent for name, value in named.items()}
    check_turns(prompt, {name: said for name, said in turns.items() if not is_blank(said[-1])})
    return tuple(turns.values())


def _gold(row: Raw, num_responses: int) -> tuple[float, ...]:
    if not has(row, "gold"):
        return ()
    gold = numbers(row["gold"], "field 'gold'")
    _check_number(len(gold), num_responses, "gold")
    return gold


def _votes(row: Raw, num_responses: int) -> tuple[tuple[float, ...], ...]:
    """The voters' rewards of each response, as many voters for each."""
    if not has(row, "votes"):
        return ()
    items = _items(row["votes"], "field 'votes' must be a list of lists of numbers, one a response")
    votes = tuple(numbers(item, f"field 'votes', response {place}") for place, item in enumerate(items))
    _check_number(len(votes), num_responses, "votes")
    if len(voters := {len(rewards) for rewards in votes}) > 1 or 0 in voters:
        raise RowError(BAD_VALUE, f"field 'votes' has {sorted(voters)} votes a response; it must be one number above 0")
    return votes


def _check_number(found: int, num_responses: int, name: str) -> None:
    if found != num_responses:
        raise RowError(BAD_VALUE, f"field {name!r} has {found} items for {num_responses} responses; it needs one each")


def _items(value: object, expected: str) -> Sequence[object]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RowError(WRONG_TYPE, f"{expected}, found {shown(value)}")
    return cast(Sequence[object], value)
