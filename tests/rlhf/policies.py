"""Tiny policies: causal language models with random weights over the made world's vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.data.rows import Message, PairRow
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from tests.toy import CONFIG


def tiny_policy(tokenizer: PreTrainedTokenizerBase | None = None, seed: int = 0, **changes: Any) -> PreTrainedModel:
    tokenizer = tokenizer or world_tokenizer()
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    values = {**CONFIG, "vocab_size": len(tokenizer), "initializer_range": 0.3, **special, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**values)).eval()


def save_policy(folder: Path, **changes: Any) -> Path:
    tokenizer = world_tokenizer()
    tiny_policy(tokenizer, **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def world_prompts(num: int) -> list[tuple[Message, ...]]:
    rows = [row for row in SyntheticSource(num, split="train") if isinstance(row, PairRow)]
    return [row.prompt for row in rows]
