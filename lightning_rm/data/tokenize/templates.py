"""Chat templates: which one a tokenizer has, and the text that it makes of a whole conversation.

What becomes of the text is `encoding`'s. This file knows messages and tokenizers; it knows no pairs, no files of pairs
and no model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError, nodes
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import (
    _compile_jinja_template,  # pyright: ignore[reportPrivateUsage]  # held by tests/test_contracts.py
)

from lightning_rm.data.formats.template import check_arguments
from lightning_rm.data.rows import Message
from lightning_rm.data.tokenize.hostile import EndlessTemplateError, check_text, few_steps

ENCODER_TEMPLATE = "{{ cls_token }}{% for message in messages %}{{ message['content'] }}{{ sep_token }}{% endfor %}"
"""The default for encoders: `[CLS] first turn [SEP] second turn [SEP]`, plain segments as in their pretraining. Roles
are not written: turns alternate, and the last segment is the response."""

DECODER_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{{ message['role'] | title }}: {{ message['content'] }}{% endfor %}{{ eos_token }}"
)
"""The default for decoders: `User: ...`, a blank line, `Assistant: ...`, and EOS at the end, where it is read."""

TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""How a template refuses turns or arguments: templates raise what they like."""

FIXED_DATE = date(2024, 7, 26)
"""What a template that prints today's date prints instead (Llama-3.2 prints this one where it knows no clock)."""


