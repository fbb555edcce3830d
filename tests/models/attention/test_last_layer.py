"""The last layer runs at the tokens that are read, and nobody can tell by rewards or gradients."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from lightning_rm.batch import LayoutName, TokenBatch
from lightning_rm.models.attention.last_layer import DEEPEST, TOKEN_WISE, compute_where_read
from lightning_rm.models.attention.masks import SEGMENT_ATTENTION
from lightning_rm.models.attention.segments import _by_segment
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.views import doubled
from tests.float64 import assert_same
from tests.tiny import PACKING, conversation, gradients, laid_out, layouts_of, pairs, prompted, tiny_model


def last_layer_rows(model: RewardModel, tokens: TokenBatch, keep_hidden: bool = False) -> dict[str, set[int]]:
    """How many tokens went through each of the last layer's modules that work token by token, by module."""
    rows: dict[str, set[int]] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, args, output, name=name: rows.setdefault(name, set()).add(args[0].shape[:-1].numel())
        )
        for name, module in transformer_layers(model.backbone)[-1].named_modules()
        if not TOKEN_WISE.isdisjoint(name.split("."))
    ]
    model(tokens, keep_hidden=keep_hidden)
    for hook in hooks:
        hook.remove()
    return rows


@pytest.mark.parametrize("name", PACKING)
def test_it_computes_what_is_read(name: str) -> None:
    """Five distinct sequences: three pairs, one of whose responses stands in two."""
    model = tiny_model(name)
    for layout in layouts_of(model):
        tokens = laid_out(model, layout, prompted())
        rows = last_layer_rows(model, tokens)
        if model.backbone.config._attn_implementation == SEGMENT_ATTENTION or layout != "padded":
            assert set.union(*rows.values()) == {5}, layout
        assert last_layer_rows(model, replace(tokens, read_cells=None)).keys() == rows.keys()
        everywhere = last_layer_rows(model, tokens, keep_hidden=True)
        assert set.union(*everywhere.values()) == {tokens.num_tokens}, layout


def test_its_name_is_known_in_every_architecture_that_packs() -> None:
    for name in PACKING:
        names = {
            part
            for path, _ in transformer_layers(tiny_model(name).backbone)[-1].named_modules()
            for part in path.split(".")
        }
        assert len(TOKEN_WISE & names) >= 2, name


@pytest.mark.parametrize("name", ["llama", "bert"])
@pytest.mark.parametrize("lora_layers", [0, 1, 2])
def test_members_compute_what_is_read_of_each(name: str, lora_layers: int) -> None:
    """Three members: their adapters see the five sequences that are read three times."""
    model = MemberRewardModel.of(tiny_model(name), Members(num_members=3, lora_layers=lora_layers))
    for layout in layouts_of(model):
        rows = last_layer_rows(model, laid_out(model, layout, prompted()))
        assert set.union(*rows.values()) == {15 if lora_layers else 5}, layout


