"""Prompts for a policy: the distinct ones of a preference data set, encoded up to where a response begins.

It knows rows and tokenizers; it knows no model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.origins import places_of
from lightning_rm.data.rows import BadRow, Message, PairRow, Source
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.encoding import encode_texts
from lightning_rm.data.tokenize.policy import ARGUMENT_UNREAD, OVERLONG, TEMPLATE, TokenizePolicy
from lightning_rm.data.tokenize.tally import Tally
from lightning_rm.data.tokenize.templates import TEMPLATE_ERRORS, render, unread_arguments
from lightning_rm.digests import fingerprint

REPEATED = "prompt of a pair before"
NO_PROMPT = "no prompt"
TOOLS = "tools"

RESPONSE = "<response>"
"""A stand-in for a response, to find where a template begins one."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt for a policy to answer.

    Args:
        messages: the conversation up to the response, oldest turn first.
        id: names the first pair that has it.
        prompt_id: names the prompt, as the data set does.
        chat_template_kwargs: further arguments that the data set hands to the chat template for this prompt.
    """

    messages: tuple[Message, ...]
    id: str
    prompt_id: str
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])


def distinct_prompts(
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_prompts: int | None = None,
    max_prompt_tokens: int | None = None,
    on_bad_row: Literal["error", "drop"] = "error",
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[list[Prompt], DataReport]:
    """Return every prompt of a preference data set once, in order of appearance.

    Args:
        source: pair rows, good and bad; their responses are not read.
        tokenizer: the policy's, with a chat template.
        num_prompts: stop after this many; None for all.
        max_prompt_tokens: longer prompts are left out; None keeps all.
        on_bad_row: what becomes of rows that cannot be read, or have no prompt that can be answered.
        chat_template_kwargs: further arguments for the chat template, of all prompts; a prompt's own go before them.

    Returns:
        The prompts, and what became of the rows that were read.

    Raises:
        ValueError: for rows that are errors, the first ten shown; when no prompt is left; and for an argument that the
            template does not read.
    """
    arguments = chat_template_kwargs or {}
    check_template_arguments(tokenizer, arguments)
    tally = Tally(TokenizePolicy(on_bad_row=on_bad_row), DataReport("prompts"), noun="prompt")
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for row in source:
        if len(prompts) == num_prompts:
            break
        if isinstance(row, BadRow):
            tally.leave_out(row.origin, row.reason, row.detail)
            continue
        origin, key = row.place, fingerprint(prompt=row.prompt, arguments=dict(row.chat_template_kwargs))
        if key in seen:
            tally.report.leave_out(REPEATED, origin)
            continue
        seen.add(key)
        if fault := _fault(row, tokenizer, arguments, max_prompt_tokens):
            tally.leave_out(origin, *fault)
        else:
            unread = unread_arguments(tokenizer, row.chat_template_kwargs)
            tally.report.keep({ARGUMENT_UNREAD: ", ".join(unread)} if unread else {}, origin)
            prompts.append(Prompt(row.prompt, row.id, row.prompt_id, row.chat_template_kwargs))
    tally.check(places_of(source))
    return prompts, tally.report


def check_template_arguments(tokenizer: PreTrainedTokenizerBase, arguments: Collection[str]) -> None:
    """Raise ValueError for the name of an argument that a policy's chat template does not read."""
    if unread := unread_arguments(tokenizer, arguments):
        raise ValueError(f"chat_template_kwargs: the policy's chat template reads no {unread[0]!r}; leave it out")


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Return the token ids after which a response to a prompt begins, those of `prompt_text`."""
    return encode_texts(tokenizer, [prompt_text(tokenizer, messages, (), chat_template_kwargs)])[0]


def prompt_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """Return the text after which a response to a prompt begins.

    A template that takes no notice of `add_generation_prompt` is asked what stands before a response. Spaces at the end
    are left off then, since most tokenizers put a space into the word that follows: `Assistant:` and ` Yes`.

    Args:
        tokenizer: with a chat template, as `load_tokenizer` gives it.
        messages: the conversation up to the response, oldest turn first.
        tools: tool definitions for the template.
        chat_template_kwargs: further arguments for the template.
    """

    def rendered(turns: Sequence[Message], is_prompt: bool = False) -> str:
        return render(tokenizer, turns, tools, chat_template_kwargs, is_prompt=is_prompt)

    text = rendered(messages, is_prompt=True)
    if text == rendered(messages):
        answered = rendered([*messages, {"role": "assistant", "content": RESPONSE}])
        text = answered.rpartition(RESPONSE)[0].rstrip(" ")
    return text


def heeding_generation_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """Return the chat template, made to heed `add_generation_prompt` as `prompt_text` does, where it does not.

    For trainers that write prompts by `apply_chat_template` alone: without this a policy would go on from the end of
    the user's turn, where it was sampled from the beginning of its own.

    Args:
        tokenizer: with a chat template.
        messages: a conversation to try it on.
    """
    template = str(tokenizer.chat_template)
    if render(tokenizer, messages, is_prompt=True) != render(tokenizer, messages):
        return template
    answered = f"messages + [{{'role': 'assistant', 'content': '{RESPONSE}'}}]"
    beginning = f"written({answered}).split('{RESPONSE}')[:-1] | join('{RESPONSE}')"
    return (
        f"{{%- macro written(messages) -%}}{template}{{%- endmacro -%}}"
        f"{{%- if add_generation_prompt -%}}{{{{ ({beginning}).rstrip(' ') }}}}"
        "{%- else -%}{{ written(messages) }}{%- endif -%}"
    )


def _fault(
    row: PairRow, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any], max_tokens: int | None
) -> tuple[str, str] | None:
    """Return why a row's prompt cannot be answered, and what was found; None if it can."""
    if not row.prompt:
        return NO_PROMPT, "there is nothing to answer"
    if row.tools:
        return TOOLS, "they are not handed to a policy"
    try:
        num_tokens = len(encode_prompt(tokenizer, row.prompt, {**arguments, **row.chat_template_kwargs}))
    except TEMPLATE_ERRORS as error:
        return TEMPLATE, f"{type(error).__name__}: {error}"
    if max_tokens is not None and num_tokens > max_tokens:
        return OVERLONG, f"{num_tokens:,} tokens, and there is room for {max_tokens:,}"
    return None