def is_encoder(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer marks its texts as the BERT family does, with a classification and a separator token."""
    return tokenizer.cls_token is not None and tokenizer.sep_token is not None


def default_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the template of a tokenizer that brings none: `ENCODER_TEMPLATE` for the BERT family, else
    `DECODER_TEMPLATE`.
    """
    return ENCODER_TEMPLATE if is_encoder(tokenizer) else DECODER_TEMPLATE


def read_template(template: str) -> str:
    """Return a template given as jinja text, or as the path of a file that holds it.

    Raises:
        ValueError: if it is neither.
    """
    if "{" in template:
        return template
    path = Path(template)
    if not path.is_file():
        raise ValueError(f"chat_template={template!r} is neither a jinja template (it has no '{{') nor a file")
    return path.read_text(encoding="utf-8")


def with_fixed_date(template: str) -> str:
    """Return a template without a clock: `strftime_now('%d %b %Y')` becomes the text `'26 Jul 2024'`.

    A reward must not depend on the day it is asked for, and a cache not on the day it was written.
    """

    def printed(call: re.Match[str]) -> str:
        return repr(FIXED_DATE.strftime(call["format"]))

    return re.sub(r"strftime_now\(\s*(?P<quote>['\"])(?P<format>.*?)(?P=quote)\s*\)", printed, template)


def with_start(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """Return a template that writes the BOS (or CLS) which its tokenizer puts before a text by itself.

    Whoever serves a chat template adds no special tokens to what it writes (`apply_chat_template`, vLLM, TRL): a
    template without BOS would be trained with one and served without. A template that cannot be tried stays as it is.
    """
    start = start_token(tokenizer)
    if start is None:
        return template
    text = _tried(tokenizer, template)
    token: Any = tokenizer.convert_ids_to_tokens(start)
    if text is None or text.startswith(token):
        return template
    return f"{{{{ {'bos_token' if start == tokenizer.bos_token_id else 'cls_token'} }}}}{template}"


def writes_start(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Tell whether a template's texts begin as the tokenizer begins a text by itself, with BOS, CLS or nothing."""
    start = start_token(tokenizer)
    text = _tried(tokenizer, template)
    token: Any = "" if start is None else tokenizer.convert_ids_to_tokens(start)
    return text is not None and text.startswith(token)


def _tried(tokenizer: PreTrainedTokenizerBase, template: str | None) -> str | None:
    """Return a template's text of a conversation of two words; None where it refuses them.

    Raises:
        EndlessTemplateError: if it does not end.
    """
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        with few_steps():
            text: Any = tokenizer.apply_chat_template(conversation, chat_template=template, tokenize=False)
    except EndlessTemplateError:
        raise
    except TEMPLATE_ERRORS:
        return None
    check_text(text)
    return text


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
    *,
    is_prompt: bool = False,
) -> str:
    """Return the text of a whole conversation, or of a prompt up to where its response begins, as the template writes
    it.

    Raises:
        ValueError: for an argument that no template reads; a template may raise what it likes (`TEMPLATE_ERRORS`).
    """
    if messages and not tools and not chat_template_kwargs and _is_plain(tokenizer, messages):
        # What `apply_chat_template` comes to for such a conversation, without its copies, which take most of the time.
        template: Any = _compile_jinja_template(tokenizer.get_chat_template())
        given: Any = tokenizer.special_tokens_map
        return template.render(messages=messages, tools=None, documents=None, add_generation_prompt=is_prompt, **given)
    check_arguments(chat_template_kwargs or {})
    conversation: Any = [dict(message) for message in messages]  # tool calls and names too
    text: Any = tokenizer.apply_chat_template(
        conversation,
        tools=[dict(tool) for tool in tools] or None,
        tokenize=False,
        add_generation_prompt=is_prompt,
        **(chat_template_kwargs or {}),
    )
    return text


def unread_arguments(tokenizer: PreTrainedTokenizerBase, arguments: Collection[str]) -> list[str]:
    """Return those names of arguments that no chat template of a tokenizer reads: they change nothing."""
    templates: Any = tokenizer.chat_template
    if not arguments or not templates or not _applies_plainly(tokenizer):
        return []
    read = [_names_in(text) for text in ([templates] if isinstance(templates, str) else templates.values())]
    return [name for name in arguments if not any(name in names for names in read)]


@lru_cache(maxsize=16)
def _names_in(template: str) -> frozenset[str]:
    """Return the names that a template looks up."""
    environment: Any = _compile_jinja_template(template).environment
    return frozenset(node.name for node in environment.parse(template).find_all(nodes.Name) if node.ctx == "load")


def _applies_plainly(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer applies its template as all do, and reads no argument by itself."""
    return type(tokenizer).apply_chat_template is PreTrainedTokenizerBase.apply_chat_template


def _is_plain(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> bool:
    """Tell whether turns have a role and a content and nothing else, both of them texts, and the tokenizer applies its
    template as all do.
    """
    for message in messages:
        if len(message) != 2 or type(message.get("content")) is not str or type(message.get("role")) is not str:
            return False
    return _applies_plainly(tokenizer)


def start_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the BOS (or CLS) that texts start with, None where they start with none.

    It is what the tokenizer itself puts before a text or, if it puts nothing there, what its chat template writes.
    """
    own: list[int] = tokenizer("")["input_ids"]  # pyright: ignore[reportAssignmentType]  # one text gives one list
    if own:
        return own[0] if own[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id) else None
    setting = (tokenizer.chat_template, tokenizer.bos_token, tokenizer.cls_token)
    known = _WRITTEN.get(tokenizer)
    if known is None or known[0] != setting:
        known = _WRITTEN[tokenizer] = setting, _written_start(tokenizer)
    return known[1]


def _written_start(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the BOS (or CLS) that a tokenizer's chat template writes at the start of a text."""
    named = ((tokenizer.bos_token, tokenizer.bos_token_id), (tokenizer.cls_token, tokenizer.cls_token_id))
    starts: list[tuple[Any, Any]] = [(token, id) for token, id in named if token is not None]
    text = _tried(tokenizer, None) if starts and tokenizer.chat_template is not None else None
    return next((id for token, id in starts if text is not None and text.startswith(token)), None)


_WRITTEN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, int | None]] = WeakKeyDictionary()
"""What `_written_start` found of each tokenizer, and of which template: rendering costs as much as a short text."""
