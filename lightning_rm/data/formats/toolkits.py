"""The shapes that other toolkits take preference pairs in, rewritten to the plain field names.

Three of them differ from the plain format in the prompt alone, which stands in one field or in several. A row that
holds more of a prompt than its format reads is not of that format: nothing that was asked is lost unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from lightning_rm.data.formats.fields import (
    BAD_VALUE,
    EMPTY_TEXT,
    MISSING_FIELD,
    WRONG_TYPE,
    Raw,
    RowError,
    found_fields,
    has,
    lookup,
    number,
    required,
    shown,
    text,
)
from lightning_rm.data.formats.messages import ROLES
from lightning_rm.data.formats.row_format import RowFormat, ordered
from lightning_rm.data.formats.turns import PROMPT_DISAGREES, WRONG_ROLE, Turns, prompt_turns, read_turns
from lightning_rm.data.rows import TIE, Message

PROMPT_FIELDS = (
    *("instruction", "question", "query", "problem", "input", "context", "prompt_text"),
    *("conversation", "conversations", "dialogue", "messages", "history", "system", "system_prompt"),
)
"""Fields that usually carry a prompt or a part of it, beside `prompt` itself."""

COMPLETIONS = ("completions.0.completion", "completions.1.completion")
RANKS = ("completions.0.rank", "completions.1.rank")


def unread_prompt(raw: Raw, *read: str) -> list[str]:
    """The prompt fields that say something, but for those that are read; a number or a truth value is no prompt."""
    return [name for name in PROMPT_FIELDS if name not in read and _says(raw.get(name))]


def _says(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else isinstance(value, Sequence | Mapping) and bool(value)


def _is_asked_by(raw: Raw, *names: str) -> bool:
    """Whether a row has its prompt in these fields alone, the first of which it has, and two responses without it."""
    responses = raw.get("chosen"), raw.get("rejected")
    return (
        has(raw, names[0])
        and raw.get("prompt") in (None, "", [])
        and all(_is_response(value) for value in responses)
        and not unread_prompt(raw, *names)
    )


def _is_response(value: object) -> bool:
    """Whether this is a text or begins with the assistant's turn; what begins with another's holds its prompt."""
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, Mapping):
        return isinstance(value, str)
    turn = cast(Raw, first)
    return ROLES.get(str(turn.get("role") or turn.get("from")).lower()) == "assistant"


def _alpaca(raw: Raw) -> Raw:
    """LLaMA-Factory's alpaca format: `instruction` and `input`, joined by a line break, after `system` and `history`.

    The history is a list of `[user, assistant]` texts.
    """
    return {**raw, "prompt": after_system(raw, (*_history(raw), _question(raw, "instruction", "input")))}


def _orca(raw: Raw) -> Raw:
    """Intel/orca_dpo_pairs and argilla's version of it, axolotl's `intel` and `icr`: `question` or `input`.

    It stands after `system`, which may be blank or missing.
    """
    return {**raw, "prompt": after_system(raw, (_question(raw, "question", "input"),))}


def _sharegpt(raw: Raw) -> Raw:
    """LLaMA-Factory's sharegpt format: the turns of `conversations`, after `system`, and two messages that answer."""
    turns = read_turns(required(raw, "conversations"), "conversations", "user")
    if not turns or turns[-1]["role"] == "assistant":
        raise RowError(
            WRONG_ROLE, f"conversations must end with the turn that the responses answer, found {shown(turns[-1:])}"
        )
    return {**raw, "prompt": after_system(raw, turns)}


def _question(raw: Raw, *names: str) -> Message:
    """The user's turn, whose lines stand in several fields."""
    parts = [text(raw[name], f"field {name!r}") for name in names if has(raw, name)]
    if not parts:
        raise RowError(MISSING_FIELD, f"field {names[0]!r} is missing; {found_fields(raw)}")
    if not any(part.strip() for part in parts):
        raise RowError(
            EMPTY_TEXT,
            f"fields {' and '.join(map(repr, names))} are empty; columns={{prompt: null}} says that there is no prompt",
        )
    return Message(role="user", content="\n".join(part for part in parts if part.strip()))


def _history(raw: Raw) -> Turns:
    pairs = cast(Sequence[Sequence[object]], raw.get("history") or [])
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise RowError(WRONG_TYPE, f"field 'history' must be a list of [user, assistant] texts, found {shown(pairs)}")
    return tuple(
        Message(role=role, content=text(said, f"field 'history', pair {place}, {role}"))
        for place, pair in enumerate(pairs)
        for role, said in zip(("user", "assistant"), pair, strict=True)
    )


def after_system(raw: Raw, turns: Turns) -> Turns:
    """The turns after the row's system text, where it has one and the turns do not begin with it."""
    system = text(raw["system"], "field 'system'") if has(raw, "system") else ""
    if not system.strip():
        return turns
    if not turns or turns[0]["role"] != "system":
        return (Message(role="system", content=system), *turns)
    if turns[0]["content"].strip() != system.strip():
        raise RowError(
            PROMPT_DISAGREES,
            "field 'system' is not the system turn that the conversation begins with; hide it with "
            "columns={system: null}",
        )
    return turns


