"""The shapes that other toolkits take preference pairs in, rewritten to the plain field names.

Three of them differ from the plain format only in the prompt, which stands in one field or in several. A row that
holds more of a prompt than its format reads is not of that format, so that nothing is lost silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from lightning_rm.data.formats.asked import SYSTEM_FIELDS, after_system, unread_prompt, with_prompt
from lightning_rm.data.formats.fields import (
    BAD_VALUE,
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
)
from lightning_rm.data.formats.messages import ROLES
from lightning_rm.data.formats.questions import history, question
from lightning_rm.data.formats.row_format import RowFormat, ordered
from lightning_rm.data.formats.turns import WRONG_ROLE, read_turns

COMPLETIONS = ("completions.0.completion", "completions.1.completion")
RANKS = ("completions.0.rank", "completions.1.rank")


def _is_asked_by(raw: Raw, *names: str) -> bool:
    """Tell whether a row has its prompt in these fields alone, the first of which it has, and two bare responses."""
    responses = _responses(raw)
    return (
        has(raw, names[0])
        and raw.get("prompt") in (None, "", [])
        and all(_is_response(value) for value in responses)
        and not unread_prompt(raw, *names, *SYSTEM_FIELDS)
    )


def _responses(raw: Raw) -> Sequence[object]:
    """Return chosen and rejected; LLaMA-Factory once wrote them as two texts in one field, `output`."""
    output = raw.get("output")
    if has(raw, "chosen") or has(raw, "rejected") or not isinstance(output, list):
        return raw.get("chosen"), raw.get("rejected")
    return cast(Sequence[object], output)


def _is_response(value: object) -> bool:
    """Tell whether this is a text or begins with the assistant's turn; otherwise it contains its prompt."""
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, Mapping):
        return isinstance(value, str)
    turn = cast(Raw, first)
    return ROLES.get(str(turn.get("role") or turn.get("from")).lower()) == "assistant"


def _alpaca(raw: Raw) -> Raw:
    """LLaMA-Factory's alpaca format: `instruction` and `input`, joined by a line break, after `system` and `history`.

    The history is a list of `[user, assistant]` texts. In the place of `chosen` and `rejected` there may be an
    `output` of two texts, the better one first.
    """
    prompt = after_system(raw, (*history(raw), question(raw, "instruction", "input")))
    row = with_prompt(raw, prompt, "instruction", "input", "history", *SYSTEM_FIELDS)
    if has(raw, "chosen") or not has(raw, "output"):
        return row
    output = _responses(raw)
    if not isinstance(raw["output"], list) or len(output) != 2:
        raise RowError(
            BAD_VALUE,
            f"field 'output' must be a list of two responses, the better one first, found {shown(raw['output'])}",
        )
    return {**row, "chosen": output[0], "rejected": output[1]}


def _orca(raw: Raw) -> Raw:
    """Intel/orca_dpo_pairs and argilla's version of it, axolotl's `intel` and `icr`: `question` or `input`.

    It stands after `system`, which may be blank or missing.
    """
    return with_prompt(
        raw, after_system(raw, (question(raw, "question", "input"),)), "question", "input", *SYSTEM_FIELDS
    )


def _sharegpt(raw: Raw) -> Raw:
    """LLaMA-Factory's sharegpt format: the turns of `conversations`, after `system`, and two messages that answer."""
    turns = read_turns(required(raw, "conversations"), "conversations", "user")
    if not turns or turns[-1]["role"] == "assistant":
        raise RowError(
            WRONG_ROLE, f"conversations must end with the turn that the responses answer, found {shown(turns[-1:])}"
        )
    return with_prompt(raw, after_system(raw, turns), "conversations", *SYSTEM_FIELDS)


def _is_ms_swift(raw: Raw) -> bool:
    return has(raw, "messages") and (has(raw, "rejected_response") or has(raw, "rejected_messages"))


def _ms_swift(raw: Raw) -> Raw:
    """ms-swift: `messages` ends with the chosen response, which is all that follows the last user's turn.

    In its place `rejected_response` has a text or a list of messages, or `rejected_messages` the whole conversation.
    """
    turns = read_turns(required(raw, "messages"), "messages", "user")
    start = max((place + 1 for place, turn in enumerate(turns) if turn["role"] == "user"), default=0)
    if not start:
        raise RowError(WRONG_ROLE, f"messages must hold a user's turn and the chosen response, found {shown(turns)}")
    read = ("messages", "rejected_messages")
    if not has(raw, "rejected_messages"):
        rejected = required(raw, "rejected_response")
        return {**with_prompt(raw, turns[:start], *read), "chosen": turns[start:], "rejected": rejected}
    rejected = read_turns(raw["rejected_messages"], "rejected_messages", "user")
    if all(turn["role"] != "user" for turn in rejected):
        return {**with_prompt(raw, turns[:start], *read), "chosen": turns[start:], "rejected": rejected}
    # The two may part before the last user's turn: what they begin with in common is the prompt.
    return {**with_prompt(raw, None, *read), "chosen": turns, "rejected": rejected}


def _openai(raw: Raw) -> Raw:
    """OpenAI's preference fine-tuning, and Together's and Fireworks': `input` holds the messages and the tools."""
    prompt = lookup(raw, "input.messages")
    if prompt is None:
        raise RowError(MISSING_FIELD, f"field 'input.messages' is missing; {found_fields(raw)}")
    tools = raw["tools"] if has(raw, "tools") else lookup(raw, "input.tools")
    row = ordered(raw, "preferred_output", "non_preferred_output", True)
    return {**with_prompt(row, prompt, "input"), "tools": tools}


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
    ranked = {**ordered(row, *COMPLETIONS, first <= second), "tied": first == second}
    return with_prompt(ranked, required(raw, "context"), "context")


def _ranked_as_given(raw: Raw) -> Raw:
    items = raw["completions"]
    if not isinstance(items, list):
        return raw
    ranked = [{**item, "rank": rank} if isinstance(item, Mapping) else item for rank, item in enumerate(items)]
    return {**raw, "completions": ranked}


TOOLKIT_FORMATS: dict[str, RowFormat] = {
    "openai": RowFormat(lambda raw: has(raw, "preferred_output", "non_preferred_output"), _openai),
    "nemo_rl": RowFormat(lambda raw: has(raw, "context", "completions"), _nemo_rl, _ranked_as_given),
    "ms_swift": RowFormat(_is_ms_swift, _ms_swift),
    "alpaca": RowFormat(lambda raw: _is_asked_by(raw, "instruction", "input", "history"), _alpaca),
    "sharegpt": RowFormat(lambda raw: _is_asked_by(raw, "conversations"), _sharegpt),
    "orca": RowFormat(lambda raw: _is_asked_by(raw, "question") or _is_asked_by(raw, "input"), _orca),
}
"""Every toolkit's format by its name, in the order they are tried."""

TOOLKIT_FIELDS = frozenset(
    {"instruction", "input", "question", *SYSTEM_FIELDS, "history", "conversations", "messages", "rejected_response"}
    | {"output", "rejected_messages"}
    | {"preferred_output", "non_preferred_output", "context", "completions"}
)
"""The fields that these formats read in addition to the plain ones."""
