"""Read what a row gives the chat template besides its messages: tools, and further arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from lightning_rm.data.formats.fields import BAD_VALUE, WRONG_TYPE, Raw, RowError, shown
from lightning_rm.data.formats.nested import json_field

RESERVED_ARGUMENTS = frozenset(
    {"self", "conversation", "conversations", "messages", "tools", "chat_template", "add_generation_prompt"}
    | {"continue_final_message", "tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length"}
    | {"return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"}
)
"""Arguments of `apply_chat_template` that control the call and are not read by a template: no row may set them."""


def read_tools(row: Raw) -> tuple[Mapping[str, Any], ...]:
    """Return the row's tool definitions for the chat template; none where it has no such field.

    OpenAI once had a field of `functions`, which are what its tools have under `function` now.
    """
    name = "functions" if row.get("tools") is None else "tools"
    tools = json_field(row, name)
    if tools is None:
        return ()
    items = cast(Sequence[object], tools)
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in items):
        raise RowError(WRONG_TYPE, f"field {name!r} must be a list of tool definitions, found {shown(tools)}")
    found = cast(Sequence[Mapping[str, Any]], tools)
    return tuple(found if name == "tools" else [{"type": "function", "function": function} for function in found])


def read_chat_template_kwargs(row: Raw) -> Mapping[str, Any]:
    """Return the row's own arguments for the chat template, without the nulls that Parquet writes for missing keys."""
    kwargs = json_field(row, "chat_template_kwargs")
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping):
        raise RowError(WRONG_TYPE, f"field 'chat_template_kwargs' must be a mapping, found {shown(kwargs)}")
    given = {str(name): value for name, value in cast(Raw, kwargs).items() if value is not None}
    try:
        check_arguments(given)
    except ValueError as error:
        raise RowError(BAD_VALUE, f"field {error}") from None
    return given


def check_arguments(given: Mapping[str, Any]) -> None:
    """Check the further arguments of a chat template.

    Raises:
        ValueError: for one that controls how the template is called, or which one is.
    """
    if reserved := sorted(RESERVED_ARGUMENTS & given.keys()):
        raise ValueError(
            f"'chat_template_kwargs' sets {reserved[0]!r}, which may not be set there; the template is the "
            "tokenizer's, or that of backbone.chat_template"
        )
