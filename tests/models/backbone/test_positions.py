"""How long a sequence a configuration has positions for, by whatever name and wherever it says so."""

from __future__ import annotations

import pytest
from transformers import Gemma3Config, Gemma3TextConfig, GPT2Config, LlamaConfig, MptConfig, PreTrainedConfig

from lightning_rm.models.backbone.positions import longest_sequence
from lightning_rm.rlhf.sampling import room_for_prompt


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(max_position_embeddings=48),
        GPT2Config(n_positions=48),
        MptConfig(max_seq_len=48),
        Gemma3Config(text_config=Gemma3TextConfig(max_position_embeddings=48)),  # of images and texts
    ],
    ids=lambda config: str(config.model_type),
)
def test_a_policy_has_room_for_a_prompt_beside_its_response(config: PreTrainedConfig) -> None:
    assert longest_sequence(config) == 48
    assert room_for_prompt(config, 8) == 40


def test_a_configuration_may_name_no_limit() -> None:
    assert longest_sequence(PreTrainedConfig()) is None
    assert room_for_prompt(PreTrainedConfig(), 8) is None