def _ms_swift(raw: Raw) -> Raw:
    """ms-swift: `messages` ends with the chosen response, all that follows the last user's turn.

    In its place `rejected_response` has a text or a list of messages.
    """
    turns = read_turns(required(raw, "messages"), "messages", "user")
    start = max((place + 1 for place, turn in enumerate(turns) if turn["role"] == "user"), default=0)
    if not start:
        raise RowError(WRONG_ROLE, f"messages must hold a user's turn and the chosen response, found {shown(turns)}")
    rejected = required(raw, "rejected_response")
    return {**raw, "prompt": turns[:start], "chosen": turns[start:], "rejected": rejected}


def _openai(raw: Raw) -> Raw:
    """OpenAI's preference fine-tuning, and Together's and Fireworks': `input` holds the messages and the tools."""
    prompt = lookup(raw, "input.messages")
    if prompt is None:
        raise RowError(MISSING_FIELD, f"field 'input.messages' is missing; {found_fields(raw)}")
    tools = raw["tools"] if has(raw, "tools") else lookup(raw, "input.tools")
    return {**ordered(raw, "preferred_output", "non_preferred_output", True), "prompt": prompt, "tools": tools}


def _nemo_rl(raw: Raw) -> Raw:
    """NeMo RL: two ranked completions of a context, the lower rank preferred; equal ranks are a tie."""
    completions = required(raw, "completions")
    if not isinstance(completions, list):
        raise RowError(WRONG_TYPE, f"field 'completions' must be a list of two completions, found {shown(completions)}")
    if (num_completions := len(cast(Sequence[object], completions))) != 2:
        raise RowError(
            BAD_VALUE,
            f"field 'completions' holds {num_completions}, and a pair is two; expand the row to one row for each two "
            "that are to be compared",
        )
    row = {**raw, **{name: lookup(raw, name) for name in (*COMPLETIONS, *RANKS)}}
    first, second = (number(required(row, name), f"field {name!r}") for name in RANKS)
    if first == second:
        raise RowError(TIE, f"both completions have the rank {first:g}")
    return {**ordered(row, *COMPLETIONS, first < second), "prompt": required(raw, "context")}


def _ranked_as_given(raw: Raw) -> Raw:
    items = raw["completions"]
    if not isinstance(items, list):
        return raw
    ranked = [{**item, "rank": rank} if isinstance(item, Mapping) else item for rank, item in enumerate(items)]
    return {**raw, "completions": ranked}


def asked(raw: Raw) -> Turns:
    """The prompt of a row with one response: `prompt`, or the fields that toolkits write it in.

    These are `instruction` and `input` after `history`, `question`, `input` alone, or the turns of `messages`,
    `conversations` or `conversation`. A text `system` comes first.

    Raises:
        RowError: if there is none of them; a prompt that is empty says that there is none.
    """
    turns: Turns | None = None
    if raw.get("prompt") is not None:
        turns = prompt_turns(raw["prompt"])
    elif has(raw, "instruction"):
        turns = (*_history(raw), _question(raw, "instruction", "input"))
    else:
        for name in ("question", "input"):
            if turns is None and has(raw, name):
                turns = (*_history(raw), _question(raw, name))
        for name in ("messages", "conversations", "conversation"):
            if turns is None and has(raw, name):
                turns = read_turns(raw[name], f"field {name!r}", "user")
    if turns is None:
        raise RowError(
            MISSING_FIELD, f"field 'prompt' is missing; {found_fields(raw)}; name another with columns={{prompt: ...}}"
        )
    return after_system(raw, turns)


TOOLKIT_FORMATS: dict[str, RowFormat] = {
    "openai": RowFormat(lambda raw: has(raw, "preferred_output", "non_preferred_output"), _openai),
    "nemo_rl": RowFormat(lambda raw: has(raw, "context", "completions"), _nemo_rl, _ranked_as_given),
    "ms_swift": RowFormat(lambda raw: has(raw, "messages", "rejected_response"), _ms_swift),
    "alpaca": RowFormat(lambda raw: _is_asked_by(raw, "instruction", "input", "system", "history"), _alpaca),
    "sharegpt": RowFormat(lambda raw: _is_asked_by(raw, "conversations", "system"), _sharegpt),
    "orca": RowFormat(
        lambda raw: _is_asked_by(raw, "question", "system") or _is_asked_by(raw, "input", "system"), _orca
    ),
}
"""Every toolkit's format by its name, in the order they are tried."""

TOOLKIT_FIELDS = frozenset(
    {"instruction", "input", "question", "system", "history", "conversations", "messages", "rejected_response"}
    | {"preferred_output", "non_preferred_output", "context", "completions"}
)
"""The fields that these formats read beside the plain ones."""
