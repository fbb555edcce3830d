"""Request forms: from the JSON that a client sends to the items it wants rewards for, one function a dialect.

    vLLM       POST /classify       {"input": text | [text] | [id] | [[id]]}  or  {"messages": [...]}
               POST /pooling        the same, with `task` and `encoding_format`
    OpenAI     POST /v1/embeddings  the same as vLLM's, and what verl sends to SGLang
    SGLang     POST /classify       {"text": text | [text]}  or  {"input_ids": [id] | [[id]]}
    OpenRLHF   POST /get_reward     {"query": [text]}

Fields that a form does not know are ignored, as the servers that it imitates do; a known field with a wrong value is an
error that names it. It knows JSON; no tokenizer, model or HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from lightning_rm.counts import is_count
from lightning_rm.data.formats.media import check_marks
from lightning_rm.data.formats.template import RESERVED_ARGUMENTS
from lightning_rm.data.formats.turns import RowError, read_conversation, read_turns
from lightning_rm.data.rows import Message
from lightning_rm.serving.errors import RequestError, found

Dialect = Literal["classify", "pooling", "embeddings", "sglang", "get_reward"]
"""Whose form a request has: `classify` and `pooling` are vLLM's, `embeddings` is OpenAI's."""

Body = Mapping[str, Any]

MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class Text:
    """A conversation as the chat template writes it; its BOS may be missing."""

    origin: str
    text: str


@dataclass(frozen=True)
class Ids:
    """A conversation as token ids."""

    origin: str
    ids: Sequence[int]


@dataclass(frozen=True)
class Conversation:
    """A conversation as messages, for the chat template."""

    origin: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_prompt: bool = False
    """Whether the template opens an assistant's turn at the end."""
    continues: bool = False
    """Whether the last turn is left open."""


Item = Text | Ids | Conversation


@dataclass(frozen=True)
class Ask:
    """What a request wants.

    Args:
        dialect: whose form it has, and the answer will have.
        items: what to score, in order.
        alone: whether the one item stood outside a list.
        model: the model that is asked for by name.
        sigmoid: the probability of a preference over a reward of 0 in place of the reward.
        special_tokens: whether a text gets the BOS that it lacks; None for the form's default.
        last_tokens: keep this many tokens of a longer item, its last ones; -1 for as many as the model reads.
        base64: float32 numbers as base64 in place of JSON numbers.
        request_id: names the request in its answer.
    """

    dialect: Dialect
    items: Sequence[Item]
    alone: bool = False
    model: str | None = None
    sigmoid: bool = False
    special_tokens: bool | None = None
    last_tokens: int | None = None
    base64: bool = False
    request_id: str | None = None


def read_classify(body: Body) -> Ask:
    """Read `POST /classify`: vLLM's form, or SGLang's where the body holds `text` or `input_ids`."""
    named = [name for name in ("text", "input_ids", "input", "messages") if body.get(name) is not None]
    if not named:
        raise RequestError("input cannot be empty: give input, messages, text or input_ids", "input")
    if len(named) > 1:
        raise RequestError(f"given beside {named[1]}; give one of them", named[0])
    if named[0] in ("text", "input_ids"):
        items, alone = _items(body[named[0]], named[0], texts=named[0] == "text", ids=named[0] == "input_ids")
        return Ask("sglang", items, alone, _text(body, "model"), request_id=_request_id(body))
    return _vllm(body, "classify")


def read_pooling(body: Body) -> Ask:
    """Read `POST /pooling`: vLLM's form; a reward model has the task `classify`."""
    task = _text(body, "task")
    if task not in (None, "classify"):
        raise RequestError(f"{found(task)}: a reward model has the task 'classify' alone", "task")
    return _vllm(body, "pooling")


def read_embeddings(body: Body) -> Ask:
    """Read `POST /v1/embeddings`: OpenAI's form; the embedding is the reward, a list of one number."""
    return _vllm(body, "embeddings")


def read_get_reward(body: Body) -> Ask:
    """Read `POST /get_reward`: OpenRLHF's form. An empty list is answered with empty lists: its client sends those."""
    query = body.get("query")
    if isinstance(query, str):
        query = [query]
    if query is None or not isinstance(query, list):
        raise RequestError(f"a list of texts is wanted, found {found(query)}", "query")
    items, _ = _items(query, "query", ids=False) if query else ((), False)
    return Ask("get_reward", items, request_id=_request_id(body))


