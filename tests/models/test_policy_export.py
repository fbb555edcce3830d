"""A kept LM head is exported with its backbone: Hugging Face's logits are those that the LM loss was made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lightning_rm.batch import Sample
from lightning_rm.data.batches.layouts import padded
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.reward_model import RewardModel
from tests.float64 import assert_same
from tests.tiny import CONFIGS, EOS, PAD, VOCAB, tiny_model

IDS = torch.tensor([[3, 7, 11, 5, 9, EOS]])


def logits(model: RewardModel) -> torch.Tensor:
    assert model.lm_head is not None
    with torch.no_grad():
        return model.lm_head(model.backbone.base_model(input_ids=IDS).last_hidden_state)


def with_added_tokens() -> PreTrainedTokenizerFast:
    """A tokenizer of the tests' vocabulary and three tokens more."""
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(VOCAB)}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=f"w{PAD}", eos_token=f"w{EOS}")
    tokenizer.add_tokens(["<user>", "<assistant>", "<end>"])
    return tokenizer


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gpt2", "qwen3"])
def test_a_policy_reads_back_with_the_same_logits(name: str, tmp_path: Path) -> None:
    model = tiny_model(name, keep_lm_head=True)
    model.save_policy(tmp_path)
    policy, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same(policy.eval()(input_ids=IDS).logits, logits(model))


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    config = {**CONFIGS["llama"], "vocab_size": VOCAB, "pad_token_id": PAD, "eos_token_id": EOS}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**config, tie_word_embeddings=True)).save_pretrained(
        tmp_path / "tied"
    )
    model = RewardModel.from_pretrained(tmp_path / "tied", dtype="float64", keep_lm_head=True).eval()
    model.save_policy(tmp_path / "policy")
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    assert policy.lm_head.weight is policy.model.embed_tokens.weight
    assert_same(policy(input_ids=IDS).logits, logits(model))


def test_an_lm_head_of_its_own_grows_with_the_tokenizer(tmp_path: Path) -> None:
    """A text may hold the tokens that a tokenizer added: the loss predicts them, and the policy reads back."""
    tiny_model("llama", keep_lm_head=True).save_policy(tmp_path / "start")
    tokenizer = with_added_tokens()
    model = RewardModel.from_pretrained(tmp_path / "start", tokenizer=tokenizer, dtype="float64", keep_lm_head=True)
    before = RewardModel.from_pretrained(tmp_path / "start", dtype="float64", keep_lm_head=True)
    assert_same(logits(model.eval())[..., :VOCAB], logits(before.eval()))
    tokens = padded([Sample([[4, VOCAB, 5, VOCAB + 2], [4, 5]], prompt_length=1)], "last", model.pad_id)
    model.lm_loss(model(tokens, keep_hidden=True), tokens).backward()
    assert model.lm_head is not None
    assert model.lm_head.weight.grad is not None
    assert model.lm_head.weight.grad[VOCAB:].abs().sum(1).gt(0).all()
    model.save_policy(tmp_path / "policy", tokenizer)
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    assert_same(policy(input_ids=IDS).logits, logits(model))


def test_adapters_are_merged(tmp_path: Path) -> None:
    model = tiny_model("llama", keep_lm_head=True, lora=LoraAdapter(rank=2))
    with torch.no_grad():
        for parameter in model.backbone_parameters():
            parameter.add_(0.01)
    model.save_policy(tmp_path)
    policy = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert_same(policy(input_ids=IDS).logits, logits(model))


def test_adapters_alone_bring_no_embeddings(tmp_path: Path) -> None:
    """A reader of the folder would draw rows of its own for the added tokens, and give other rewards."""
    tiny_model("llama", keep_lm_head=True).save_policy(tmp_path / "start")
    lora, tokenizer = LoraAdapter(rank=2), with_added_tokens()
    model = RewardModel.from_pretrained(tmp_path / "start", tokenizer=tokenizer, lora=lora)
    with pytest.raises(ValueError, match=r"no embeddings for \(3\).* export the model whole"):
        model.save_adapters(tmp_path / "alone", str(tmp_path / "start"), tokenizer)


def test_a_policy_starts_a_reward_model(tmp_path: Path) -> None:
    model = tiny_model("llama", keep_lm_head=True)
    model.save_policy(tmp_path)
    again = RewardModel.from_pretrained(tmp_path, dtype="float64", new_head=True)
    for name, value in model.backbone.base_model.state_dict().items():
        assert torch.equal(again.backbone.base_model.state_dict()[name], value), name


def test_a_model_without_lm_head_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_lm_head=True"):
        tiny_model("llama").save_policy(tmp_path)
