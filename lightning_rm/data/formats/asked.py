"""What a row asks outside `prompt`: its system turn, and fields that usually carry a prompt or a part of it.

A row that holds more of a prompt than was read is refused, so that nothing is lost silently. This file knows fields
and words; each format says which of them it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from lightning_rm.data.formats.fields import WRONG_TYPE, Raw, RowError, shown
from lightning_rm.data.formats.messages import read_message, texts_of
from lightning_rm.data.formats.turns import PROMPT_DISAGREES, Turns
from lightning_rm.data.rows import Message

UNREAD_PROMPT = "unread prompt"

SYSTEM_FIELDS = ("system", "system_prompt", "system_message")

PROMPT_FIELDS = (
    *("instruction", "question", "query", "problem", "input", "context", "prompt_text"),
    *("conversation", "conversations", "dialogue", "messages", "history", *SYSTEM_FIELDS),
)
"""Fields other than `prompt` that usually carry a prompt or a part of it."""


def unread_prompt(raw: Raw, *read: str) -> list[str]:
    """Return the prompt fields that have text in them, except those already read.

    A number or a truth value is not a prompt.
    """
    return [name for name in PROMPT_FIELDS if name in raw and name not in read and says(raw[name])]


def says(value: object) -> bool:
    """Tell whether there is any text in a value."""
    return any(said.strip() for said in _texts(value))


def with_prompt(raw: Raw, prompt: object, *read: str) -> dict[str, object]:
    """Return a row with the prompt that a format made from the fields `read`, which are removed.

    Raises:
        RowError: if the row has a different `prompt` as well.
    """
    row = {name: value for name, value in raw.items() if name not in read}
    if "prompt" not in read and not _stands_in(raw.get("prompt"), _words(_texts(prompt))):
        raise RowError(
            UNREAD_PROMPT,
            f"the row has 'prompt' beside {', '.join(map(repr, read))}; columns={{prompt: null}} leaves it out",
        )
    return {**row, "prompt": prompt}


def check_unread(row: Raw, turns: Sequence[Turns], *read: str) -> None:
    """Raise `RowError` for a prompt field whose text is in none of the turns that were read.

    Args:
        row: with the plain field names, without the fields that its format has read.
        turns: the prompt and the responses.
        read: fields that they were read from.
    """
    unread = unread_prompt(row, *SYSTEM_FIELDS, *read)
    said = _words(said for part in turns for turn in part for said in texts_of(turn).values()) if unread else ""
    if unread := [name for name in unread if not _stands_in(row[name], said)]:
        raise RowError(
            UNREAD_PROMPT,
            f"a prompt is read, and {', '.join(map(repr, unread))} asks more; write it into the prompt, or leave it "
            f"out with columns={{{unread[0]}: null}}",
        )


def check_asked(row: Raw) -> None:
    """Raise `RowError` if a row without a prompt has a field that usually carries one."""
    if not (unread := unread_prompt(row)):
        return
    several = ", columns={instruction: ..., input: ..., system: ...} joins several" if len(unread) > 1 else ""
    hidden = "".join(f", {name}: null" for name in unread[1:])
    raise RowError(
        UNREAD_PROMPT,
        f"no prompt is read, but the row has {', '.join(map(repr, unread))}; columns={{prompt: {unread[0]}{hidden}}} "
        f"reads that one{several}, columns={{prompt: null}} says that the pair has no prompt",
    )


def after_system(raw: Raw, turns: Turns) -> Turns:
    """Put the row's system turn before the turns, where it has one and they do not already begin with it.

    It may be text, a message, or a list of either, in one of `SYSTEM_FIELDS`.
    """
    for name in SYSTEM_FIELDS:
        if name not in raw or not says(raw[name]):
            continue
        system = _system(raw[name], f"field {name!r}")
        if not turns or turns[0]["role"] != "system":
            turns = (system, *turns)
        elif turns[0]["content"].strip() != system["content"].strip():
            raise RowError(
                PROMPT_DISAGREES,
                f"field {name!r} is not the system turn that the conversation begins with; hide it with "
                f"columns={{{name}: null}}",
            )
    return turns


def _system(value: object, name: str) -> Message:
    items = cast(Sequence[object], value) if isinstance(value, list | tuple) else [value]
    messages = [_system_message(item, name) for item in items if says(item)]
    if len(messages) == 1:
        return messages[0]
    return Message(role="system", content="\n".join(message["content"] for message in messages))


def _system_message(value: object, name: str) -> Message:
    if isinstance(value, str):
        return read_message({"role": "system", "content": value}, name)
    if not isinstance(value, Mapping):
        raise RowError(WRONG_TYPE, f"{name} must be text or a message, found {shown(value)}")
    given = cast(Raw, value)
    if given.keys().isdisjoint({"role", "from", "content", "value"}):
        given = {"content": [given]}
    has_role = not given.keys().isdisjoint({"role", "from"})
    message = read_message(given if has_role else {"role": "system", **given}, name)
    if message["role"] != "system":
        raise RowError(WRONG_TYPE, f"{name} must be a system turn, found one of the role {message['role']!r}")
    return message


def _stands_in(value: object, said: str) -> bool:
    """Tell whether all text of a value occurs in `said`, regardless of blanks."""
    return all(_words([text]) in said for text in _texts(value) if text.strip())


def _words(texts: Iterable[str]) -> str:
    """Return texts as words between single blanks, so that only whole words are found: `2` is not in ` 2+2? `."""
    return " " + " ".join(word for text in texts for word in text.split()) + " "


def _texts(value: object) -> list[str]:
    """Return all text in a field's value; for messages, what they say."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        given = cast(Raw, value)
        key = next((key for key in ("content", "value") if given.get(key) is not None), None)
        return [text for item in ([given[key]] if key else given.values()) for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in cast(Sequence[object], value) for text in _texts(item)]
    return []
