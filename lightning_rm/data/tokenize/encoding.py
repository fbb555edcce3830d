"""From a conversation to token ids, through a chat template: one way, the same in training, evaluation and serving.

The text that `templates.render` makes of the whole conversation is tokenised without further special tokens, and the
sequence starts with one BOS where the tokenizer puts one by its own convention. The sequence ends where the template
ends: nothing is appended, so the token a decoder is read at is the template's last. This file knows texts and
tokenizers; it knows no pairs and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.formats.limits import MAX_CALL_CHARACTERS
from lightning_rm.data.rows import Message
from lightning_rm.data.tokenize.seams import cut_alike, library_of
from lightning_rm.data.tokenize.templates import render, start_token


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Return the token ids a conversation is scored by. Training, evaluation and serving all go through here.

    Args:
        tokenizer: with a chat template, as `load_tokenizer` gives it.
        messages: the conversation, prompt and response, oldest turn first.
        tools: tool definitions for the template.
        chat_template_kwargs: further arguments for the template.

    Returns:
        The ids, not truncated.
    """
    return encode_texts(tokenizer, [render(tokenizer, messages, tools, chat_template_kwargs)])[0]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return token ids of rendered texts, each with one BOS at its start if the tokenizer starts its texts with one.

    `<s>` is added to a template that leaves it out, and is not doubled where the template writes it. BOS tokens that a
    template repeats further on (Llama 2 opens every user turn with one) are the template's own and stay.
    """
    if not texts:
        return []
    encoded = [ids for call in _calls(texts) for ids in _ids(tokenizer, call)]
    start = start_token(tokenizer)
    return [ids if start is None else _started(ids, start) for ids in encoded]


def encode_distinct(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, list[int]]:
    """Return text -> its token ids, from `encode_texts`: each distinct text is tokenised once, all in one call."""
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, encode_texts(tokenizer, distinct), strict=True))


def _calls(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts of each call of the tokenizer, which needs many times the memory of a text."""
    call, num_characters = list[str](), 0
    for text in texts:
        if call and num_characters + len(text) > MAX_CALL_CHARACTERS:
            yield call
            call, num_characters = [], 0
        call.append(text)
        num_characters += len(text)
    yield call


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    cuts = cut_alike(tokenizer, texts)
    if not any(cuts):
        return _whole(tokenizer, texts)
    parts = [(text[:cut], text[cut:]) for text, cut in zip(texts, cuts, strict=True)]
    distinct = list(dict.fromkeys(part for pair in parts for part in pair if part))
    ids = {"": list[int](), **dict(zip(distinct, _whole(tokenizer, distinct), strict=True))}
    return [ids[beginning] + ids[rest] for beginning, rest in parts]


def _whole(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    library = library_of(tokenizer)
    try:
        if library is not None and library.padding is None and library.truncation is None:
            # Without the places of tokens in their texts, which nobody reads, it takes half the time.
            return [found.ids for found in library.encode_batch_fast(texts, add_special_tokens=False)]
        encoded: Any = tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what a library in Rust raises is not an Exception
            raise
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path} gives up on a text ({error}): look at the patterns of its "
            "tokenizer.json"
        ) from None
    return encoded["input_ids"]


def _started(ids: list[int], start: int) -> list[int]:
    """Return `ids` with exactly one `start` in front."""
    after = next((place for place, token in enumerate(ids) if token != start), len(ids))
    return [start, *ids[after:]]
