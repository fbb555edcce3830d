"""`score`: from conversations in words to rewards, in memory. Their ids are those of training: one reader and template.

Everything that scores words encodes them here. It knows conversations, tokenizers and models; no file.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.formats.messages import is_blank
from lightning_rm.data.formats.responses import Prefill, check_prefill
from lightning_rm.data.formats.scorable import parse_scorable
from lightning_rm.data.formats.turns import Turns, read_conversation
from lightning_rm.data.rows import BadRow, Message
from lightning_rm.data.sources.records import ArrowStream
from lightning_rm.data.tokenize.encoding import encode_distinct
from lightning_rm.data.tokenize.left_out import left_out
from lightning_rm.data.tokenize.policy import ARGUMENT_UNREAD, OVERLONG, TEMPLATE, TEXT_LEFT_OUT
from lightning_rm.data.tokenize.templates import TEMPLATE_ERRORS, render, unread_arguments
from lightning_rm.data.tokenize.tokenizer import check_tokenizer
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.engine import score_sequences
from lightning_rm.scoring.parts import Refusal

AnyConversation = Sequence[Message] | Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""A list of messages that ends with the response, or a row with a prompt and one response."""

EMPTY_RESPONSE = "with an empty response, scored as it is"


@dataclass(frozen=True)
class Conversation:
    """A prompt and the response to it.

    Args:
        turns: all of them, oldest first; the last is the response's.
        tools: tool definitions handed to the chat template.
        chat_template_kwargs: further arguments handed to it.
    """

    turns: Turns
    tools: Sequence[Mapping[str, Any]] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])


def score(
    model: AnyRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[AnyConversation],
    *,
    batch_size: int | None = None,
    layout: LayoutSetting = "auto",
    tools: Sequence[Mapping[str, Any]] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
    prefill: Prefill = "error",
    batch_tokens: int | None = None,
    each_member: bool = False,
) -> Tensor:
    """Return rewards of whole conversations, each ending with the response that is scored.

    Args:
        model: put into evaluation mode for the call and back.
        tokenizer: the model's own.
        conversations: N conversations: lists of messages in any form that files may have (`role`/`content`,
            `from`/`value`, content in parts), or rows such as `{"prompt": ..., "response": ...}`.
        batch_size: the most conversations of a forward; None leaves it to `batch_tokens`.
        layout: how they are laid out; the rewards are the same. `auto` takes what the model honours, for decoders
            `shared_prefix`: conversations that begin alike are scored together, the prompt of sixteen responses once.
        tools: tool definitions handed to the chat template for every conversation, as a row's `tools` are.
        chat_template_kwargs: further arguments handed to the chat template, as a row's are: one that is None is left
            out.
        prefill: what to do with a row's prompt that ends with the assistant's turn: `error`, or `continue` it by the
            response.
        batch_tokens: the most grid tokens of a forward; a longer conversation goes alone. None for what suits the
            device.
        each_member: an ensemble gives the rewards of each of its members in place of their aggregate.

    Returns:
        (N,) float32 rewards on the CPU, in the order given; (N, M) of M members, or with `each_member`. Nothing is
            truncated.

    An empty response is scored as it is, since a policy may give one; training leaves such rows out. How many there
    are, and what the template leaves out of conversations or their arguments, is said in a warning.

    Raises:
        ValueError: if what is given is not a list of conversations, or one cannot be read or is longer than the
            model's context; its place is named.
    """
    _check(model, tokenizer, conversations, chat_template_kwargs)
    check_prefill(prefill)
    arguments = {name: value for name, value in (chat_template_kwargs or {}).items() if value is not None}
    read = [
        Conversation(conversation.turns, conversation.tools or tools, arguments | {**conversation.chat_template_kwargs})
        for conversation in (_read(place, one, prefill) for place, one in enumerate(conversations))
    ]
    sequences: list[list[int]] = []
    for place, ids in enumerate(encode(tokenizer, read)):
        if isinstance(ids, Refusal):
            raise ValueError(f"conversation {place}: {ids.reason}: {ids.detail}")
        sequences.append(ids)
    if counts := Counter(remark for conversation in read for remark in remarks(tokenizer, conversation)):
        told = "; ".join(f"{count:,} {remark}" for remark, count in counts.items())
        warnings.warn(f"of {len(read):,} conversations scored: {told}", stacklevel=2)
    rewards = score_sequences(
        model,
        sequences,
        layout=layout,
        batch_tokens=batch_tokens,
        batch_size=batch_size,
        each_member=each_member,
        name="conversation {}".format,
    )
    return torch.from_numpy(rewards if each_member or rewards.shape[1] > 1 else rewards[:, 0])


