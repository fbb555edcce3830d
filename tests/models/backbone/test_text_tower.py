"""The text tower of a model of images and text is its language model, number by number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lightning_rm.models.reward_model import RewardModel
from tests.float64 import assert_same
from tests.tiny import BOS, EOS, PAD, VOCAB, conversation, laid_out

TEXT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "bos_token_id": BOS,
}
HEADS = {**TEXT, "head_dim": 8}
SIGHT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
PATCHES = {**SIGHT, "image_size": 8, "patch_size": 4}
BLOCKS = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
MIXED = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
LINEAR = dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8)
HYBRID = {"layer_types": ["linear_attention", "full_attention"], **LINEAR}
WHOLE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "Gemma3": ({**HEADS, "sliding_window": 6}, PATCHES, "gemma3_text"),
    "Qwen3_5": ({**HEADS, **HYBRID}, BLOCKS, "qwen3_5_text"),
    "Qwen2VL": ({**TEXT, **MIXED}, {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2}, "qwen2"),
    "Qwen2_5_VL": ({**TEXT, **MIXED}, BLOCKS, "qwen2"),
    "Qwen3VL": ({**HEADS, **MIXED}, BLOCKS, "qwen3"),
    "Llava": ({**HEADS, "model_type": "llama"}, {**PATCHES, "model_type": "clip_vision_model"}, "llama"),
    "Voxtral": ({**HEADS, "model_type": "llama"}, {**SIGHT, "num_mel_bins": 8}, "llama"),
    "SmolVLM": ({**HEADS, "model_type": "llama"}, PATCHES, "llama"),
    "Mistral3": ({**HEADS, "model_type": "ministral3"}, {**PATCHES, "model_type": "pixtral"}, "ministral3"),
}
"""A family's text and sight, and the text model that is trained."""


def made(name: str) -> PreTrainedModel:
    """A whole model in float64, its weights random."""
    text, sight, _ = WHOLE[name]
    other = "audio_config" if name == "Voxtral" else "vision_config"
    config = getattr(transformers, f"{name}Config")(**{"text_config": dict(text), other: dict(sight)})
    return getattr(transformers, f"{name}ForConditionalGeneration")(config).double().eval()


@pytest.mark.parametrize("name", WHOLE)
def test_the_language_model_is_read(name: str, tmp_path: Path) -> None:
    """Hidden states and next-token logits are the whole model's on text; the export is a text model."""
    whole = made(name)
    whole.save_pretrained(tmp_path / "whole")
    model = RewardModel.from_pretrained(tmp_path / "whole", dtype="float64", keep_lm_head=True).eval()
    assert model.backbone.config.model_type == WHOLE[name][2]
    ids = torch.tensor([conversation(11)])
    with torch.no_grad():
        seen = whole(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        hidden = model.backbone.base_model(input_ids=ids).last_hidden_state
        assert_same(hidden, seen.hidden_states[-1])
        assert model.lm_head is not None
        assert_same(model.lm_head(hidden), seen.logits)
        reward = model(laid_out(model)).reward
        model.save_pretrained(tmp_path / "reward")
        exported = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", dtype=torch.float64)
        assert type(exported) is type(model.backbone)
        tokens = laid_out(model)
        last = exported(input_ids=tokens.input_ids, attention_mask=tokens.mask.long()).logits[:, 0]
    assert_same(last[tokens.reward_index // tokens.input_ids.shape[1]], reward)


def test_a_reward_model_of_images_keeps_its_head(tmp_path: Path) -> None:
    """What others trained as a whole is read with its head; its images are left."""
    text, sight, _ = WHOLE["Gemma3"]
    config = transformers.Gemma3Config(text_config=dict(text), vision_config=dict(sight), num_labels=1)
    whole = transformers.Gemma3ForSequenceClassification(config).double().eval()
    whole.save_pretrained(tmp_path)
    model = RewardModel.from_pretrained(tmp_path, dtype="float64").eval()
    ids = torch.tensor([conversation(11)])
    with torch.no_grad():
        assert_same(model.backbone(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert model.untrained_head is None


def test_a_configuration_of_images_names_its_text() -> None:
    with pytest.raises(ValueError, match="give its text tower, model_type='gemma3_text'"):
        RewardModel.from_config({"model_type": "gemma3"})


def test_a_tower_without_a_classifier_is_an_error(tmp_path: Path) -> None:
    """Experts of Qwen3-VL lie transposed in its files, so that no text model of transformers can read them."""
    transformers.Qwen3VLMoeConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'qwen3_vl_moe_text': transformers .* has no sequence classifier"):
        RewardModel.from_pretrained(tmp_path, pad_id=PAD)
