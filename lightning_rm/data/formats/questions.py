"""Read a prompt from the fields that toolkits write it in: a question in several fields, the history before it.

This file knows fields; each format says which of them it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from lightning_rm.data.formats.asked import after_system
from lightning_rm.data.formats.fields import (
    EMPTY_TEXT,
    MISSING_FIELD,
    WRONG_TYPE,
    Raw,
    RowError,
    found_fields,
    has,
    shown,
    text,
)
from lightning_rm.data.formats.turns import Turns, prompt_turns, read_turns
from lightning_rm.data.rows import Message


def question(raw: Raw, *names: str) -> Message:
    """Return the user's turn, joined from several fields by line breaks."""
    parts = [text(raw[name], f"field {name!r}") for name in names if has(raw, name)]
    if not parts:
        raise RowError(MISSING_FIELD, f"field {names[0]!r} is missing; {found_fields(raw)}")
    if not any(part.strip() for part in parts):
        raise RowError(
            EMPTY_TEXT,
            f"fields {' and '.join(map(repr, names))} are empty; columns={{prompt: null}} says that there is no prompt",
        )
    return Message(role="user", content="\n".join(part for part in parts if part.strip()))


def history(raw: Raw) -> Turns:
    """Return the turns of `history`, a list of `[user, assistant]` texts; none where there is no such field."""
    pairs = cast(Sequence[Sequence[object]], raw.get("history") or [])
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise RowError(WRONG_TYPE, f"field 'history' must be a list of [user, assistant] texts, found {shown(pairs)}")
    return tuple(
        Message(role=role, content=text(said, f"field 'history', pair {place}, {role}"))
        for place, pair in enumerate(pairs)
        for role, said in zip(("user", "assistant"), pair, strict=True)
    )


def asked(raw: Raw) -> tuple[Turns, tuple[str, ...]]:
    """Return the prompt of a row with one response, and the fields that it was read from.

    These are `prompt`; or, after `history`, `instruction` with `input`, `question`, or `input` alone; or the turns of
    `messages`, `conversations` or `conversation`. A `system` field comes before them.

    Raises:
        RowError: if the row has none of them; an empty prompt says that there is no prompt.
    """
    names = next((names for names in ASKED_BY if has(raw, names[0])), None)
    if names is None:
        raise RowError(
            MISSING_FIELD, f"field 'prompt' is missing; {found_fields(raw)}; name another with columns={{prompt: ...}}"
        )
    if names == ("prompt",):
        turns = prompt_turns(raw["prompt"])
    elif "history" in names:
        turns = (*history(raw), question(raw, *(name for name in names if name != "history")))
    else:
        turns = read_turns(raw[names[0]], f"field {names[0]!r}", "user")
    return after_system(raw, turns), names


ASKED_BY = (
    ("prompt",),
    ("instruction", "input", "history"),
    ("question", "history"),
    ("input", "history"),
    ("messages",),
    ("conversations",),
    ("conversation",),
)
"""The sets of fields that hold a prompt, in the order they are looked for; the first field of a set must be there."""
