"""Find what a chat template leaves out of a conversation: a thought, a system turn that it does not know, a tool call.

Templates do so by design or by mistake; a user should be told. This file knows messages and the rendered text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from lightning_rm.data.formats.messages import NAMES
from lightning_rm.data.rows import Message


def left_out(text: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), first: int = 0) -> str:
    """Return the first piece of a conversation that its rendered text lacks: `turn 2 (assistant), reasoning_content`.

    Blanks are ignored, since templates strip them, and so are JSON escapes, since some templates write content as JSON.

    Args:
        text: what the template wrote.
        messages: the conversation.
        tools: the definitions of tools that it was given.
        first: the place of the first message, for the name.

    Returns:
        The name of the piece; empty where nothing is missing.
    """
    at, squeezed = 0, ""
    for name, piece in _pieces(messages, tools, first):
        found = text.find(piece, at)  # pieces mostly stand in order: a long text is searched once, not once a turn
        if found >= 0:
            at = found
            continue
        if piece in text:
            continue
        squeezed = squeezed or _squeezed(text)
        written = json.dumps(piece, ensure_ascii=False)[1:-1]
        if _squeezed(piece) not in squeezed and _squeezed(written) not in squeezed:
            return name
    return ""


def _pieces(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], first: int) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of everything in a conversation that a template could write."""
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and isinstance(name := cast(Any, function).get("name"), str):
            yield f"tool {name}", name
    for place, message in enumerate(messages, start=first):
        origin = f"turn {place} ({message['role']})"
        for key, value in message.items():
            for said in _leaves(value) if key not in (*NAMES, "tool_calls") else ():
                yield origin if key == "content" else f"{origin}, {key}", said
        for said in _texts(message.get("tool_calls", ())):
            yield f"{origin}, tool_calls", said


def _texts(calls: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the names of called functions, and all text in their arguments."""
    level: list[Any] = [call.get("function", call) for call in calls]
    for function in level:
        if isinstance(function, Mapping):
            yield from _leaves([cast(Any, function).get("name"), cast(Any, function).get("arguments")])


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in cast(Mapping[str, object], value).values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in cast(Sequence[object], value):
            yield from _leaves(item)


def _squeezed(text: str) -> str:
    return "".join(text.split())
