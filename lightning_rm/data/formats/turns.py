"""Turns: the shapes in which files write a conversation, all read to messages, and where its prompt ends.

A conversation may be one text, HH-RLHF text with its `Human:` and `Assistant:` marks, a list of texts that take turns,
or a list of messages. This file knows one conversation, or the two of a pair; it knows no file and no data set. What
one message may look like is `messages`'.
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
from lightning_rm.data.formats.messages import ROLES, is_blank, read_message, texts_of
from lightning_rm.data.rows import Message

Turns = tuple[Message, ...]

WRONG_ROLE = "wrong role"
PROMPT_DISAGREES = "prompt disagrees"
SEVERAL_RESPONSES = "several responses"

HH_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def is_hh_text(value: object) -> bool:
    """Whether this is a conversation in HH-RLHF's marks: it begins with `Human:` and has an `Assistant:` turn."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def hh_turns(value: str, name: str) -> Turns:
    """The turns of HH-RLHF text: `"\\n\\nHuman: hi\\n\\nAssistant: ho"` is a user's `hi` and an assistant's `ho`."""
    _, *parts = HH_MARK.split(text(value, name))
    return tuple(
        Message(role=ROLES[mark.lower()], content=content.strip())
        for mark, content in zip(parts[::2], parts[1::2], strict=True)
    )


