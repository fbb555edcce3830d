from __future__ import annotations

import pytest
import torch

from lightning_rm.batch import LayoutName
from lightning_rm.data.rows import PairRow
from lightning_rm.data.synthetic import SyntheticSource
from lightning_rm.data.tokenize import encode_conversation
from lightning_rm.data.world_tokenizer import world_tokenizer
from lightning_rm.evaluation.score import score
from tests.toy import toy_model

CONVERSATIONS = [
    [*row.prompt, *answer]
    for row in SyntheticSource(5, split="train")
    if isinstance(row, PairRow)
    for answer in (row.chosen, row.rejected)
]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_scores_are_hugging_faces_one_by_one_in_the_order_given(layout: LayoutName) -> None:
    model, tokenizer = toy_model(), world_tokenizer()
    rewards = score(model, tokenizer, CONVERSATIONS, batch_size=3, layout=layout)
    model.eval()
    with torch.no_grad():
        alone = [
            model.backbone(input_ids=torch.tensor([encode_conversation(tokenizer, conversation)])).logits.item()
            for conversation in CONVERSATIONS
        ]
    assert rewards.tolist() == pytest.approx(alone, abs=1e-5)


def test_the_model_is_left_in_the_mode_it_was_in() -> None:
    model = toy_model()
    assert model.training
    score(model, world_tokenizer(), CONVERSATIONS[:1])
    assert model.training


def test_a_conversation_beyond_the_context_is_named_not_cut() -> None:
    model = toy_model(max_position_embeddings=8)
    with pytest.raises(ValueError, match=r"conversation 0 has \d+ tokens and the model reads 8"):
        score(model, world_tokenizer(), CONVERSATIONS)
