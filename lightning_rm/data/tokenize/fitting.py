"""Turn rows into token ids that fit: encode, cut as the policy says, measure; and say why a pair is left out.

This file knows pairs, groups of responses and token counts; it knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.rows import GroupRow, Message, PairRow
from lightning_rm.data.tokenize.cutting import cut_prompts, cut_responses
from lightning_rm.data.tokenize.draft import AnyRow, Draft, encode, measure_prompts
from lightning_rm.data.tokenize.left_out import left_out
from lightning_rm.data.tokenize.policy import (
    ARGUMENT_UNREAD,
    IDENTICAL,
    IDENTICAL_CUT,
    IDENTICAL_IDS,
    OVERLONG,
    RESPONSE_CUT,
    TEMPLATE,
    TEXT_LEFT_OUT,
    TokenizePolicy,
)
from lightning_rm.data.tokenize.templates import unread_arguments


def fit(
    rows: Sequence[tuple[int, AnyRow]], tokenizer: PreTrainedTokenizerBase, policy: TokenizePolicy
) -> list[Draft[AnyRow]]:
    """Encode pairs or groups, cutting what the policy allows until they fit or nothing is left to cut.

    Args:
        rows: the rows of a chunk and their places in their source; the tokenizer is called for the whole chunk at once.
        tokenizer: a fast tokenizer with a chat template.
        policy: `max_tokens` and `overlong` are used here.

    Returns:
        One draft a row, in order.
    """
    drafts = [Draft(row, place, row.prompt, _responses(row)) for place, row in rows]
    encode(drafts, tokenizer)
    if policy.overlong in ("truncate_prompt", "truncate_response"):
        cut_prompts(_too_long(drafts, policy), tokenizer, policy.max_tokens)
    pending = _too_long(drafts, policy) if policy.overlong == "truncate_response" else []
    while pending := [draft for draft in pending if cut_responses(draft, tokenizer, policy.max_tokens)]:
        encode(pending, tokenizer)
        pending = _too_long(pending, policy)
    measure_prompts([draft for draft in drafts if draft.prompt and not draft.failure], tokenizer)
    for draft in drafts:
        if missing := _left_out(draft):
            draft.changes[TEXT_LEFT_OUT] = missing
        if unread := unread_arguments(tokenizer, draft.row.chat_template_kwargs):
            draft.changes[ARGUMENT_UNREAD] = ", ".join(unread)
    return drafts


def left_out_for(draft: Draft[PairRow], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> tuple[str, str] | None:
    """Return the reason to leave a pair out and what was found, None for a pair that is kept."""
    if draft.row.chosen == draft.row.rejected:
        return IDENTICAL, "chosen and rejected are the same text"
    if draft.failure:
        return TEMPLATE, draft.failure
    if draft.num_tokens > max_tokens:
        return OVERLONG, f"{draft.num_tokens:,} tokens, max_tokens={max_tokens:,}"
    if draft.ids[0] == draft.ids[1]:
        reason = IDENTICAL_CUT if RESPONSE_CUT in draft.changes else IDENTICAL_IDS
        return reason, f"chosen and rejected are the same {len(draft.ids[0]):,} tokens{_why_the_same(draft, tokenizer)}"
    return None


def _why_the_same(draft: Draft[PairRow], tokenizer: PreTrainedTokenizerBase) -> str:
    """Say how two texts came to be the same tokens, where it can be told."""
    if draft.texts[0] == draft.texts[1]:
        missing = draft.changes.get(TEXT_LEFT_OUT)
        return "; the chat template writes one text for both" + (f" and leaves out {missing}" if missing else "")
    unknown: Any = tokenizer.unk_token_id  # transformers declares lists too
    num_unknown = 0 if unknown is None else draft.ids[0][draft.prompt_length :].count(unknown)
    unknown_tokens = f"; {num_unknown:,} of them are unknown tokens" if num_unknown else ""
    return f", though not the same text{unknown_tokens}"


def _left_out(draft: Draft[AnyRow]) -> str:
    """Return the first piece of a draft's conversations that the template leaves out; the prompt is checked once."""
    if not draft.texts:  # the template has refused the row
        return ""
    begins = left_out(draft.texts[0], draft.prompt, draft.row.tools)
    responses = zip(draft.texts, draft.responses, strict=True)
    return begins or next(
        (missing for text, turns in responses if (missing := left_out(text, turns, first=len(draft.prompt)))), ""
    )


def _too_long(drafts: Sequence[Draft[AnyRow]], policy: TokenizePolicy) -> list[Draft[AnyRow]]:
    return [draft for draft in drafts if not draft.failure and draft.num_tokens > policy.max_tokens]


def _responses(row: PairRow | GroupRow) -> list[tuple[Message, ...]]:
    return [row.chosen, row.rejected] if isinstance(row, PairRow) else list(row.responses)