def read_turns(value: object, name: str, first_role: str) -> Turns:
    """The turns of a conversation in any shape but HH-RLHF text.

    Args:
        value: a text, a list of texts, a message or a list of messages; a blank text is no turn.
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


def read_conversation(value: object, where: str) -> list[Message]:
    """The messages of one whole conversation, read as training reads those of a row: for whoever has it scored.

    Args:
        value: a list of messages; the last one is the response, which may be empty, as a policy's may.
        where: what to call the conversation in an error: `conversation 3`.

    Raises:
        ValueError: for anything else, one message or a text in place of a list above all, and for a conversation that
            does not end with the assistant's turn.
    """
    wanted = "a conversation is a list of messages, [{'role': 'user', 'content': ...}, {'role': 'assistant', ...}]"
    if isinstance(value, str | bytes):
        raise ValueError(f"{where} is a text, {shown(value)}; {wanted}")
    if isinstance(value, Mapping):
        fields = ", ".join(map(str, cast(Mapping[object, object], value)))
        kind = "one message" if {"role", "from"} & set(value) else f"a mapping of {fields or 'nothing'}"
        raise ValueError(f"{where} is {kind}, {shown(value)}; {wanted}, and it stands in a list of conversations")
    if not isinstance(value, Sequence):
        raise ValueError(f"{where} is of the type {type(value).__name__}; {wanted}")
    try:
        turns = tuple(read_message(item, f"turn {place}") for place, item in enumerate(cast(Sequence[object], value)))
        if not turns:
            raise RowError(EMPTY_TEXT, f"it has no turn; {wanted}")
        check_answered(turns, "it")
        check_turns(turns[:-1], {} if is_blank(turns[-1]) else {"the response": turns[-1:]})
    except RowError as error:
        raise ValueError(f"{where}: {error}") from None
    return list(turns)


def explicit_pair(prompt: object, chosen: object, rejected: object) -> tuple[Turns, Turns, Turns]:
    """Prompt, chosen and rejected of a row that names its prompt.

    The responses may be written with the prompt in front of them or without.
    """
    turns = prompt_turns(prompt)
    return turns, answer_turns(turns, chosen, "chosen"), answer_turns(turns, rejected, "rejected")


def prompt_turns(prompt: object) -> Turns:
    """The turns of a prompt in any shape. One in HH-RLHF text loses the `Assistant:` that it ends with."""
    if not is_hh_text(prompt):
        return read_turns(prompt, "prompt", "user")
    turns = hh_turns(cast(str, prompt), "prompt")
    return turns[:-1] if is_blank(turns[-1]) and turns[-1]["role"] == "assistant" else turns


def answer_turns(prompt: Turns, value: object, name: str) -> Turns:
    """The turns that answer a prompt, which may stand in front of them."""
    if is_hh_text(value) and _begins_with(turns := hh_turns(cast(str, value), name), prompt, name):
        return turns[len(prompt) :]
    texts = cast(list[object], value) if _is_texts(value) else []
    in_front = prompt and texts[:1] == [prompt[0]["content"]]
    turns = read_turns(value, name, "user" if in_front else "assistant")
    if _begins_with(turns, prompt, name):
        return turns[len(prompt) :]
    if len(texts) > 1:
        raise RowError(
            SEVERAL_RESPONSES,
            f"{name} is a list of {len(texts)} texts without roles beside a prompt, which may be as many responses; a "
            "pair has one response a side: write the turns of a dialogue as messages with their roles, and several "
            "responses as a row each",
        )
    if prompt and turns and turns[0]["role"] in ("user", "system"):
        raise RowError(
            PROMPT_DISAGREES,
            f"{name} begins with a {turns[0]['role']} turn that is not the prompt's; if the prompt stands in "
            "both responses anyway, hide the field with columns={prompt: null}",
        )
    return turns


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in cast(Sequence[object], value))


def _begins_with(turns: Turns, prompt: Turns, name: str) -> bool:
    """Whether a conversation repeats the prompt and goes on after it; blanks around a turn do not count.

    Raises:
        RowError: if it says more than the prompt under another key, which would be lost with the repeated turn.
    """
    repeats = 0 < len(prompt) < len(turns) and all(
        turn["role"] == asked["role"] and turn["content"].strip() == asked["content"].strip()
        for turn, asked in zip(turns, prompt, strict=False)
    )
    for place, (turn, asked) in enumerate(zip(turns, prompt, strict=False) if repeats else ()):
        if more := [key for key, value in turn.items() if key != "content" and asked.get(key) != value]:
            raise RowError(
                PROMPT_DISAGREES,
                f"{name} repeats the prompt, and says more of turn {place} than the prompt does: {', '.join(more)}; "
                "read the prompt out of the responses with columns={prompt: null}",
            )
    return repeats


def implicit_pair(chosen: object, rejected: object) -> tuple[Turns, Turns, Turns]:
    """Prompt, chosen and rejected of a row whose two conversations share their prompt.

    Lists of turns share their longest common prefix; each side keeps one turn at least. Two texts without marks share
    what stands before the last line break of their longest common prefix: `"Q: 2+2?\\n4"` and `"Q: 2+2?\\n5"` have the
    prompt `Q: 2+2?`. Where no line break is shared there is no prompt, and the whole texts are the responses: two
    answers that merely begin alike (`I think that ...`) are not cut in the middle of a sentence.
    """
    if isinstance(chosen, str) and isinstance(rejected, str):
        chosen, rejected = text(chosen, "chosen"), text(rejected, "rejected")
        prompt, start = _shared_lines(chosen.rstrip(), rejected.rstrip())
        sides = [read_turns(side[start:], "response", "assistant") for side in (chosen, rejected)]
        return read_turns(prompt, "prompt", "user"), sides[0], sides[1]
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise RowError(
            WRONG_TYPE,
            "without a prompt, chosen and rejected must both be text or both be lists of turns, found "
            f"{shown(chosen)} and {shown(rejected)}",
        )
    first, second = read_turns(chosen, "chosen", "user"), read_turns(rejected, "rejected", "user")
    num_shared = 0
    for turn, other in zip(first[:-1], second[:-1], strict=False):
        if turn != other:
            break
        num_shared += 1
    return first[:num_shared], first[num_shared:], second[num_shared:]


def _shared_lines(first: str, second: str) -> tuple[str, int]:
    """The whole lines that two texts begin with, and where the rest begins."""
    shorter = min(len(first), len(second))
    differs = next((place for place in range(shorter) if first[place] != second[place]), shorter)
    start = first.rfind("\n", 0, differs) + 1
    return first[:start].rstrip(), start


def check_turns(prompt: Turns, responses: Mapping[str, Turns]) -> None:
    """Raise `RowError` unless every turn says something and all conversations end with the assistant's word.

    A prompt may have no turn at all, and a blank system turn: some templates put a default in where there is none.

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
