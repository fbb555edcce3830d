"""`parse_scorable` turns a raw row with one response, several, or a pair into the conversations to score.

Pairs and groups are read as for training, except that fields that say which response is better are ignored. This
file knows one row at a time, and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple, cast

from lightning_rm.data.formats.asked import after_system, check_unread
from lightning_rm.data.formats.columns import check_options, renamed
from lightning_rm.data.formats.fields import (
    MISSING_FIELD,
    WRONG_TYPE,
    Raw,
    RowError,
    found_fields,
    has,
    shown,
)
from lightning_rm.data.formats.groups import group_turns
from lightning_rm.data.formats.media import check_marks, check_media
from lightning_rm.data.formats.messages import ROLES, is_blank
from lightning_rm.data.formats.nested import check_depth
from lightning_rm.data.formats.pairs import read_pair
from lightning_rm.data.formats.published import FORMATS
from lightning_rm.data.formats.questions import asked
from lightning_rm.data.formats.responses import SEVERAL_RESPONSES, Prefill, answer_turns, continued
from lightning_rm.data.formats.template import read_chat_template_kwargs, read_tools
from lightning_rm.data.formats.turns import (
    SILENCE,
    Turns,
    check_answered,
    check_turns,
    hh_turns,
    is_hh_text,
    prompt_turns,
    read_turns,
)
from lightning_rm.data.rows import BadRow

Kind = Literal["one", "pair", "group"]

RESPONSES = (("response", "completion"), ("answer", "output"))
"""Fields of a single response beside its prompt, in the order they are looked for. An answer or an output beside a
response may be a reference; of two names of one rank nobody can tell which one is meant."""

CONVERSATIONS = ("messages", "conversations", "conversation")
"""Fields of a whole conversation that ends with its response."""

SCORABLE_FIELDS = frozenset(
    {"responses", "system", "instruction", "question", "input", *chain(*RESPONSES), *CONVERSATIONS}
)
"""The fields that are read in addition to those of pairs."""


def check_scorable_options(format: str, columns: Mapping[str, str | None]) -> None:
    """Raise ValueError for a format or a column name that `parse_scorable` does not know."""
    check_options(format, {name: path for name, path in columns.items() if name not in SCORABLE_FIELDS})


class Scorable(NamedTuple):
    """The conversations of a row.

    Args:
        prompt: the turns that they begin with.
        responses: the turns of each response; of a pair chosen comes first, or the row's order is kept where a separate
            field says which is better.
        kind: whether the row holds one response, a pair or a list.
        tools: tool definitions for the chat template.
        chat_template_kwargs: further arguments for it.
    """

    prompt: Turns
    responses: tuple[Turns, ...]
    kind: Kind
    tools: Sequence[Mapping[str, Any]] = ()
    chat_template_kwargs: Mapping[str, Any] = {}  # never written to

    @property
    def turns(self) -> list[Turns]:
        """The whole conversations."""
        return [(*self.prompt, *response) for response in self.responses]


def parse_scorable(
    raw: Raw,
    origin: str,
    *,
    format: str = "auto",
    columns: Mapping[str, str | None] | None = None,
    prefill: Prefill = "error",
) -> Scorable | BadRow:
    """Read one row.

    `responses` is a list of responses to `prompt`, as in `groups`. A pair is in any format of `pairs`. One response
    stands in one of `RESPONSES`, and its prompt in `prompt`, in `instruction` and `input`, in `question` or in
    `messages`; or the row has a whole conversation, whose last turn is the response.

    Args:
        raw: field names to JSON-like values.
        origin: what to call the row in an error: `answers.jsonl:17`.
        format: of pairs, one of `published.FORMATS`; `auto` for the first that matches, or no pair.
        columns: field -> its name in `raw`, or a dotted path to it; None hides the field of that name.
        prefill: as in `pairs.parse_row`.

    Returns:
        The conversations, or what is wrong with the row.
    """
    columns = columns or {}
    try:
        check_depth(raw, "the row")
        row = renamed(raw, columns)
        if format != "auto" or any(known.matches(row) for known in FORMATS.values()):
            row, prompt, *pair = read_pair(raw, format, columns, prefill, as_given=True)
            return Scorable(prompt, tuple(pair), "pair", read_tools(row), read_chat_template_kwargs(row))
        kind: Kind = "group" if has(row, "responses") else "one"
        prompt, responses = group_turns(row, columns, prefill) if kind == "group" else _single(row, prefill)
        check_media(row, columns, prompt)
        check_turns(prompt, {f"response {i}": said for i, said in enumerate(responses) if not is_blank(said[-1])})
        return Scorable(prompt, responses, kind, read_tools(row), read_chat_template_kwargs(row))
    except RowError as error:
        return BadRow(origin, error.reason, error.detail)


def prompt_and_response(prompt: object, response: object) -> Turns:
    """Return a prompt and one response, each a text or a list of messages, as one conversation.

    Raises:
        ValueError: if they cannot be read.
    """
    try:
        turns = prompt_turns(prompt)
        # A policy that was given the beginning of its answer has gone on with it.
        turns, answers = continued(turns, {"response": response_turns(turns, response, "response")}, "continue")
        check_marks(turns)
        return (*turns, *answers["response"])
    except RowError as error:
        raise ValueError(error.detail) from None


def whole_conversation(value: object, name: str) -> Turns:
    """Read a conversation that ends with the response, in any shape that says who speaks.

    Raises:
        RowError: for texts without roles, and for a conversation that ends with another's turn.
    """
    if is_hh_text(value):
        turns = hh_turns(cast(str, value), name)
    else:
        items = cast(Sequence[object], value) if isinstance(value, Sequence) else ()
        if not items or any(isinstance(item, str) for item in items):
            raise RowError(WRONG_TYPE, f"{name} must be a list of messages with role and content, found {shown(value)}")
        turns = read_turns(value, name, "user")
    check_answered(turns, name)
    return turns


def _single(row: Raw, prefill: Prefill) -> tuple[Turns, tuple[Turns, ...]]:
    """Return prompt and response of a row with one response."""
    name = _response_field(row)
    if name is None:
        whole = next((name for name in CONVERSATIONS if has(row, name)), None)
        if whole is None:
            raise RowError(
                MISSING_FIELD,
                f"{found_fields(row)}; a row to score has a prompt and responses, response or completion, a "
                "conversation in messages, or a pair; name other fields with columns={response: ...}",
            )
        return _whole(row, whole)
    if isinstance(row[name], list) and not has(row, "prompt") and _has_user(row[name]):
        return _whole(row, name)
    prompt, read = asked(row)
    prompt, answers = continued(prompt, {name: response_turns(prompt, row[name], name)}, prefill)
    check_unread(row, [prompt, *answers.values()], *read)
    return prompt, tuple(answers.values())


def _response_field(row: Raw) -> str | None:
    """Return the name of the field of one response; None where there is none.

    Raises:
        RowError: if it may be either of two that do not say the same.
    """
    found = next((there for names in RESPONSES if (there := [name for name in names if has(row, name)])), [])
    if len(found) == 2 and row[found[0]] != row[found[1]]:
        raise RowError(
            SEVERAL_RESPONSES,
            f"the row has {found[0]!r} and {found[1]!r}, and one response is scored; leave one out with "
            f"columns={{{found[1]}: null}}, or write both as a list of 'responses'",
        )
    return found[0] if found else None


def _whole(row: Raw, name: str) -> tuple[Turns, tuple[Turns, ...]]:
    """Return prompt and response of a row with a whole conversation in one field."""
    turns = after_system(row, whole_conversation(row[name], f"field {name!r}"))
    check_unread(row, [turns], name)
    return turns[:-1], (turns[-1:],)


def response_turns(prompt: Turns, value: object, name: str) -> Turns:
    """Return the turns of a response, which its prompt may precede; one that says nothing is an empty turn.

    Raises:
        RowError: if it cannot be read, or does not end with the assistant's turn.
    """
    turns = answer_turns(prompt, value, name) or SILENCE
    check_answered(turns, name)
    return turns


def _has_user(value: object) -> bool:
    """Tell whether a list of messages has one of the user's: then it is a whole conversation."""
    items = cast(Sequence[object], value)
    roles = (cast(Raw, item).get("role") or cast(Raw, item).get("from") for item in items if isinstance(item, Mapping))
    return any(ROLES.get(str(role).lower()) == "user" for role in roles)
