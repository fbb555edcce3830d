"""Routers of mixtures: what is heard of them, in every layout, and what becomes of it in training."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from lightning_rm.losses.router import router_loss
from lightning_rm.models.backbone.routers import routers_of
from lightning_rm.models.backbone.routing import routing_of
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.meta import MetaRM
from lightning_rm.modules.routing import with_routing
from tests.families import family_config, older_than
from tests.float64 import assert_same
from tests.tiny import conversation, laid_out, layouts_of, tiny_model

CHANGES: dict[str, dict[str, Any]] = {
    "phimoe": {"sliding_window": None, "router_jitter_noise": 0.0},
    "gpt_oss": {"sliding_window": 64},
}
BALANCED = ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "jetmoe", "phimoe", "qwen3_next", "minimax"]


def mixture(name: str, **options: Any) -> RewardModel:
    return RewardModel.from_config(family_config(name, **CHANGES.get(name, {})), dtype="float64", **options).train()


@pytest.mark.parametrize("name", BALANCED)
def test_the_loss_is_of_all_tokens_and_no_padding(name: str) -> None:
    """Padded or packed, checkpointed or not: the same tokens, the same loss, its gradient in every router."""
    model = mixture(name, router_loss=0.01)
    assert model.last_layer == "whole"
    found: list[Tensor] = []
    for layout in layouts_of(model)[:2]:
        model.zero_grad()
        routing = model(laid_out(model, layout)).routing
        assert routing is not None
        routing.loss.backward()
        found.append(routing.loss.detach())
        assert all(
            any(value.grad is not None for value in one.parameters()) for one in routers_of(model.backbone).values()
        )
    for loss in found:
        assert_same(loss.double(), found[0].double())
    if name == "jetmoe":  # transformers cannot compute its layers twice
        return
    again = mixture(name, router_loss=0.01, gradient_checkpointing=True)
    output = again(laid_out(again))
    (output.reward.sum() + output.routing.loss).backward()
    assert_same(output.routing.loss.detach().double(), found[0].double())


def test_what_is_heard_are_scores_and_transformers_loss() -> None:
    """Of Mixtral's two layers, each by itself, on one conversation; transformers' shares are in float32."""
    model = mixture("mixtral")
    ids = torch.tensor([conversation(12)])
    logits = model.backbone.base_model(input_ids=ids, output_router_logits=True).router_logits
    heard = [router_loss(one.double(), 2) for one in logits]
    torch.testing.assert_close(heard[0], load_balancing_loss_func((logits[0],), 4, 2).double(), rtol=1e-5, atol=1e-5)
    assert len(heard) == 2


def test_it_is_added_by_its_weight_and_logged_either_way() -> None:
    losses = {"loss": torch.tensor(1.0), "ranking": torch.tensor(1.0)}
    weighed, unweighed = (mixture("mixtral", router_loss=weight) for weight in (0.5, 0.0))
    routing = weighed(laid_out(weighed)).routing
    assert routing is not None
    told = with_routing(losses, routing)
    assert_same(told["loss"].double(), (1 + 0.5 * routing.loss).double())
    assert set(told) == {"loss", "ranking", "router_loss", "dead_experts"}
    seen = unweighed(laid_out(unweighed)).routing
    assert seen is not None
    assert not seen.loss.requires_grad
    assert with_routing(losses, seen)["loss"] == 1
    assert with_routing(losses, None) == losses
    assert weighed.eval()(laid_out(weighed)).routing is None
    plain = tiny_model("llama").train()
    assert plain(laid_out(plain)).routing is None
    twin = copy.deepcopy(unweighed)
    assert twin(laid_out(twin)).routing is not None


def test_routers_that_have_not_told_how_many_they_choose_are_not_heard() -> None:
    model = mixture("mixtral")
    del model.backbone.config.num_experts_per_tok
    assert routing_of([torch.zeros(12, 4)], model.backbone.config, laid_out(model), 0.0) is None


def test_a_loss_that_a_family_has_not_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"router_loss=0.1: llama has no experts"):
        RewardModel.from_config(family_config("llama"), router_loss=0.1)
    if not older_than(5, 18):  # which do not say which modules DeepSeek's routers are
        with pytest.raises(ValueError, match="deepseek_v3 balances its experts by itself"):
            mixture("deepseek_v3", router_loss=0.1)
    with pytest.raises(ValueError, match="members of one backbone do not train its routers"):
        MemberRewardModel.of(mixture("mixtral", router_loss=0.1))
    with pytest.raises(ValueError, match="MetaRM's step has no router loss"):
        MetaRM(mixture("mixtral", router_loss=0.1), torch.optim.AdamW)
