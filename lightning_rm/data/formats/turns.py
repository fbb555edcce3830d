"""Read a conversation, in any shape that files write it in, as a tuple of messages: its turns.

A conversation may be one text, HH-RLHF text with its `Human:` and `Assistant:` marks, a list of texts that take turns,
or a list of messages. This file knows one conversation. `messages` knows what one message may look like, `responses`
where a prompt ends and its responses begin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from lightning_rm.data.formats.fields import (
    EMPTY_TEXT,
    TOO_LARGE,
    WRONG_TYPE,
    RowError,
    shown,
    text,
)
from lightning_rm.data.formats.limits import MAX_CHARACTERS
from lightning_rm.data.formats.media import check_marks
from lightning_rm.data.formats.messages import ROLES, is_blank, read_message, texts_of
from lightning_rm.data.rows import Message

Turns = tuple[Message, ...]

SILENCE: Turns = (Message(role="assistant", content=""),)
"""A response that says nothing, as a policy may."""

WRONG_ROLE = "wrong role"
PROMPT_DISAGREES = "prompt disagrees"
HH_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def is_hh_text(value: object) -> bool:
    """Tell whether this is a conversation in HH-RLHF's marks: it begins with `Human:` and has an `Assistant:` turn."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def hh_turns(value: str, name: str) -> Turns:
    """Return the turns of HH-RLHF text: `"\\n\\nHuman: hi\\n\\nAssistant: ho"` is a user's `hi` and an assistant's
    `ho`.
    """
    _, *parts = HH_MARK.split(text(value, name))
    return tuple(
        Message(role=ROLES[mark.lower()], content=content.strip())
        for mark, content in zip(parts[::2], parts[1::2], strict=True)
    )


def read_turns(value: object, name: str, first_role: str) -> Turns:
    """Return the turns of a conversation in any shape but HH-RLHF text.

    Args:
        value: a text, a list of texts, a message or a list of messages; a blank text is not a turn.
        name: what to call it in an error.
        first_role: who speaks first in texts without roles, `user` or `assistant`; the two take turns.

    Raises:
        RowError: for anything else, and for a role that `ROLES` lacks.
    """
    if isinstance(value, str):
        return (Message(role=first_role, content=text(value, name)),) if value.strip() else ()
    if isinstance(value, Mapping):
        return (read_message(value, name),)
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise RowError(WRONG_TYPE, f"{name} must be text or a list of turns, found {shown(value)}")
    items = cast(Sequence[object], value)
    if all(isinstance(item, str) for item in items):
        roles = ("user", "assistant") if first_role == "user" else ("assistant", "user")
        return tuple(
            Message(role=roles[place % 2], content=text(item, f"{name}, turn {place}"))
            for place, item in enumerate(items)
        )
    return tuple(read_message(item, f"{name}, turn {place}") for place, item in enumerate(items))


def read_conversation(value: object, origin: str) -> list[Message]:
    """Return the messages of a whole conversation to score, read as a row is read for training.

    Args:
        value: a list of messages; the last one is the response, which may be empty, as a policy's may.
        origin: what to call the conversation in an error: `conversation 3`.

    Raises:
        ValueError: for anything else, above all one message or a text in place of a list; for a conversation that
            does not end with the assistant's turn; and for a mark before it that stands for an image.
    """
    wanted = "a conversation is a list of messages, [{'role': 'user', 'content': ...}, {'role': 'assistant', ...}]"
    if isinstance(value, str | bytes):
        raise ValueError(f"{origin} is a text, {shown(value)}; {wanted}")
    if isinstance(value, Mapping):
        fields = ", ".join(map(str, cast(Mapping[object, object], value)))
        kind = "one message" if {"role", "from"} & set(value) else f"a mapping of {fields or 'nothing'}"
        raise ValueError(f"{origin} is {kind}, {shown(value)}; {wanted}, and it stands in a list of conversations")
    if not isinstance(value, Sequence):
        raise ValueError(f"{origin} is of the type {type(value).__name__}; {wanted}")
    try:
        turns = tuple(read_message(item, f"turn {place}") for place, item in enumerate(cast(Sequence[object], value)))
        if not turns:
            raise RowError(EMPTY_TEXT, f"it has no turn; {wanted}")
        check_answered(turns, "it")
        check_turns(turns[:-1], {} if is_blank(turns[-1]) else {"the response": turns[-1:]})
        check_marks(turns[:-1])
    except RowError as error:
        raise ValueError(f"{origin}: {error}") from None
    return list(turns)


def prompt_turns(prompt: object) -> Turns:
    """Return the turns of a prompt in any shape. HH-RLHF text loses the `Assistant:` at its end."""
    if not is_hh_text(prompt):
        return read_turns(prompt, "prompt", "user")
    turns = hh_turns(cast(str, prompt), "prompt")
    return turns[:-1] if is_blank(turns[-1]) and turns[-1]["role"] == "assistant" else turns


def check_turns(prompt: Turns, responses: Mapping[str, Turns]) -> None:
    """Raise `RowError` unless every turn says something and all conversations end with the assistant's turn.

    A prompt may have no turn at all, or a blank system turn, which keeps templates from adding a default one.

    Args:
        prompt: the turns that all conversations begin with.
        responses: what to call each response in an error -> its turns.
    """
    for name, turns in responses.items():
        if not turns:
            raise RowError(EMPTY_TEXT, f"{name} is empty")
        check_answered(turns, name)
    for name, turns in {"prompt": prompt, **responses}.items():
        for place, turn in enumerate(turns):
            if is_blank(turn) and not (name == "prompt" and turn["role"] == "system"):
                raise RowError(EMPTY_TEXT, f"{name}, turn {place} ({turn['role']}) is empty")
        num_characters = sum(len(said) for turn in turns for said in texts_of(turn).values())
        if num_characters > MAX_CHARACTERS:
            raise RowError(
                TOO_LARGE, f"{name} has {num_characters:,} characters, more than the {MAX_CHARACTERS:,} that are read"
            )


def check_answered(turns: Turns, name: str) -> None:
    """Raise `RowError` unless a conversation ends with the assistant's turn."""
    if turns[-1]["role"] != "assistant":
        raise RowError(WRONG_ROLE, f"{name} must end with the assistant's turn, found {shown(turns[-1])}")