@pytest.mark.parametrize("layout", ["padded", "shared_prefix"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_batches_before_one_backward(layout: LayoutName, checkpointing: bool) -> None:
    """Each forward remembers where it was read, also where its layers run again in the backward pass."""
    model = tiny_model("llama", gradient_checkpointing=checkpointing).train()
    batches = [laid_out(model, layout, pairs()), doubled(laid_out(model, layout, prompted()))]
    sum(model(tokens).reward.square().sum() for tokens in batches).backward()
    found = gradients(model)
    plain = tiny_model("llama")
    for tokens in batches:
        plain(replace(tokens, read_cells=None)).reward.square().sum().backward()
    for key, expected in gradients(plain).items():
        assert_same(found[key], expected)


def test_the_backbone_by_itself_computes_everything() -> None:
    """What transformers does with it is what it did, also after a forward of ours and in a copy."""
    model, untouched = tiny_model("llama"), tiny_model("llama")
    ids = torch.tensor([conversation(9)])
    expected = untouched.backbone.base_model(input_ids=ids).last_hidden_state
    model(laid_out(model, "packed", prompted()))
    for backbone in (model.backbone, copy.deepcopy(cast(nn.Module, model.backbone))):
        found = cast("dict[str, Tensor]", backbone.base_model(input_ids=ids))["last_hidden_state"]
        assert torch.equal(found, expected)


def test_a_copy_reads_for_itself() -> None:
    model = tiny_model("llama")
    tokens, others = laid_out(model, "packed", prompted()), laid_out(model, "packed", pairs())
    twin = copy.deepcopy(model)
    expected = model(others).reward
    model(tokens)
    assert torch.equal(twin(others).reward, expected)
    assert last_layer_rows(twin, others)["mlp"] == {others.read_cells.numel()}


def test_it_is_hooked_once() -> None:
    """A backbone that members take over is hooked already."""
    model = tiny_model("llama")
    layer = transformer_layers(model.backbone)[-1]
    for user in (model, MemberRewardModel.of(model)):
        user(laid_out(model, "packed", prompted()))
        compute_where_read(layer)
        hooks = [len(module._forward_pre_hooks) for module in layer.modules()]
        assert sum(hooks) == 5  # the layer, its attention, q_proj, o_proj, mlp


def test_adapters_see_what_is_read() -> None:
    model = tiny_model("llama", lora=LoraAdapter(rank=2))
    rows = last_layer_rows(model, laid_out(model, "shared_prefix", prompted()))
    assert rows["self_attn.q_proj.lora_A.default"] == rows["mlp.up_proj.lora_A.default"] == {5}


def test_a_feed_forward_in_chunks_is_computed_whole() -> None:
    chunked, plain = tiny_model("bert", changes={"chunk_size_feed_forward": 1}), tiny_model("bert")
    for layout in layouts_of(plain):
        tokens = laid_out(plain, layout, prompted())
        assert_same(chunked(tokens).reward, plain(tokens).reward)


def test_two_threads_use_one_model() -> None:
    """Each reads its own batch where that batch says, whoever comes between."""
    model = tiny_model("llama")
    batches = [laid_out(model, "packed", prompted()), laid_out(model, "packed", pairs())]
    with torch.no_grad():
        expected = [model(tokens).reward for tokens in batches]
    both_told = threading.Barrier(2)

    def meet(*_: Any) -> None:
        both_told.wait(timeout=60)

    transformer_layers(model.backbone)[-1].get_submodule("mlp").register_forward_pre_hook(meet, prepend=True)

    def rewards(tokens: TokenBatch) -> Tensor:
        with torch.no_grad():
            return model(tokens).reward

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(rewards, batches))
    assert all(map(torch.equal, found, expected))


def test_positions_by_segment() -> None:
    assert _by_segment([0, 2, 3, 8], [3, 4, 1, 1]) == [[0, 2], [0], [], [0]]


def test_the_depth_decides_unless_one_says() -> None:
    """Seventeen layers of next to nothing; the rewards are the same, and float64 shows it."""
    sizes = {"num_hidden_layers": DEEPEST + 1, "hidden_size": 8, "intermediate_size": 8}
    sizes |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    rewards: dict[str | None, Tensor] = {}
    for wanted, rows in ((None, 149), ("whole", 149), ("where_read", 5)):
        model = tiny_model("llama", changes=sizes, dtype="float64", last_layer=wanted)
        tokens = laid_out(model, "packed", prompted())
        assert last_layer_rows(model, tokens)["mlp"] == {rows}
        rewards[wanted] = model(tokens).reward
    torch.testing.assert_close(rewards["where_read"], rewards["whole"], atol=1e-12, rtol=1e-12)
    assert tiny_model("llama", changes={**sizes, "num_hidden_layers": DEEPEST}).last_layer == "where_read"
    assert tiny_model("llama", last_layer="whole").last_layer == "whole"


def test_members_with_adapters_compute_a_deep_one_where_it_is_read() -> None:
    changes = {"num_hidden_layers": DEEPEST + 1}
    for lora_layers, expected in ((0, "whole"), (1, "where_read")):
        members = Members(num_members=2, lora_layers=lora_layers)
        assert MemberRewardModel.of(tiny_model("llama", changes=changes), members).last_layer == expected
        assert MemberRewardModel.of(tiny_model("llama"), members, "whole").last_layer == "whole"


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("deberta", "where_read", "last_layer=where_read: deberta computes all of it here; set last_layer=whole"),
        ("llama", "last", "last_layer='last'; it must be one of where_read, whole"),
    ],
)
def test_what_a_last_layer_cannot_be(name: str, wanted: Any, message: str) -> None:
    assert tiny_model("deberta").last_layer == "whole"
    with pytest.raises(ValueError, match=message):
        tiny_model(name, last_layer=wanted)
