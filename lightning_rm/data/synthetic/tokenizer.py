"""A tokenizer for the made world, built from its vocabulary: one token for each word, characters for everything else.

Nothing is trained and nothing is downloaded. Text is lower-cased; any ASCII text encodes, an unknown word character by
character (`zebra` -> `z ##e ##b ##r ##a`). It knows no task, no response and no model.
"""

from __future__ import annotations

import string

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_rm.data.synthetic.words import VOCABULARY

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] not in ['system', 'user', 'assistant'] -%}
        {{- raise_exception('unknown role ' + message['role'] + '; this template knows system, user and assistant') -}}
    {%- endif -%}
    {{- '<|' + message['role'] + '|>' + message['content'] -}}
    {%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
"""One BOS, a token for each role, EOS after each assistant turn; with `add_generation_prompt` a prompt is a prefix."""


def synthetic_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer, the same on every machine: about 240 ids, pad 0, BOS 1, EOS 2, unknown 3.

    BOS comes from the chat template alone: encoding plain text adds no special tokens.
    """
    vocabulary = (PAD, BOS, EOS, UNK, *ROLES, *_pieces())
    model = models.WordPiece(
        {piece: index for index, piece in enumerate(vocabulary)}, unk_token=UNK, max_input_chars_per_word=10_000
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )


def _pieces() -> list[str]:
    """Return every word of the world once, then every printable ASCII character that is not one of them, and
    continuations.
    """
    letters = string.digits + string.ascii_lowercase
    characters = [character for character in letters + string.punctuation if character not in VOCABULARY]
    return [*VOCABULARY, *characters, *(f"##{character}" for character in letters)]


world_tokenizer = synthetic_tokenizer
"""The former name of the same function."""
