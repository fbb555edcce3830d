"""Drafts: a prompt and its responses while they become token ids, rendered and encoded many at a time.

This file knows pairs, groups of responses, templates and tokenizers; `cutting` makes a draft fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.beginnings import num_shared
from lightning_rm.data.rows import GroupRow, Message, PairRow
from lightning_rm.data.tokenize.encoding import encode_distinct
from lightning_rm.data.tokenize.templates import TEMPLATE_ERRORS, render

AnyRow = TypeVar("AnyRow", PairRow, GroupRow)


@dataclass
class Draft(Generic[AnyRow]):
    """A prompt and its responses while they become token ids; their conversations may be cut until they fit.

    Args:
        row: the pair or the group as it was read.
        place: its place among all rows of its source.
        prompt: what is left of the prompt.
        responses: what is left of each response's turns, chosen before rejected.
        texts: the conversations as the chat template writes them.
        ids: their token ids.
        prompt_length: how many tokens of each are the prompt's.
        changes: what was cut or is missing, and where.
        failure: the chat template's error; empty if there is none.
    """

    row: AnyRow
    place: int
    prompt: tuple[Message, ...]
    responses: list[tuple[Message, ...]]
    texts: list[str] = field(default_factory=list[str])
    ids: list[list[int]] = field(default_factory=list[list[int]])
    prompt_length: int = 0
    changes: dict[str, str] = field(default_factory=dict[str, str])
    failure: str = ""

    @property
    def num_tokens(self) -> int:
        """Tokens of the longest conversation."""
        return max(map(len, self.ids))


def encode(drafts: Sequence[Draft[AnyRow]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Set texts and ids of every draft: rendered one by one, the distinct texts tokenised together."""
    for draft in drafts:
        draft.texts = _rendered(draft, [(*draft.prompt, *response) for response in draft.responses], tokenizer)
    ids = encode_distinct(tokenizer, (text for draft in drafts for text in draft.texts))
    for draft in drafts:
        draft.ids = [ids[text] for text in draft.texts]


def measure_prompts(drafts: Sequence[Draft[AnyRow]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the length of each prompt: the number of tokens that the rendered prompt shares with all its conversations.

    This is not what the conversations share: responses that begin alike do not lengthen their prompt. A row is
    bad if the template refuses its prompt alone, even where it takes the conversations.
    """
    texts = [_rendered(draft, [draft.prompt], tokenizer, is_prompt=True) for draft in drafts]
    prompts = encode_distinct(tokenizer, (text for prompt in texts for text in prompt))
    for draft, prompt in zip(drafts, texts, strict=True):
        for text in prompt:  # none where the template refused it, and the row has failed
            shared = (num_shared(prompts[text], ids) for ids in draft.ids)
            draft.prompt_length = min(*shared, *(len(ids) - 1 for ids in draft.ids))


def _rendered(
    draft: Draft[AnyRow],
    conversations: Sequence[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    is_prompt: bool = False,
) -> list[str]:
    """Return the conversations rendered; none, and a failure, if the template refuses this row's turns or arguments."""
    row = draft.row
    try:
        return [
            render(tokenizer, conversation, row.tools, row.chat_template_kwargs, is_prompt=is_prompt)
            for conversation in conversations
        ]
    except TEMPLATE_ERRORS as error:
        draft.failure = f"{type(error).__name__}: {error}"
        return []
