"""The probe of families that no test has seen: it finds what does not keep sequences apart, and lets the rest be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import Tensor

from lightning_rm.models import probe, reward_model
from lightning_rm.models.attention.masks import SEGMENT_ATTENTION
from lightning_rm.models.backbone import families
from lightning_rm.models.backbone.heads import DECODER, Architecture
from lightning_rm.models.reward_model import RewardModel
from tests.families import family_config, older_than
from tests.tiny import laid_out


def unseen(monkeypatch: pytest.MonkeyPatch, why: Callable[..., str | None] | None = None) -> None:
    """Have every family be one that no test has seen, and the rule be another."""
    monkeypatch.setattr(probe, "is_proven", lambda _: False)
    if why is not None:
        monkeypatch.setattr(families, "_why_rows", why)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "mistral", "mixtral", "gpt2", "deepseek_v3", "gemma3_text", "qwen3_5_text"])
def test_what_is_right_stays(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unseen(monkeypatch)
    config = family_config(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = RewardModel.from_config(config, dtype=dtype)
    assert model.architecture == families.architecture_of(config)
    assert getattr(model.backbone.config, "sliding_window", None) == getattr(
        family_config(name), "sliding_window", None
    )


@pytest.mark.parametrize("name", ["jamba", "qwen3_5_text", "qwen3_next", "minimax", "phimoe"])
def test_what_does_not_pack_gets_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the rule wrong, states that run over and a window in a mask would be found."""
    if name == "minimax" and older_than(5, 18):
        pytest.skip("in transformers 5.10 its rows break where segments attend")
    unseen(monkeypatch, lambda *_: None)
    with pytest.warns(UserWarning, match=f"{name} in transformers .*: sequences that shared a row were off by"):
        model = RewardModel.from_config(family_config(name))
    assert not model.architecture.packs
    assert model.last_layer == "whole"
    assert model.backbone.config._attn_implementation == "sdpa" != SEGMENT_ATTENTION
    assert model.fast_layouts == ("padded",)
    assert model(laid_out(model)).reward.isfinite().all()


def test_rewards_read_elsewhere_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def negative(model: RewardModel, feature: Tensor) -> Tensor:
        return -model.score(feature)

    def another_head(config: object, remote: bool = False) -> Architecture:
        return replace(DECODER, reward=negative, attention="sdpa", packs=False)

    unseen(monkeypatch)
    monkeypatch.setattr(reward_model, "architecture_of", another_head)
    with pytest.raises(ValueError, match=r"llama: rewards read at the last token are off by .* cannot be used here"):
        RewardModel.from_config(family_config("llama"))


def test_a_family_of_transformers_that_no_test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "PROVEN", families.PROVEN - {"mistral4"})
    assert not families.is_proven(family_config("mistral4", head_dim=16))
    assert RewardModel.from_config(family_config("mistral4", head_dim=16)).architecture.packs
