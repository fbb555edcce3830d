"""Every way that a card documents gives the trained reward, run as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from lightning_rm.data.tokenize.pairs import encode_conversation
from lightning_rm.data.tokenize.templates import ENCODER_TEMPLATE
from lightning_rm.data.tokenize.tokenizer import load_tokenizer, starting_texts
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.publishing.calls import MESSAGES, Kind, python_calls
from lightning_rm.scoring.engine import score_sequences
from tests.float64 import roughly
from tests.publishing.tokenizers_of import KINDS
from tests.tiny import CONFIGS

names: dict[str, Any] = {}
exec(MESSAGES, names)
CONVERSATION = names["messages"]
LONGER = [*CONVERSATION, {"role": "user", "content": "And 7?"}, {"role": "assistant", "content": "Yes."}]


def trained(kind: str, folder: Path, **options: Any) -> tuple[RewardModel, Any, float]:
    """A model of the kind, its tokenizer as training has it, and its reward of the conversation."""
    tokenizer = load_tokenizer(KINDS[kind](folder / "start"))
    config = {**CONFIGS[kind], "max_position_embeddings": 256, "initializer_range": 0.5}
    model = RewardModel.from_config(config, tokenizer=tokenizer, **options).eval()
    return model, tokenizer, reward_of(model, tokenizer)


def reward_of(model: RewardModel, tokenizer: Any, conversation: Any = None) -> float:
    ids = encode_conversation(tokenizer, CONVERSATION if conversation is None else conversation)
    return float(score_sequences(model, [ids])[0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_documented_call_gives_the_trained_reward(kind: str, tmp_path: Path) -> None:
    model, tokenizer, wanted = trained(kind, tmp_path)
    folder = tmp_path / "export"
    model.save_pretrained(folder, tokenizer)
    takes_pairs = tokenizer.chat_template == ENCODER_TEMPLATE
    assert takes_pairs == (kind in ("bert", "roberta"))
    calls = python_calls(Kind(str(folder), pad_id=model.pad_id, takes_pairs=takes_pairs))
    assert len(calls) == 4 + takes_pairs
    for heading, code in calls:
        ran: dict[str, Any] = {}
        exec(code, ran)
        assert ran["reward"] == roughly(wanted), heading


@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_tokenizer_adds_nothing_whoever_asks(kind: str, tmp_path: Path) -> None:
    """The ids of training, from text with special tokens asked for or not, and from messages; batches of a pipeline."""
    model, tokenizer, _ = trained(kind, tmp_path)
    model.save_pretrained(tmp_path / "export", tokenizer)
    plain = AutoTokenizer.from_pretrained(tmp_path / "export")
    for conversation in (CONVERSATION, LONGER):
        ids = encode_conversation(tokenizer, conversation)
        text = plain.apply_chat_template(conversation, tokenize=False)
        assert plain(text)["input_ids"] == plain(text, add_special_tokens=False)["input_ids"] == ids
        assert plain.apply_chat_template(conversation, return_dict=True)["input_ids"] == ids
        assert encode_conversation(load_tokenizer(tmp_path / "export"), conversation) == ids
    rate = pipeline("text-classification", model=str(tmp_path / "export"), batch_size=2)
    texts = [plain.apply_chat_template(conversation, tokenize=False) for conversation in (CONVERSATION, LONGER)]
    assert [found["score"] for found in rate(texts)] == roughly(
        [reward_of(model, tokenizer, conversation) for conversation in (CONVERSATION, LONGER)]
    )


def test_ids_are_those_of_a_tokenizer_that_adds_its_own(tmp_path: Path) -> None:
    """Taking the special tokens off the tokenizer changes no id: `[CLS] a [SEP] b [SEP]` as before."""
    raw = AutoTokenizer.from_pretrained(KINDS["bert"](tmp_path))
    ids = encode_conversation(load_tokenizer(tmp_path), CONVERSATION)
    assert ids == raw(CONVERSATION[0]["content"], CONVERSATION[1]["content"])["input_ids"]


@pytest.mark.parametrize("kind", ["llama", "bert", "roberta"])
def test_adapters_alone_give_the_trained_reward(kind: str, tmp_path: Path) -> None:
    """Put on their base again by peft; the base has another head, and weights in 16 bits, as most have."""
    base, tokenizer, _ = trained(kind, tmp_path)
    base.save_pretrained(tmp_path / "base", tokenizer, dtype=torch.bfloat16)
    model = RewardModel.from_pretrained(
        tmp_path / "base", tokenizer=tokenizer, lora=LoraAdapter(rank=4), new_head=True, head_seed=5
    ).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3, generator=draw)
    wanted = reward_of(model, tokenizer)
    assert abs(wanted - reward_of(base, tokenizer)) > 0.01
    folder = tmp_path / "adapters"
    model.save_adapters(folder, str(tmp_path / "base"), tokenizer)
    assert {path.name for path in folder.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    for heading, code in python_calls(Kind(str(folder), str(tmp_path / "base"), model.pad_id)):
        ran: dict[str, Any] = {}
        exec(code, ran)
        assert ran["reward"] == roughly(wanted), heading
    with pytest.raises(ValueError, match="no adapters to write alone"):
        base.save_adapters(folder, "base")


def test_an_export_in_16_bits_gives_one_reward_by_every_call(tmp_path: Path) -> None:
    """That of its weights computed in float32: transformers by itself computes in 16 bits, and is off by .01."""
    model, tokenizer, _ = trained("llama", tmp_path)
    model.save_pretrained(tmp_path / "export", tokenizer, dtype=torch.bfloat16)
    wanted = reward_of(RewardModel.from_pretrained(tmp_path / "export"), tokenizer)
    for heading, code in python_calls(Kind(str(tmp_path / "export"), pad_id=model.pad_id, dtype="bfloat16")):
        ran: dict[str, Any] = {}
        exec(code, ran)
        assert ran["reward"] == roughly(wanted), heading


def test_older_readers_find_their_settings(tmp_path: Path) -> None:
    """`rope_theta`, `rope_scaling` and `torch_dtype` of transformers 4 beside the new names, which read the same."""
    tokenizer = load_tokenizer(KINDS["mistral"](tmp_path / "start"))
    config = {**CONFIGS["llama"], "rope_parameters": {"rope_type": "linear", "rope_theta": 500000.0, "factor": 2.0}}
    model = RewardModel.from_config(config, tokenizer=tokenizer, dtype="bfloat16")
    model.save_pretrained(tmp_path / "export", tokenizer)
    written = json.loads((tmp_path / "export" / "config.json").read_text())
    assert written["rope_theta"] == 500000.0
    assert written["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert written["torch_dtype"] == "bfloat16"
    read = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export")
    assert read.config.rope_parameters == model.backbone.config.rope_parameters
    tokens = json.loads((tmp_path / "export" / "tokenizer_config.json").read_text())
    assert tokens["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "extra_special_tokens" not in tokens
    assert tokens["additional_special_tokens"] == ["<unk>"]
    assert AutoTokenizer.from_pretrained(tmp_path / "export").extra_special_tokens == ["<unk>"]


def test_a_policys_tokenizer_begins_any_text(tmp_path: Path) -> None:
    """Of a policy, text that no template wrote gets the BOS; as a start for a reward model it adds nothing again."""
    plain = load_tokenizer(KINDS["llama"](tmp_path / "start"))
    assert plain("a")["input_ids"] == plain("a", add_special_tokens=False)["input_ids"]
    starting_texts(plain).save_pretrained(tmp_path / "policy")
    policy = AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert policy("a")["input_ids"] == [plain.bos_token_id, *plain("a")["input_ids"]]
    again = load_tokenizer(tmp_path / "policy")
    assert again("a")["input_ids"] == plain("a")["input_ids"]
    assert encode_conversation(again, CONVERSATION) == encode_conversation(plain, CONVERSATION)
    none = load_tokenizer(KINDS["qwen2"](tmp_path / "none"))
    assert starting_texts(none) is none
