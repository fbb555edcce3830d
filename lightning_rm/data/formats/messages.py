"""Convert one message, in any form that files write it in, to what a chat template reads.

Nothing that a message says is lost: roles and tool calls are brought to one form, the parts of a text are joined, and
every other key stays as it is. This file knows one message; `turns` knows where it stands in a conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from lightning_rm.data.formats.fields import BROKEN_JSON, WRONG_TYPE, Raw, RowError, has, shown, text
from lightning_rm.data.formats.nested import json_field, json_like
from lightning_rm.data.rows import Message

UNKNOWN_ROLE = "unknown role"
NOT_TEXT = "not text"

CALL_ROLES = ("function_call", "tool_call")
"""Roles of turns whose text is the JSON of a call, or of a list of calls: an assistant's turn that calls tools."""

ROLES = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    **dict.fromkeys(CALL_ROLES, "assistant"),
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
"""Every role a file may use, in lower case, and its name in a chat template."""

SPOKEN_KEYS = ("content", "reasoning_content", "reasoning", "thinking", "refusal")
"""The keys under which a turn says something to be read."""

READ_KEYS = frozenset({"role", "content", "tool_calls", "function_call", "tool_call_id", "name"})
"""The keys of a message that have a form of their own; all others are kept as they are."""

NAMES = ("role", "tool_call_id", "name")
"""The keys of a message that say who speaks, or answers what."""

OTHER_KEYS = "other_keys"
"""A key of files that `annotate` writes: JSON text with keys of a message that have no column."""

