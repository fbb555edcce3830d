"""A word-level tokenizer and sources of given rows: ids that a reader can write down by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lightning_rm.data.rows import BadRow, GroupRow, Message, PairRow

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>")
UNK, BOS, EOS, PAD, USER, ASSISTANT, SYSTEM = range(7)
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"
)
"""`<|user|>w1 w2<|assistant|>w3</s>` is 4 11 12 5 13 2."""


def word(number: int) -> int:
    """The id of word `w<number>`."""
    return 10 + number


def word_tokenizer(
    template: str | None = TEMPLATE, *, adds_bos: bool = False, **tokens: str
) -> PreTrainedTokenizerFast:
    """Ids 0 to 6 are `SPECIAL`, 7 to 9 are spare, `w0` is 10, `w1` is 11 and so on to 49."""
    spare = ("<spare_0>", "<spare_1>", "<spare_2>")
    vocabulary = [*SPECIAL, *spare, *(f"w{number}" for number in range(40))]
    backend = Tokenizer(models.WordLevel({text: i for i, text in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(text, special=True) for text in (*SPECIAL, *spare)])
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    named: dict[str, Any] = {
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    } | tokens
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    made.chat_template = template
    return made


def turns(*contents: str, first: str = "user") -> tuple[Message, ...]:
    """Alternating turns of user and assistant."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return tuple(Message(role=roles[i % 2], content=content) for i, content in enumerate(contents))


def pair(prompt: str | Sequence[Message], chosen: str, rejected: str, id: str = "0", **columns: Any) -> PairRow:
    """One pair; a prompt in words is one user turn, and its own prompt id."""
    return PairRow(
        prompt=turns(prompt) if isinstance(prompt, str) else tuple(prompt),
        chosen=turns(chosen, first="assistant"),
        rejected=turns(rejected, first="assistant"),
        id=id,
        **({"prompt_id": str(prompt)} | columns),
    )


def group(prompt: str | Sequence[Message], *responses: str, id: str = "0", **columns: Any) -> GroupRow:
    """A group of responses in words, one assistant turn each."""
    return GroupRow(
        prompt=turns(prompt) if isinstance(prompt, str) else tuple(prompt),
        responses=tuple(turns(response, first="assistant") for response in responses),
        id=id,
        **({"prompt_id": str(prompt)} | columns),
    )


class Rows:
    """A source of given rows that counts how often it is read."""

    def __init__(self, *rows: PairRow | GroupRow | BadRow) -> None:
        self.rows = rows
        self.num_reads = 0

    def fingerprint(self) -> str:
        return repr(self.rows)

    def __iter__(self) -> Iterator[PairRow | GroupRow | BadRow]:
        self.num_reads += 1
        yield from self.rows
