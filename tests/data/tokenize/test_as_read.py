"""A pair in the words of its token ids, as far as a worked example of each kind says."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.sources.groups import GroupRecords
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.strength import flip
from lightning_rm.tokens import Reading

PAIR = {"prompt": "red fruits", "chosen": "apple cherry", "rejected": "crab"}
PROMPT = "  prompt, 5 tokens:\n    <s> <|user|> red fruits <|assistant|>\n"


def data(*rows: dict[str, Any], **options: Any) -> PreferenceDataModule:
    return PreferenceDataModule(world_tokenizer(), list(rows), **options)


def test_a_pair_has_its_special_tokens_its_targets_and_where_it_is_read() -> None:
    assert data(PAIR | {"weight": 2, "label": 0.75}).as_read() == (
        f"records row 0: label 0.75, weight 2\n{PROMPT}"
        "  chosen, 3 tokens, its reward read at '</s>':\n    apple cherry </s>\n"
        "  rejected, 2 tokens, its reward read at '</s>':\n    crab </s>"
    )
    encoder = data(PAIR, reading=Reading("first")).as_read()
    assert encoder.count("its reward read at '<s>'") == 2


def test_a_treatment_shows_and_a_single_response_has_its_score() -> None:
    rows = [PAIR | {"strength_mean": strength} for strength in (1.0, -1.0)]
    flipped = data(*rows, treatments=[partial(flip, below_mean=0.0)])
    assert [flipped.as_read(row).partition("\n")[0] for row in (0, 1)] == [
        "records row 0: label 1",
        "records row 1: label 0",
    ]
    thumbs = GroupRecords([{"prompt": "red fruits", "completion": "crab", "label": True}])
    assert PreferenceDataModule(world_tokenizer(), thumbs).as_read() == (
        f"records row 0: score 1\n{PROMPT}  response, 2 tokens, its reward read at '</s>':\n    crab </s>"
    )


def test_what_is_not_there_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="row=1: there are 1 training pairs, counted from 0"):
        data(PAIR).as_read(1)
    with pytest.raises(ValueError, match="no training pairs to show: the data module has no train source"):
        PreferenceDataModule(world_tokenizer(), val=[PAIR]).as_read()