def _vllm(body: Body, dialect: Dialect) -> Ask:
    """Read what the forms of vLLM and OpenAI have in common."""
    if body.get("input") is not None and body.get("messages") is not None:
        raise RequestError("given beside messages; give one of them", "input")
    items, alone = ((_conversation(body),), True) if body.get("messages") is not None else _items(body.get("input"))
    wanted = {name: _flag(body, name) for name in ("use_activation", "activation")}
    if None not in wanted.values() and len(set(wanted.values())) > 1:
        raise RequestError("says the opposite of use_activation, its newer name; give one of them", "activation")
    if _flag(body, "normalize"):
        raise RequestError("a normalised reward would be 1 or -1 always; leave it out", "normalize")
    if (dimensions := _number(body, "dimensions", lowest=1)) not in (None, 1):
        raise RequestError(f"found {dimensions}, and a reward has one; leave it out", "dimensions")
    encoding = _text(body, "encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise RequestError(f"found {found(encoding)}; there are 'float' and 'base64'", "encoding_format")
    return Ask(
        dialect,
        items,
        alone,
        _text(body, "model"),
        sigmoid=any(wanted.values()),
        special_tokens=_flag(body, "add_special_tokens"),
        last_tokens=_number(body, "truncate_prompt_tokens", lowest=-1),
        base64=encoding == "base64",
        request_id=_request_id(body),
    )


def _items(value: object, name: str = "input", texts: bool = True, ids: bool = True) -> tuple[Sequence[Item], bool]:
    """Return the texts or token ids of a field, and whether it was one item outside a list."""
    kinds = " or ".join(kind for kind, wanted in (("texts", texts), ("token ids", ids)) if wanted)
    if texts and isinstance(value, str):
        return (Text(name, _said(value, name)),), True
    if not isinstance(value, list):
        raise RequestError(f"{kinds} are wanted, found {found(value)}", name)
    values = cast("list[object]", value)
    if not values:
        raise RequestError("input cannot be empty: the list has no item", name)
    if ids and is_count(values[0]):
        return (Ids(name, _ids(values, name)),), True
    items: list[Item] = []
    for place, item in enumerate(values):
        if texts and isinstance(item, str) and not isinstance(values[0], list):
            items.append(Text(f"{name}[{place}]", _said(item, f"{name}[{place}]")))
        elif ids and isinstance(item, list) and isinstance(values[0], list):
            items.append(Ids(f"{name}[{place}]", _ids(cast("list[object]", item), f"{name}[{place}]")))
        else:
            raise RequestError(f"found {found(item)}; all items of a list are {kinds}, of one kind", f"{name}[{place}]")
    return items, False


def _said(text: str, name: str) -> str:
    if not text.strip():
        raise RequestError("input cannot be empty or blank", name)
    return text


def _ids(values: list[object], name: str) -> list[int]:
    for place, value in enumerate(values):
        if not is_count(value) or not 0 <= value <= MAX_ID:
            raise RequestError(f"found {found(value)}; a token id is a whole number from 0", f"{name}[{place}]")
    if not values:
        raise RequestError("input cannot be empty: there are no token ids", name)
    return cast("list[int]", values)


def _conversation(body: Body) -> Conversation:
    """Return the chat form: one conversation a request."""
    if body.get("chat_template") is not None:
        raise RequestError("the reward is trained with the model's own template; leave it out", "chat_template")
    is_prompt, continues = _flag(body, "add_generation_prompt"), _flag(body, "continue_final_message")
    if is_prompt and continues:
        raise RequestError("cannot be true beside continue_final_message", "add_generation_prompt")
    try:
        # Training reads rows so too: the response is last. A prompt alone is scored if its opened turn is asked for.
        messages = body["messages"]
        turns = read_turns(messages, "messages", "user") if is_prompt else read_conversation(messages, "messages")
        if is_prompt:
            check_marks(turns)
    except (RowError, ValueError) as error:
        raise RequestError(str(error), "messages") from error
    if not turns:
        raise RequestError("input cannot be empty: there is no message", "messages")
    arguments = body.get("chat_template_kwargs")
    if arguments is not None and not isinstance(arguments, dict):
        raise RequestError(f"an object is wanted, found {found(arguments)}", "chat_template_kwargs")
    given = cast("dict[str, Any]", arguments or {})
    if taken := [name for name in given if name in RESERVED_ARGUMENTS]:
        raise RequestError(f"{found(taken[0])} is not an argument for the template", "chat_template_kwargs")
    return Conversation("messages", turns, _tools(body), given, bool(is_prompt), bool(continues))


def _tools(body: Body) -> Sequence[Mapping[str, Any]]:
    tools = body.get("tools")
    if tools is None:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in cast("list[object]", tools)):
        raise RequestError(f"a list of tool definitions is wanted, found {found(tools)}", "tools")
    return cast("list[dict[str, Any]]", tools)


def _flag(body: Body, name: str) -> bool | None:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"true or false is wanted, found {found(value)}", name)
    return value


def _number(body: Body, name: str, lowest: int) -> int | None:
    value = body.get(name)
    if value is not None and (not is_count(value) or value < lowest):
        raise RequestError(f"a whole number from {lowest} is wanted, found {found(value)}", name)
    return value


def _text(body: Body, name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise RequestError(f"a text is wanted, found {found(value)}", name)
    return value


def _request_id(body: Body) -> str | None:
    value = body.get("request_id")
    return value[:128] if isinstance(value, str) else None
