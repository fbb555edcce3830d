"""Turns: the shapes in which files write a conversation, all read to messages, and where its prompt ends.

A conversation may be one text, HH-RLHF text with its `Human:` and `Assistant:` marks, a list of texts that take turns,
or a list of messages (`role`/`content`, or ShareGPT's `from`/`value`). This file knows one conversation, or the two of
a pair; it knows no file and no data set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from lightning_rm.data.formats.fields import (
    EMPTY_TEXT,
    WRONG_TYPE,
    Raw,
    RowError,
    has,
    json_field,
    json_like,
    shown,
    text,
)
from lightning_rm.data.rows import Message

Turns = tuple[Message, ...]

UNKNOWN_ROLE = "unknown role"
WRONG_ROLE = "wrong role"
PROMPT_DISAGREES = "prompt disagrees"

ROLES = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "tool": "tool",
}
"""Every role a file may use, in lower case, and its name in a chat template."""

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
        return (_message(cast(Raw, value), name),)
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise RowError(WRONG_TYPE, f"{name} must be text or a list of turns, found {shown(value)}")
    items = cast(Sequence[object], value)
    if all(isinstance(item, str) for item in items):
        roles = ("user", "assistant") if first_role == "user" else ("assistant", "user")
        return tuple(
            Message(role=roles[place % 2], content=text(item, f"{name}, turn {place}"))
            for place, item in enumerate(items)
        )
    return tuple(_message(item, f"{name}, turn {place}") for place, item in enumerate(items))


def _message(value: object, name: str) -> Message:
    """One message, with what a chat template may need of a tool call."""
    if not isinstance(value, Mapping):
        raise RowError(WRONG_TYPE, f"{name} must be a message with role and content, found {shown(value)}")
    raw = cast(Raw, value)
    role_key, content_key = ("role", "content") if has(raw, "role") else ("from", "value")
    if not has(raw, role_key):
        raise RowError(WRONG_TYPE, f"{name} must be a message with role and content, found {shown(raw)}")
    role = text(raw[role_key], f"{name}, {role_key}")
    if role.lower() not in ROLES:
        raise RowError(UNKNOWN_ROLE, f"{name} has the role {role!r}; known are {', '.join(ROLES)}")
    calls = json_field(raw, "tool_calls")
    content = "" if calls and raw.get(content_key) is None else raw.get(content_key)
    message = Message(role=ROLES[role.lower()], content=text(content, f"{name}, {content_key}"))
    if calls:
        if not isinstance(calls, Sequence) or not all(isinstance(call, Mapping) for call in cast(list[object], calls)):
            raise RowError(WRONG_TYPE, f"{name}, tool_calls must be a list of calls, found {shown(calls)}")
        message["tool_calls"] = tuple(cast(Sequence[Raw], json_like(calls, f"{name}, tool_calls")))
    if has(raw, "name"):
        message["name"] = text(raw["name"], f"{name}, name")
    if has(raw, "tool_call_id"):
        message["tool_call_id"] = text(raw["tool_call_id"], f"{name}, tool_call_id")
    return message


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
    if is_hh_text(value) and _begins_with(turns := hh_turns(cast(str, value), name), prompt):
        return turns[len(prompt) :]
    in_front = isinstance(value, list) and prompt and value[:1] == [prompt[0]["content"]]
    turns = read_turns(value, name, "user" if in_front else "assistant")
    if _begins_with(turns, prompt):
        return turns[len(prompt) :]
    if prompt and turns and turns[0]["role"] in ("user", "system"):
        raise RowError(
            PROMPT_DISAGREES,
            f"{name} begins with a {turns[0]['role']} turn that is not the prompt's; if the prompt stands in "
            "both responses anyway, hide the field with columns={prompt: null}",
        )
    return turns


def _begins_with(turns: Turns, prompt: Turns) -> bool:
    """Whether a conversation repeats the prompt and goes on after it; blanks around a turn do not count."""
    return 0 < len(prompt) < len(turns) and all(
        turn["role"] == asked["role"] and turn["content"].strip() == asked["content"].strip()
        for turn, asked in zip(turns, prompt, strict=False)
    )


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
        if turns[-1]["role"] != "assistant":
            raise RowError(WRONG_ROLE, f"{name} must end with the assistant's turn, found {shown(turns[-1])}")
    for name, turns in {"prompt": prompt, **responses}.items():
        for place, turn in enumerate(turns):
            if is_blank(turn) and not (name == "prompt" and turn["role"] == "system"):
                raise RowError(EMPTY_TEXT, f"{name}, turn {place} ({turn['role']}) is empty")


def is_blank(turn: Message) -> bool:
    """Whether a turn says nothing and calls no tool."""
    return not turn["content"].strip() and "tool_calls" not in turn
