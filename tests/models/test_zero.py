"""What DeepSpeed's strategy refuses, and how it takes a step; that it trains is in `distributed/test_zero.py`."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig
from torch import nn

from lightning_rm.models import zero
from lightning_rm.models.backbone.adapters import LoraAdapter, count_parameters
from lightning_rm.models.backbone.partitions import is_partitioned, part_of, shape_of
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.models.zero import ZeroStrategy
from lightning_rm.models.zero_limits import check_parts, check_trains
from lightning_rm.models.zero_optimizer import ZeroOptimizer
from lightning_rm.modules.finite import FiniteSteps
from lightning_rm.modules.gradients import local
from lightning_rm.modules.optimizers import Muon
from lightning_rm.modules.spikes import GradientSpikes
from tests import methods
from tests.toy import toy_model, toy_module

DORA = LoraConfig(target_modules="all-linear", use_dora=True)
PLAIN = SimpleNamespace(gradient_clip_algorithm=None, precision="32-true")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"stage": 4}, "stage=4; give 1, 2 or 3"),
        ({"options": {"stage": 2}}, "that is said by stage and offload"),
        ({"stage": 2, "offload": True}, "offload=true with stage=2 has not been shown to train as it should"),
    ],
)
def test_a_stage_that_is_not_taken(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], told: str) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match=told):
        ZeroStrategy(**options)


def test_without_deepspeed_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lightning-rm\[deepspeed\]'"):
        ZeroStrategy()


def test_what_an_engine_would_do_wrongly() -> None:
    """A module whose step moves weights, clipping by value, float16, Muon's turned matrices, weights in bfloat16."""
    adamw = partial(torch.optim.AdamW, lr=1e-3)

    def refused(
        told: str, method: str = "baseline", optimizer: Any = adamw, dtype: str = "float32", **trainer: Any
    ) -> None:
        module = methods.module_of(method, dtype)
        asked = cast(Any, SimpleNamespace(**{**vars(PLAIN), **trainer}))
        groups = [{"name": "backbone", "params": list(module.parameters())}]
        with pytest.raises(ValueError, match=told):
            check_trains(module, optimizer(groups), asked)

    refused("MetaRM moves weights around each backward pass", "meta")
    refused("DeepSpeed clips by the norm alone", gradient_clip_algorithm="value")
    refused("with DeepSpeed set bf16-mixed or 32-true", precision="16-mixed")
    refused("optimizer Muon: DeepSpeed hands it parts of flattened weights", optimizer=Muon)
    refused("trained weights are in torch.bfloat16", dtype="bfloat16")
    module = toy_module()
    check_trains(module, adamw(module.parameters()), cast(Any, PLAIN))
    mark(next(module.parameters()))
    with pytest.raises(ValueError, match="stage 3 has partitioned this model in an earlier fit"):
        check_trains(module, adamw(module.parameters()), cast(Any, PLAIN))


def mark(parameter: nn.Parameter) -> None:
    """As stage 3 leaves a parameter: empty, with this rank's part beside it."""
    parameter.ds_shape, parameter.ds_tensor = parameter.shape, parameter.detach().flatten()[: parameter.numel() // 2]
    parameter.data = torch.empty(0)


def mixture() -> RewardModel:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    experts = {"num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
    return RewardModel.from_config({"model_type": "mixtral", **sizes, **experts}, vocab_size=8, pad_id=0)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: MemberRewardModel.of(toy_model(), Members(num_members=2)), "members of one backbone"),
        (lambda: methods.model_of("float32", adapter=DORA), "only LoRA adapters"),
        (mixture, "a mixture of experts has not been shown"),
    ],
)
def test_what_stage_3_does_not_keep_in_parts(model: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_parts(model())
    check_parts(methods.model_of("float32", lora=LoraAdapter(rank=2)))


def test_a_part_of_a_weight_is_told_from_a_whole_one() -> None:
    layer = nn.Linear(4, 3)
    assert not is_partitioned(layer)
    assert local(layer.weight) is layer.weight
    mark(layer.weight)
    assert is_partitioned(layer)
    assert shape_of(layer.weight) == (3, 4)
    assert shape_of(layer.bias) == (3,)
    assert count_parameters(layer) == (15, 15)
    assert local(layer.weight) is part_of(layer.weight)
    assert part_of(layer.weight).shape == (6,)


class Engine:
    """DeepSpeed's in what a step asks of it: it takes one of a finite norm, unless it is spoilt."""

    def __init__(self, spoilt: bool = False) -> None:
        self.spoilt = spoilt
        self.norms = [1.0, float("inf"), 2.0]
        self.steps = 0

    def step(self) -> None:
        self.steps += 1

    def get_global_grad_norm(self) -> float:
        return self.norms[self.steps - 1]

    def was_step_applied(self) -> bool:
        return self.spoilt or self.norms[self.steps - 1] < float("inf")


def test_a_step_that_was_left_out_is_noted() -> None:
    """Norms 1, infinity, 2: the second step is skipped, and counted with its pairs."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = ZeroOptimizer(Engine(), torch.optim.SGD([weight], lr=1.0), [[weight]])
    finite = FiniteSteps(10, GradientSpikes(None))
    for number in range(3):
        finite.guard(torch.tensor(0.5), torch.tensor([number, -1]))
        assert optimizer.step(lambda: "a loss") == "a loss"
        finite.took_step(number, optimizer)
    skipped = finite.read()
    assert [(step.number, step.of_loss, step.rows) for step in skipped] == [(1, False, [1])]
    assert (finite.num_skipped, finite.in_a_row) == (1, 0)
    assert float(cast(torch.Tensor, finite.norm)) == 2.0


def test_an_engine_that_steps_by_a_gradient_that_is_not_finite_is_an_error() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = ZeroOptimizer(Engine(spoilt=True), torch.optim.SGD([weight], lr=1.0), [[weight]])
    optimizer.step()
    with pytest.raises(RuntimeError, match="DeepSpeed took a step whose gradient has the norm inf"):
        optimizer.step()


def test_prototypes_that_would_be_trained_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: name)
    module = methods.module_of("swav", "float32")
    module._trainer = cast(Any, SimpleNamespace(strategy=ZeroStrategy()))
    with pytest.raises(
        ValueError, match=r"contrast.frozen=1 forgets the gradient of prototypes.*: set contrast.frozen=0"
    ):
        module.on_fit_start()
