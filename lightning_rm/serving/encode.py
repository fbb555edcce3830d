"""Turn the items of a request into token ids as in training: one BOS, and nothing cut unless asked for.

A text rendered by a chat template comes with its BOS or without (verl removes it, OpenRLHF keeps it); one that has it
is not given a second. This file knows items and a tokenizer; no JSON and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.tokenize.encoding import encode_texts
from lightning_rm.data.tokenize.templates import TEMPLATE_ERRORS, start_token, unread_arguments
from lightning_rm.serving.errors import RequestError
from lightning_rm.serving.forms import Ask, Conversation, Ids, Item, Text


@dataclass(frozen=True)
class Limits:
    """The limits of one request.

    Args:
        items: the most items of a request.
        tokens: the most tokens of an item; None for no limit.
        vocabulary: the number of token ids that the model has embeddings for.
    """

    items: int
    tokens: int | None
    vocabulary: int


def encode(tokenizer: PreTrainedTokenizerBase, ask: Ask, limits: Limits) -> tuple[list[list[int]], int]:
    """Return the token ids of every item of a request, and how many items were cut at its request.

    Raises:
        RequestError: if there are too many items, or one cannot be tokenised, is empty, is too long, or holds an id
            that the model has no embedding for.
    """
    if len(ask.items) > limits.items:
        origin = ask.items[0].origin.partition("[")[0]
        raise RequestError(f"{len(ask.items)} items, and a request may have {limits.items}; send several", origin)
    keep = _kept(ask.last_tokens, limits.tokens)
    start = start_token(tokenizer)
    sequences: list[list[int]] = []
    num_cut = 0
    for item in ask.items:
        ids = list(_encoded(tokenizer, item, ask.special_tokens))
        if keep is not None and len(ids) > keep:
            ids = _cut(ids, keep, start)
            num_cut += 1
        _check(ids, item.origin, limits)
        sequences.append(ids)
    return sequences, num_cut


def unread(tokenizer: PreTrainedTokenizerBase, ask: Ask) -> Iterator[str]:
    """Yield the names of template arguments of a request that the chat template does not read."""
    for item in ask.items:
        if isinstance(item, Conversation):
            yield from unread_arguments(tokenizer, item.template_kwargs)


def _encoded(tokenizer: PreTrainedTokenizerBase, item: Item, special_tokens: bool | None) -> Sequence[int]:
    if isinstance(item, Ids):
        return item.ids
    text = item.text if isinstance(item, Text) else _rendered(tokenizer, item)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"half of a surrogate pair at character {error.start}", item.origin) from error
    if special_tokens is False and isinstance(item, Text):
        ids: Any = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids
    return encode_texts(tokenizer, [text])[0]


def _rendered(tokenizer: PreTrainedTokenizerBase, item: Conversation) -> str:
    messages: Any = [dict(message) for message in item.messages]
    arguments: Mapping[str, Any] = item.template_kwargs
    try:
        text: Any = tokenizer.apply_chat_template(
            messages,
            tools=[dict(tool) for tool in item.tools] or None,
            tokenize=False,
            add_generation_prompt=item.is_prompt,
            continue_final_message=item.continues,
            **arguments,
        )
    except (*TEMPLATE_ERRORS, RecursionError) as error:
        raise RequestError(f"the chat template refuses them: {error}", item.origin) from error
    return text


def _kept(last_tokens: int | None, limit: int | None) -> int | None:
    """Say how many tokens of an item are kept; None for all."""
    if last_tokens is not None and limit is not None and last_tokens > limit:
        raise RequestError(f"{last_tokens}, and the model reads {limit}", "truncate_prompt_tokens")
    return limit if last_tokens == -1 else last_tokens


def _cut(ids: list[int], keep: int, start: int | None) -> list[int]:
    """Return the BOS and the last tokens, which contain the response."""
    first = ids[:1] if keep and ids[0] == start else []
    if keep == len(first) == 1:
        raise RequestError("1 keeps the BOS alone, and its reward says nothing of the text", "truncate_prompt_tokens")
    return [*first, *ids[len(ids) - keep + len(first) :]]


def _check(ids: list[int], origin: str, limits: Limits) -> None:
    if not ids:
        raise RequestError("no token is left to read the reward at", origin)
    if limits.tokens is not None and len(ids) > limits.tokens:
        raise RequestError(
            f"{len(ids)} tokens, and the model reads {limits.tokens}; shorten the prompt, or send "
            "truncate_prompt_tokens=-1 to have its beginning cut",
            origin,
        )
    if (highest := max(ids)) >= limits.vocabulary:
        raise RequestError(f"there is no token {highest}; ids end at {limits.vocabulary - 1}", origin)
