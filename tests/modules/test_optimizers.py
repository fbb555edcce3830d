"""Muon turns matrices and is AdamW for all else; eight bits say what they need."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.optim import AdamW

from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules import optimizers
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.optimization import groups_of, parameter_groups, warmup_schedule
from lightning_rm.modules.optimizers import Muon, adamw_8bit, adamw_paged
from tests.float64 import assert_same
from tests.tiny import VOCAB, laid_out, tiny_model
from tests.toy import toy_trainer


def stepped(optimizer: Any, model: RewardModel, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        output = model(laid_out(model))
        (output.chosen - output.rejected).sum().backward()
        optimizer.step()


def test_matrices_turn_and_the_rest_is_adamw() -> None:
    """The table of embeddings, vectors and the head move as AdamW moves them in the first step; matrices do not."""
    options = {"lr": 0.01, "weight_decay": 0.1}
    muon, adamw, before = (tiny_model("llama", changes={"intermediate_size": 24}) for _ in range(3))
    stepped(Muon(groups_of(muon, muon, 0.02), **options), muon, steps=1)
    stepped(AdamW(groups_of(adamw, adamw, 0.02), **options), adamw, steps=1)
    start = dict(before.named_parameters())
    for (name, one), other in zip(muon.named_parameters(), adamw.parameters(), strict=True):
        assert not torch.equal(one, start[name]), name
        if one.ndim == 2 and "embed" not in name and "score" not in name:
            assert not torch.allclose(one, other), name
            # What is left beside the decay: singular values near one, times 0.2 sqrt(longer side).
            turned = (one - start[name] * (1 - 0.01 * 0.1)) / (0.01 * 0.2 * max(one.shape) ** 0.5)
            values = torch.linalg.svdvals(turned.detach())
            assert 0.5 < float(values.max()) < 1.3, name
        else:
            assert_same(one.detach(), other.detach())


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_tables_however_small_are_no_matrices(name: str, tmp_path: Path) -> None:
    """Of tokens, positions and kinds of token, a kept LM head too: of 40 rows, of 64 and of 2; or by their rows."""
    keeps = name == "llama"
    model = tiny_model(name, dtype="float32", keep_lm_head=keeps)
    module = BaselineRM(model, Muon, lm_loss=0.1 * keeps)
    trainer = toy_trainer(tmp_path)
    trainer.strategy.connect(module)
    module.trainer = trainer
    optimizer = cast(Muon, module.configure_optimizers())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    turned = {names[id(one)] for group in optimizer.param_groups if "ns_steps" in group for one in group["params"]}
    assert turned
    assert not [name for name in turned if re.search("embed|wte|wpe|lm_head", name)]
    rows = parameter_groups(model.backbone_parameters(), model.head_parameters())
    by_rows = Muon(list(rows), vocabulary=VOCAB - 1)
    assert VOCAB not in {len(one) for group in by_rows.param_groups if "ns_steps" in group for one in group["params"]}


def test_schedules_and_checkpoints_see_one_optimizer() -> None:
    """Two steps, a checkpoint, two more are four steps; the rates are those of the schedule."""
    whole, half, rest = (tiny_model("llama", changes={"intermediate_size": 24}) for _ in range(3))
    make = partial(Muon, lr=0.01)
    with pytest.raises(ValueError, match="momentum=1; give a share"):
        make(groups_of(whole, whole, 0.02), momentum=1)
    optimizer = make(groups_of(whole, whole, 0.02))
    assert [group["name"] for group in optimizer.param_groups] == [
        "backbone",
        "backbone_adamw",
        "backbone_no_decay",
        "head",
    ]
    stepped(optimizer, whole, steps=4)
    first = make(groups_of(half, half, 0.02))
    stepped(first, half)
    rest.load_state_dict(half.state_dict())
    second = make(groups_of(rest, rest, 0.02))
    second.load_state_dict(first.state_dict())
    stepped(second, rest)
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert_same(one.detach(), other.detach())
    schedule = warmup_schedule(second, 10, "constant_with_warmup", warmup=4)
    before = [value.detach().clone() for value in rest.parameters()]
    stepped(second, rest, steps=1)
    assert all(torch.equal(*both) for both in zip(before, rest.parameters(), strict=True))  # the rate is 0 at first
    schedule.step()
    assert [group["lr"] for group in second.param_groups] == [0.0025, 0.0025, 0.0025, 0.005]


def test_eight_bits_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    groups = groups_of(model, model, 0.02)
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    for make in (adamw_8bit, adamw_paged):
        with pytest.raises(ValueError, match=f"{make.__name__} needs bitsandbytes"):
            make(groups)
    monkeypatch.setattr(optimizers, "find_spec", lambda name: name)
    monkeypatch.setattr(optimizers, "import_module", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(optimizers, "version", lambda name: "0.9.2")
    with pytest.raises(ValueError, match=r"paged=true is for the memory of a GPU"):
        adamw_8bit(groups, paged=True)
    with pytest.raises(ValueError, match=r"needs bitsandbytes 0.50, and 0.9.2 is installed"):
        adamw_8bit(groups)
    with pytest.raises(ValueError, match=r"adamw_paged is for the memory of a GPU, and none is here; take"):
        adamw_paged(groups)


def test_eight_bits_step_as_adamw_does() -> None:
    """A state of 4,096 numbers or more has eight bits: that of embeddings here, whose steps differ by under a tenth."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    models = [tiny_model("llama", changes={"hidden_size": 64, "vocab_size": 256}) for _ in range(2)]
    before = models[0].backbone.get_input_embeddings().weight.detach().clone()
    for model, make in zip(models, (torch.optim.AdamW, adamw_8bit), strict=True):
        stepped(make(groups_of(model, model, 0.02), lr=0.01), model, steps=3)
    plain, eight = (model.backbone.get_input_embeddings().weight - before for model in models)
    assert float((plain - eight).norm() / plain.norm()) < 0.1
    assert not torch.equal(plain, eight)
