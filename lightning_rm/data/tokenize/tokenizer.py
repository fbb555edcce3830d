"""Loading a tokenizer that a reward model can be trained, exported and served with: its template and its pad token.

It knows no data. Nothing is ever added to a vocabulary here: a token beyond the backbone's embedding would break it.
"""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_rm.checksums import check_texts
from lightning_rm.data.tokenize.hostile import check_files, check_growth, check_template
from lightning_rm.data.tokenize.templates import (
    ENCODER_TEMPLATE,
    default_template,
    read_template,
    start_token,
    with_fixed_date,
    with_start,
    writes_start,
)
from lightning_rm.model_paths import check_model_path

log = logging.getLogger(__name__)

SPARE_TOKENS = (
    "<|finetune_right_pad_id|>",
    "<|pad|>",
    "<pad>",
    "[PAD]",
    "<|padding|>",
    "<|reserved_special_token_0|>",
    "<|endoftext|>",
)
"""Tokens that families of models keep for padding or for nothing, in the order they are tried."""


NONE_THERE = "Couldn't instantiate the backend tokenizer"
"""How transformers begins to say that a folder has no file of a tokenizer."""


def check_tokenizer(tokenizer: object) -> None:
    """Check that what is given for a tokenizer is one, and not the name of one.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        given = repr(tokenizer) if isinstance(tokenizer, str) else "PATH"
        raise ValueError(f"tokenizer is of the type {type(tokenizer).__name__}; give load_tokenizer({given})")


def load_tokenizer(
    path: str | Path,
    *,
    chat_template: str | None = None,
    pad_token: str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedTokenizerBase:
    """Return a tokenizer that a reward model can be trained and exported with.

    It pads on the right, with a token that is not EOS: where pad equals eos, Hugging Face reads the reward at another
    token than vLLM and SGLang. A tokenizer that ships so gets the first token of its own vocabulary that has no
    other role and does not stand in the chat template (none is added): one of `SPARE_TOKENS`, else its last special
    token, else the unknown token.

    Args:
        path: a hub name, a folder, or a `.gguf` file.
        chat_template: jinja text or a file with it, instead of the tokenizer's own. A tokenizer without one gets
            `templates.default_template`. Calls of the clock in it are replaced by a fixed date, and a template
            that leaves out the BOS which the tokenizer starts its texts with gets it.
        pad_token: a token of the vocabulary to pad with, instead of the rule above.
        trust_remote_code: run code that comes with the tokenizer.

    Raises:
        ValueError: if nothing is there or it cannot be read, there is no token to pad with, the tokenizer is not a fast
            one, or it is made to cost without end (`hostile`).
    """
    check_model_path(path)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if str(path).endswith(".gguf"):
        path, options["gguf_file"] = Path(path).parent, Path(path).name
    check_files(str(path))
    check_texts(Path(path))
    tokenizer = fast(_from_pretrained(str(path), options))
    check_growth(str(path), definition(tokenizer))
    tokenizer.padding_side = "right"
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = default_template(tokenizer)
        log.info("%s brings no chat template; it gets this default: %s", path, tokenizer.chat_template)
    templates: Any = tokenizer.chat_template  # one, or a mapping of named ones
    for template in [templates] if isinstance(templates, str) else templates.values():
        check_template(str(path), template)
    if isinstance(templates, str):
        tokenizer.chat_template = _settled(tokenizer, templates)
    else:
        tokenizer.chat_template = {name: _settled(tokenizer, text) for name, text in templates.items()}
    spare = _pad_token(tokenizer, pad_token)
    if spare != tokenizer.pad_token:
        log.info("%s: pad_token is %s, not %s", path, spare, tokenizer.pad_token)
        tokenizer.pad_token = spare
    return _adding_nothing(tokenizer)


def _adding_nothing(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return the same tokenizer without special tokens of its own, where its template writes them.

    Whoever tokenises what the template wrote, with `add_special_tokens` or without (`tokenizer(text)` and pipelines
    add), gets the ids of training, and not a second BOS, CLS or SEP. With an encoder's default template, a pair of
    texts is a user's turn and its answer: `tokenizer(prompt, response)` gives what the template gives.
    """
    templates: Any = tokenizer.chat_template
    named: list[str] = [templates] if isinstance(templates, str) else list(templates.values())
    if not tokenizer("")["input_ids"] or not all(writes_start(tokenizer, template) for template in named):
        return tokenizer
    if templates != ENCODER_TEMPLATE:
        return _with_processor(tokenizer, TemplateProcessing(single="$A:0", pair="$A:0 $B:0"))
    start, end = str(tokenizer.cls_token), str(tokenizer.sep_token)
    ids: Any = tokenizer.convert_tokens_to_ids([start, end])
    pair = f"{start}:0 $A:0 {end}:0 $B:0 {end}:0"
    added = list(zip((start, end), ids, strict=True))
    return _with_processor(tokenizer, TemplateProcessing(single="$A:0", pair=pair, special_tokens=added))


