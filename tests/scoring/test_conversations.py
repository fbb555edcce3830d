from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lightning_rm.batch import LayoutName, Sample
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.rows import PairRow
from lightning_rm.data.sources.records import RecordSource
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.pairs import TokenizePolicy, encode_conversation, prepare_pairs
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.scoring.conversations import score
from lightning_rm.scoring.load import load_model
from tests.float64 import same
from tests.toy import toy_model, toy_module

CONVERSATIONS = [
    [*row.prompt, *answer]
    for row in SyntheticSource(5, split="train")
    if isinstance(row, PairRow)
    for answer in (row.chosen, row.rejected)
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_hugging_faces_one_by_one_in_the_order_given(layout: LayoutName) -> None:
    model, tokenizer = toy_model(dtype="float64"), world_tokenizer()
    rewards = score(model, tokenizer, CONVERSATIONS, batch_size=3, layout=layout)
    model.eval()
    with torch.no_grad():
        alone = [
            model.backbone(input_ids=torch.tensor([encode_conversation(tokenizer, conversation)])).logits.item()
            for conversation in CONVERSATIONS
        ]
    assert rewards.tolist() == same(alone)


@pytest.mark.parametrize("members", [Members(num_members=3), Members(num_members=3, lora_layers=1, rank=2)])
def test_members_have_a_column_each(members: Members) -> None:
    model, tokenizer = MemberRewardModel.of(toy_model(dtype="float64"), members), world_tokenizer()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    rewards = score(model, tokenizer, CONVERSATIONS, batch_size=3)
    assert rewards.shape == (len(CONVERSATIONS), 3)
    for number in range(3):
        alone = score(model.member(number), tokenizer, CONVERSATIONS, batch_size=4)
        assert rewards[:, number].tolist() == same(alone.tolist())
    assert (rewards[:, 0] - rewards[:, 1]).abs().max() > 1e-3


def test_tools_and_template_arguments_give_the_ids_of_training(tmp_path: Path) -> None:
    """Rows that carry both, as they are trained on, and their conversations, which are told both apart."""
    model, tokenizer = toy_model(dtype="float64").eval(), world_tokenizer()
    written = (
        "{{ tools[0]['name'] if tools else 'none' }}{{ ' loud' if loud else '' }}{{ ' quiet' if quiet is defined }}\n"
    )
    tokenizer.chat_template = written + str(tokenizer.chat_template)
    tools, arguments = [{"name": "apple", "type": "function"}], {"loud": True, "quiet": None}
    rows = [row for row in SyntheticSource(5, split="train") if isinstance(row, PairRow)]
    shared = {"tools": tools, "chat_template_kwargs": arguments}
    records = [{"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected} | shared for row in rows]
    pairs = prepare_pairs(RecordSource(records), tokenizer, TokenizePolicy(), tmp_path)
    trained = [sequence for i in range(5) for sequence in pairs.sample(i).sequences]
    with torch.no_grad():
        alone = [
            model(LAYOUTS["padded"]([Sample([ids])], model.read_at, model.pad_id)).reward.item() for ids in trained
        ]
    rewards = score(model, tokenizer, CONVERSATIONS, tools=tools, chat_template_kwargs=arguments)
    assert rewards.tolist() == same(alone)
    for fewer in (
        score(model, tokenizer, CONVERSATIONS, tools=tools),
        score(model, tokenizer, CONVERSATIONS, chat_template_kwargs=arguments),
        score(model, tokenizer, CONVERSATIONS, tools=tools, chat_template_kwargs=arguments | {"quiet": True}),
    ):
        assert (fewer - rewards).abs().min() > 1e-4


def test_the_model_is_left_in_the_mode_it_was_in() -> None:
    model = toy_model()
    assert model.training
    score(model, world_tokenizer(), CONVERSATIONS[:1])
    assert model.training


def test_a_conversation_beyond_the_context_is_named_not_cut() -> None:
    model = toy_model(max_position_embeddings=8)
    with pytest.raises(ValueError, match=r"conversation 0 has \d+ tokens and the model reads 8"):
        score(model, world_tokenizer(), CONVERSATIONS)


def test_what_is_no_list_of_conversations_is_a_sentence() -> None:
    """A module, a row or a text by itself, a conversation that nobody answered: each says what to give."""
    model, tokenizer = toy_model(dtype="float64").eval(), world_tokenizer()
    said = [{"role": "user", "content": "a cat"}, {"role": "assistant", "content": "a dog"}]
    row = {"prompt": "a cat", "response": "a dog"}
    seen = {"role": "user", "content": "a cat in <image>"}
    assert score(model, tokenizer, [row]).tolist() == same(score(model, tokenizer, [said]).tolist())
    wrong: dict[str, tuple[Any, Any]] = {
        r"found the module BaselineRM; give its \.model": (toy_module(), [said]),
        r"found 'a/name'; give model and tokenizer of load_model\(PATH\)": ("a/name", [said]),
        r"found one row: score\(model, tokenizer, \[conversation\]\)": (model, row),
        r"found a DataFrame: score\(model, tokenizer, \[conversation\]\)": (model, pd.DataFrame([row])),
        r"found a generator: score": (model, (said for _ in range(2))),
        r"found a text: score\(model, tokenizer, \[conversation\]\)": (model, "a cat"),
        "conversation 1: wrong role: it must end with the assistant's turn": (model, [said, said[:1]]),
        "conversation 1: not text: prompt, turn 0 holds <image>, which stands for": (model, [said, [seen, said[1]]]),
        "conversation 0: prompt, turn 0 holds <image>, which stands for": (model, [row | {"prompt": "a <image>"}]),
    }
    with pytest.raises(ValueError, match=r"'chat_template_kwargs' sets 'chat_template', which may not"):
        score(model, tokenizer, [said], chat_template_kwargs={"chat_template": "{{ messages }}"})
    for message, (given, conversations) in wrong.items():
        with pytest.raises(ValueError, match=message):
            score(given, tokenizer, conversations)


def test_arguments_and_a_tokenizer_of_another_kind_are_a_sentence(tmp_path: Path) -> None:
    model, tokenizer = toy_model(), world_tokenizer()
    named: Any = "thinking"
    with pytest.raises(ValueError, match=r"^chat_template_kwargs='thinking'; give a mapping"):
        score(model, tokenizer, [], chat_template_kwargs=named)
    model.save_pretrained(tmp_path, tokenizer)
    with pytest.raises(ValueError, match="tokenizer is of the type str; give load_tokenizer"):
        load_model(tmp_path, tokenizer=named)


def test_what_a_template_does_not_read_and_empty_responses_are_said_and_scored() -> None:
    """A policy may say nothing, so it is scored; an argument that changes nothing is named."""
    model, tokenizer = toy_model().eval(), world_tokenizer()
    empty = [{"role": "user", "content": "a cat"}, {"role": "assistant", "content": " "}]
    told = "of 3 conversations scored: 3 with an argument that the template "
    silent = r"; 1 with an empty response, scored as it is$"
    with pytest.warns(UserWarning, match=rf"^{told}does not read \(enable_thinking\){silent}"):
        score(model, tokenizer, [*CONVERSATIONS[:2], empty], chat_template_kwargs={"enable_thinking": False})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(model, tokenizer, CONVERSATIONS[:2], chat_template_kwargs={"bos_token": "a"})  # every template reads it
