"""A pair as the model reads it: its tokens as text, special ones too, and where its rewards are read. For people."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from textwrap import indent

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.tokens import ReadAt

DEFAULTS = {"label": None, "margin": 0.0, "weight": 1.0}
"""Targets that are told of a pair, and where they need not be."""


def as_read(pairs: PairDataset, row: int, tokenizer: PreTrainedTokenizerBase, read_at: ReadAt) -> str:
    """Return pair `row` after its template, its cuts and its treatments, in a few lines::

        pairs.jsonl:1: label 1
          prompt, 11 tokens:
            <|im_start|>user
            2+2?<|im_end|>
          chosen, 4 tokens, its reward read at '<|im_end|>':
            4<|im_end|>

    Args:
        pairs: the data set.
        row: the pair's place in it.
        tokenizer: that its ids are of.
        read_at: the token that rewards are read at.
    """
    sample = pairs.sample(row)
    start = sample.prompt_length
    told = ", ".join(f"{name} {value:g}" for name, value in _targets(pairs, row).items())
    lines = [f"{pairs.place(row)}: {told}"]
    lines += _block("prompt", tokenizer, sample.sequences[0][:start]) if start else []
    names = ("response",) if pairs.single[row] else ("chosen", "rejected")
    for name, ids in zip(names, sample.sequences, strict=False):
        where = tokenizer.decode(ids[-1 if read_at == "last" else 0])
        lines += _block(name, tokenizer, ids[start:], f", its reward read at {where!r}")
    return "\n".join(lines)


def _targets(pairs: PairDataset, row: int) -> dict[str, float]:
    """Return what is trained on beside the tokens; of a single response its scores, for its label says nothing."""
    if pairs.single[row]:
        scores = zip(pairs.attributes, pairs.scores[0, row].tolist(), strict=True)
        return {name: score for name, score in scores if not isnan(score)}
    columns = pairs.columns([row])
    targets = {name: columns[name].item() for name in DEFAULTS}
    return {name: value for name, value in targets.items() if value != DEFAULTS[name]}


def _block(name: str, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], note: str = "") -> list[str]:
    """Return the heading and the text of some tokens; every line of it is indented, an empty one too."""
    text = str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return [f"  {name}, {len(ids)} tokens{note}:", indent(text, "    ", lambda line: True)]