def starting_texts(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a policy's tokenizer: the same, but it also puts its template's BOS before every other text.

    A policy is also asked with text that no template wrote, by tools that leave the BOS to the tokenizer.
    """
    start = start_token(tokenizer)
    if start is None or tokenizer("")["input_ids"]:
        return tokenizer
    token: Any = tokenizer.convert_ids_to_tokens(start)
    single = f"{token}:0 $A:0"
    processor = TemplateProcessing(single=single, pair=f"{single} $B:0", special_tokens=[(token, start)])
    return _with_processor(fast(tokenizer), processor)


def _with_processor(tokenizer: PreTrainedTokenizerFast, processor: TemplateProcessing) -> PreTrainedTokenizerFast:
    """Return a copy that adds another processor's special tokens, of a class that does not put back its own."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processor
    copy = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=tokenizer.model_input_names,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        extra_special_tokens=tokenizer.extra_special_tokens,
        name_or_path=tokenizer.name_or_path,
        **tokenizer.special_tokens_map,
    )
    copy.chat_template = tokenizer.chat_template
    return copy


def _settled(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """Return a template that gives the same ids on any day and from whoever serves it."""
    return with_start(tokenizer, with_fixed_date(template))


def fast(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """Return the same tokenizer, known to be a fast one.

    Raises:
        ValueError: if it runs in Python: too slow for preference data, and without character offsets.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"{type(tokenizer).__name__} is not a fast tokenizer; save one with a tokenizer.json beside the model"
        )
    return tokenizer


def definition(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return all that a fast tokenizer does to a text, as plain values.

    How it was last made to pad or cut is left out. Whether it takes special tokens in a text for letters is a setting
    beside the file.
    """
    written = json.loads(fast(tokenizer).backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    return written | ({"split_special_tokens": True} if tokenizer.split_special_tokens else {})


def _from_pretrained(path: str, options: dict[str, Any]) -> Any:
    """Return what transformers finds at a path; its errors come as ValueErrors in a user's words."""
    if "gguf_file" in options and find_spec("gguf") is None:
        raise ValueError("a GGUF file needs the package gguf, which is not installed; pip install 'lightning-rm[gguf]'")
    try:
        return AutoTokenizer.from_pretrained(path, **options)
    except Exception as error:  # what a damaged file makes transformers and its parsers raise is of a dozen kinds
        said = (str(error).splitlines() or [""])[0]
        if isinstance(error, OSError) or said.startswith(NONE_THERE):
            said = said if isinstance(error, OSError) else "there is no tokenizer.json"
            found = "holds no tokenizer" if Path(path).is_dir() else "is not a folder here, and the hub gave none"
            raise ValueError(
                f"path={path!r} {found} ({said}). Give a folder, or a name that the Hugging Face hub or its cache on "
                "this machine knows."
            ) from error
        of_bytes = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        if isinstance(error, ValueError | ImportError) and not of_bytes:
            raise
        raise ValueError(f"path={path!r}: its tokenizer cannot be read ({type(error).__name__}: {said})") from error


def _pad_token(tokenizer: PreTrainedTokenizerFast, wanted: str | None) -> str:
    """Return the token to pad with: the one asked for, the tokenizer's own, or a spare one of its vocabulary."""
    vocabulary = tokenizer.get_vocab()
    eos = tokenizer.eos_token
    if wanted is not None:
        if wanted not in vocabulary or wanted == eos:
            found = "is the end-of-sequence token" if wanted == eos else "is not in the vocabulary"
            raise ValueError(f"pad_token={wanted!r} {found}; name a token of the vocabulary that no text uses")
        return wanted
    if tokenizer.pad_token is not None and tokenizer.pad_token != eos:
        return str(tokenizer.pad_token)
    special = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    taken = [eos, tokenizer.bos_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token]
    unknown = tokenizer.unk_token
    template = str(tokenizer.chat_template)
    unused = [token for token in (*SPARE_TOKENS, *reversed(special)) if token not in [*taken, unknown]]
    for token in (*unused, unknown):
        if token in vocabulary and token not in taken and str(token) not in template:
            return str(token)
    raise ValueError(
        f"pad_token is {tokenizer.pad_token!r}, which is the same token as eos, and the vocabulary has no spare one; "
        "name one that no text uses with pad_token=..."
    )
