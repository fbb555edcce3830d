from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.synthetic.words import VOCABULARY
from lightning_rm.data.tokenize.encoding import encode_conversation
from lightning_rm.data.tokenize.pairs import load_tokenizer

TOKENIZER = world_tokenizer()


def test_every_word_of_the_world_is_one_token() -> None:
    assert all(len(TOKENIZER(word)["input_ids"]) == 1 for word in VOCABULARY)
    assert len(TOKENIZER) < 1000


@given(st.text(alphabet=[chr(code) for code in range(33, 127) if chr(code) not in "<|>"], min_size=1, max_size=30))
def test_any_ascii_text_encodes(text: str) -> None:
    assert TOKENIZER.unk_token_id not in TOKENIZER(text)["input_ids"]


def test_one_bos_an_eos_at_the_end_and_a_pad_of_its_own() -> None:
    for row in SyntheticSource(20, split="ood"):
        ids = encode_conversation(TOKENIZER, [*row.prompt, *row.chosen])
        assert (ids[0], ids[-1]) == (TOKENIZER.bos_token_id, TOKENIZER.eos_token_id)
        assert ids.count(TOKENIZER.bos_token_id) == 1
        assert TOKENIZER.pad_token_id not in ids
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id


def test_the_prompt_is_a_prefix_and_every_assistant_turn_ends_with_eos() -> None:
    for row in SyntheticSource(20):
        prompt = TOKENIZER.apply_chat_template(list(row.prompt), add_generation_prompt=True, return_dict=False)
        whole = encode_conversation(TOKENIZER, [*row.prompt, *row.chosen])
        assert whole[: len(prompt)] == prompt
        assert whole.count(TOKENIZER.eos_token_id) == sum(turn["role"] == "assistant" for turn in row.prompt) + 1


def test_made_text_comes_back_from_its_tokens_up_to_blanks_before_punctuation() -> None:
    for row in SyntheticSource(50):
        text = row.chosen[0]["content"]
        again = TOKENIZER.decode(TOKENIZER(text)["input_ids"])
        assert re.findall(r"\w+|[^\w\s]", again) == re.findall(r"\w+|[^\w\s]", text)


def test_it_survives_a_folder(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert plain.get_vocab() == TOKENIZER.get_vocab()
    assert plain.chat_template == TOKENIZER.chat_template
    again = load_tokenizer(tmp_path)
    [row] = SyntheticSource(1)
    conversation = [*row.prompt, *row.chosen]
    assert encode_conversation(again, conversation) == encode_conversation(TOKENIZER, conversation)
    assert again.pad_token_id == TOKENIZER.pad_token_id


def test_an_unknown_role_is_named() -> None:
    with pytest.raises(Exception, match="unknown role critic"):
        encode_conversation(TOKENIZER, [{"role": "critic", "content": "no"}])