PART_TEXT = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""The types of parts that are text, and the key that holds it."""


def read_message(value: object, name: str) -> Message:
    """Return a message (`role` and `content`, or ShareGPT's `from` and `value`) as chat templates take it.

    - Content in parts becomes their texts, one a line, as servers join them.
    - The arguments of a tool call may be JSON text, as OpenAI writes them; templates want the object.
    - An old `function_call` is a tool call, and so is the text of a turn with such a role.
    - A `refusal` without content is what was said.
    - All other keys that are not null stay: `reasoning_content`, `thinking`, or whatever a template may read.

    Args:
        value: the message.
        name: what to call it in an error.

    Raises:
        RowError: for anything else, a role that `ROLES` lacks, and for images.
    """
    raw = _with_other_keys(value, name)
    role_key = "role" if has(raw, "role") else "from"
    if not has(raw, role_key):
        raise RowError(WRONG_TYPE, f"{name} must be a message with role and content, found {shown(value)}")
    role = text(raw[role_key], f"{name}, {role_key}")
    if role.lower() not in ROLES:
        raise RowError(UNKNOWN_ROLE, f"{name} has the role {role!r}; known are {', '.join(ROLES)}")
    content_key = "content" if has(raw, "content") or not has(raw, "value") else "value"
    more = {
        key: json_like(item, f"{name}, {key}")
        for key, item in raw.items()
        if item is not None and key not in READ_KEYS and key not in (role_key, content_key)
    }
    calls = _calls(raw, name)
    content = _content(
        raw.get(content_key), f"{name}, {content_key}", may_be_missing=bool(calls or more.keys() & set(SPOKEN_KEYS))
    )
    if not content.strip() and isinstance(more.get("refusal"), str):
        content = str(more.pop("refusal"))
    if role.lower() in CALL_ROLES:
        calls, content = (*calls, *_calls_of_text(content, name)), ""
    message: dict[str, Any] = {"role": ROLES[role.lower()], "content": content, **more}
    if calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if has(raw, key):
            message[key] = text(raw[key], f"{name}, {key}")
    return cast(Message, message)


def is_blank(turn: Message) -> bool:
    """Tell whether a turn says nothing, in its content or in a thought, and calls no tool."""
    said = texts_of(turn)
    return "tool_calls" not in turn and not any(said.get(key, "").strip() for key in SPOKEN_KEYS)


def texts_of(turn: Message) -> dict[str, str]:
    """Return the texts of a turn by key: its content and all others, except its role, name and tool call id."""
    return {key: value for key, value in turn.items() if isinstance(value, str) and key not in NAMES}


def _with_other_keys(value: object, name: str) -> Raw:
    if not isinstance(value, Mapping):
        raise RowError(WRONG_TYPE, f"{name} must be a message with role and content, found {shown(value)}")
    raw = cast(Raw, value)
    if OTHER_KEYS not in raw:
        return raw
    others = json_field(raw, OTHER_KEYS, f"{name}, {OTHER_KEYS}")
    raw = {key: item for key, item in raw.items() if key != OTHER_KEYS}
    return {**cast(Raw, others), **raw} if isinstance(others, Mapping) else raw


def _content(value: object, name: str, may_be_missing: bool) -> str:
    """Return the text of a content; empty where it is missing and the message says something else."""
    if value is None and may_be_missing:
        return ""
    parts = [value] if isinstance(value, Mapping) and "type" in value else value
    if isinstance(parts, Sequence) and not isinstance(parts, str | bytes):
        items = cast(Sequence[object], parts)
        return "\n".join(_part(item, f"{name}, part {place}") for place, item in enumerate(items))
    return text(value, name)


def _part(value: object, name: str) -> str:
    if isinstance(value, str):
        return text(value, name)
    if not isinstance(value, Mapping):
        raise RowError(WRONG_TYPE, f"{name} must be text, found {shown(value)}")
    part = cast(Raw, value)
    kind = part.get("type", "text")
    if not isinstance(kind, str) or kind not in PART_TEXT:
        raise RowError(
            NOT_TEXT, f"{name} is of the type {shown(kind)}, and a reward model of texts reads {', '.join(PART_TEXT)}"
        )
    return text(part.get(PART_TEXT[kind]), name)


def _calls(raw: Raw, name: str) -> tuple[Raw, ...]:
    """Return the tool calls of a message, their arguments as objects; an old `function_call` among them."""
    if not has(raw, "tool_calls") and not has(raw, "function_call"):
        return ()
    calls = json_field(raw, "tool_calls", f"{name}, tool_calls")
    if not calls and has(raw, "function_call"):
        return _read_calls([{"type": "function", "function": raw["function_call"]}], f"{name}, function_call")
    return _read_calls(calls or [], f"{name}, tool_calls")


def _calls_of_text(content: str, name: str) -> tuple[Raw, ...]:
    """Return the calls that a turn of the role `function_call` writes as its text."""
    calls = json_field({"call": content}, "call", f"{name}, the text of a call")
    items = cast(list[object], calls) if isinstance(calls, list) else [calls]
    return _read_calls([{"type": "function", "function": call} for call in items], name)


def _read_calls(calls: object, name: str) -> tuple[Raw, ...]:
    items = cast(Sequence[object], calls)
    if not isinstance(calls, list | tuple) or not all(isinstance(call, Mapping) for call in items):
        raise RowError(WRONG_TYPE, f"{name} must be a list of calls, found {shown(calls)}")
    return tuple(_call(cast(Raw, call), f"{name}, call {place}") for place, call in enumerate(items))


def _call(call: Raw, name: str) -> Raw:
    if not has(call, "function"):
        return _with_arguments(call, name) if has(call, "arguments") else call
    function = call["function"]
    if not isinstance(function, Mapping):
        raise RowError(WRONG_TYPE, f"{name}, function must have a name and arguments, found {shown(function)}")
    return {**call, "function": _with_arguments(cast(Raw, function), name)}


def _with_arguments(function: Raw, name: str) -> Raw:
    """Return a called function with its arguments as an object, empty where they are missing or blank."""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = json_field(function, "arguments", f"{name}, arguments") if arguments.strip() else None
    if not isinstance(arguments, Mapping | None):
        raise RowError(BROKEN_JSON, f"{name}, arguments must be a JSON object, found {shown(arguments)}")
    return {**function, "arguments": arguments or {}}