def encode(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], max_tokens: int | None = None
) -> list[list[int] | Refusal]:
    """Return token ids of conversations; each distinct text is tokenised once, all in one call.

    Args:
        tokenizer: with a chat template, as `load_tokenizer` gives it.
        conversations: what to encode.
        max_tokens: the most tokens of one; None for any number.

    Returns:
        For each conversation its ids, or why there are none: the template refuses it, or it is too long.
    """
    texts: list[str | Refusal] = []
    for conversation in conversations:
        try:
            texts.append(render(tokenizer, conversation.turns, conversation.tools, conversation.chat_template_kwargs))
        except TEMPLATE_ERRORS as error:
            texts.append(Refusal(TEMPLATE, f"{type(error).__name__}: {error}"))
    ids = encode_distinct(tokenizer, (text for text in texts if isinstance(text, str)))
    return [bounded(ids[text], max_tokens) if isinstance(text, str) else text for text in texts]


def remarks(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Iterator[str]:
    """Yield what is worth saying of a conversation that is scored as it stands, in words to be counted."""
    turns, tools, arguments = conversation.turns, conversation.tools, conversation.chat_template_kwargs
    if is_blank(turns[-1]):
        yield EMPTY_RESPONSE
    for name in unread_arguments(tokenizer, arguments):
        yield f"with an {ARGUMENT_UNREAD} ({name})"
    with suppress(*TEMPLATE_ERRORS):  # which `encode` counts
        if left_out(render(tokenizer, turns, tools, arguments), turns, tools):
            yield f"with {TEXT_LEFT_OUT}"


def bounded(ids: list[int], max_tokens: int | None) -> list[int] | Refusal:
    """Return the ids, or why they are refused: there are more of them than are read."""
    if max_tokens is not None and len(ids) > max_tokens:
        return Refusal(OVERLONG, f"{len(ids):,} tokens, and {max_tokens:,} are read")
    return ids


def _read(place: int, given: AnyConversation, prefill: Prefill) -> Conversation:
    origin = f"conversation {place}"
    if not isinstance(given, Mapping) or {"role", "from"} & set(given):
        return Conversation(tuple(read_conversation(given, origin)))
    read = parse_scorable(given, origin, prefill=prefill)
    if isinstance(read, BadRow):
        raise ValueError(f"{read.origin}: {read.detail}")
    if read.kind != "one":
        raise ValueError(
            f"{origin} is a row of {len(read.responses)} responses; give each as a conversation of its own"
        )
    return Conversation(read.turns[0], read.tools, read.chat_template_kwargs)


def _check(model: object, tokenizer: object, conversations: object, arguments: object) -> None:
    """Raise ValueError, which says what was given, unless it is a model, a tokenizer, a list of conversations and a
    mapping of a template's arguments.
    """
    if isinstance(model, L.LightningModule):
        raise ValueError(f"score takes a reward model, found the module {type(model).__name__}; give its .model")
    if not isinstance(model, AnyRewardModel):
        raise ValueError(
            f"score takes a reward model, found {model!r:.80}; give model and tokenizer of load_model(PATH)"
        )
    check_tokenizer(tokenizer)
    if not isinstance(arguments, Mapping | None):
        raise ValueError(f"chat_template_kwargs={arguments!r}; give a mapping of arguments by name")
    found = ""
    if isinstance(conversations, str | Mapping):
        found = "a text" if isinstance(conversations, str) else "one row"
    elif isinstance(conversations, ArrowStream) or not isinstance(conversations, Sized):
        found = f"a {type(conversations).__name__}"  # a data frame goes over the names of its columns
    elif isinstance(conversations, Sequence) and conversations:
        first = cast(object, conversations[0])
        if isinstance(first, Mapping) and {"role", "from"} & set(cast("Mapping[object, object]", first)):
            found = "one conversation"
    if found:
        raise ValueError(
            f"score takes a list of conversations, found {found}: score(model, tokenizer, [conversation]), where a "
            "conversation is a list of messages with role and content"
        )
