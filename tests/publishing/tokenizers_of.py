"""Small tokenizers of the kinds that put special tokens around a text by themselves, as their makers save them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertTokenizer, LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer, RobertaTokenizer

LETTERS = [chr(code) for code in range(32, 127)]
BYTES = ["Ġ" if letter == " " else letter for letter in LETTERS] + ["Ċ"]


def _ids(special: list[str], pieces: list[str]) -> dict[str, int]:
    return {piece: place for place, piece in enumerate(dict.fromkeys([*special, *pieces]))}


def bert(folder: Path) -> Path:
    """`[CLS]` and `[SEP]` around a text, no template: the package's default is taken."""
    pieces = LETTERS + [f"##{letter}" for letter in LETTERS]
    BertTokenizer(vocab=_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], pieces)).save_pretrained(folder)
    return folder


def roberta(folder: Path) -> Path:
    """`<s>` and `</s>` around a text."""
    RobertaTokenizer(vocab=_ids(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], BYTES), merges=[]).save_pretrained(folder)
    return folder


def llama(folder: Path) -> Path:
    """`<s>` before a text, and a template that writes it too, as Llama's do."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    tokenizer = LlamaTokenizer(vocab=_ids(special, ["▁", *LETTERS, "<0x0A>"]), merges=[], pad_token="<pad>")
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
        "{{ eos_token }}"
    )
    tokenizer.save_pretrained(folder)
    return folder


def llama3(folder: Path) -> Path:
    """The same where the template leaves BOS to the tokenizer, which is of no class of its own."""
    backend = Tokenizer.from_file(str(llama(folder) / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", extra_special_tokens=["<unk>"]
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{{ eos_token }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def qwen2(folder: Path) -> Path:
    """No special token around a text, and the package's default template."""
    Qwen2Tokenizer(
        vocab=_ids(["<|endoftext|>", "<|im_end|>"], BYTES), merges=[], eos_token="<|im_end|>"
    ).save_pretrained(folder)
    return folder


KINDS = {"bert": bert, "roberta": roberta, "llama": llama, "mistral": llama3, "qwen2": qwen2}
"""Model type -> its tokenizer."""
