"""Rewards and gradients are those of scoring each sequence alone with plain transformers, whatever the layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from lightning_rm.batch import LayoutName, RewardOutput, Sample, Segments, TokenBatch
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.attention import segments as attention
from lightning_rm.models.attention import varlen
from lightning_rm.models.attention.rectangle import rectangle_of
from lightning_rm.models.backbone.heads import ENCODERS
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.views import doubled
from tests import reference
from tests.families import family_config, older_than
from tests.float64 import assert_same
from tests.kernels import kernel
from tests.tiny import (
    CONFIGS,
    EOS,
    PACKING,
    PAD,
    VOCAB,
    conversation,
    gradients,
    laid_out,
    layouts_of,
    pairs,
    prompted,
    tiny_model,
)

WEIGHT = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.5, -1.0]])


def alone(model: RewardModel, samples: list[Sample], attention: str) -> Tensor:
    """(k, P): the classifier's own forward on each sequence by itself, with transformers' own attention."""
    model.backbone.set_attn_implementation(attention)
    rows = [
        torch.stack([model.backbone(input_ids=torch.tensor([ids])).logits[0, 0] for ids in sample.sequences])
        for sample in samples
    ]
    return torch.stack(rows, dim=1)


def test_every_encoder_has_a_tiny_model() -> None:
    assert set(ENCODERS) < set(CONFIGS)


@pytest.mark.parametrize("samples", [pairs(), prompted()], ids=["pairs", "prompted"])
@pytest.mark.parametrize("name", CONFIGS)
def test_layouts_are_exact(name: str, samples: list[Sample]) -> None:
    """A window of 6 (ModernBERT: 4 to each side) is shorter than most sequences; one sequence stands in two pairs."""
    model = tiny_model(name)
    own_attention = name == "gemma2" or not model.architecture.packs
    reward = alone(model, samples, "eager" if own_attention else "sdpa")
    (reward * WEIGHT).sum().backward()
    expected = gradients(model)
    for layout in layouts_of(model):
        model = tiny_model(name)
        output = model(laid_out(model, layout, samples))
        assert_same(output.reward, reward.detach())
        (output.reward * WEIGHT).sum().backward()
        found = gradients(model)
        for key in expected:
            assert_same(found[key], expected[key])


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_in_float32_layouts_differ_by_rounding_alone(name: str) -> None:
    """The one bound in float32, which models are trained in: 2e-5 is two hundred times its last digit.

    A reward is some hundred sums of some forty terms each, one after the other, every one rounded to 2^-24 = 6e-8.
    """
    exact = tiny_model(name)
    model = tiny_model(name, dtype="float32")
    model.load_state_dict(exact.state_dict())
    exact.load_state_dict(model.state_dict())
    for layout in layouts_of(model):
        found, expected = (one(laid_out(one, layout, prompted())).reward for one in (model, exact))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("samples", [pairs(), prompted()], ids=["pairs", "prompted"])
@pytest.mark.parametrize("name", PACKING)
def test_one_call_for_all_segments_is_exact(name: str, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """What other devices than the CPU do: rewards and gradients are those of a call for each segment."""
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    monkeypatch.setattr(varlen, "KERNEL", kernel)
    for layout in layouts_of(tiny_model(name))[1:]:
        for way in (attention._one_by_one, attention._in_one_call, attention._without_padding):
            monkeypatch.setattr(attention, "_way", lambda *_, way=way: way)
            model = tiny_model(name)
            reward = model(laid_out(model, layout, samples)).reward
            (reward * WEIGHT).sum().backward()
            found.append((reward.detach(), gradients(model)))
    for reward, gradient in found[1:]:
        assert_same(reward, found[0][0])
        for key, expected in found[0][1].items():
            assert_same(gradient[key], expected)


@pytest.mark.parametrize("way", ["_in_one_call", "_without_padding"])
def test_one_call_of_two_views_and_with_checkpointing(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of two rows, each with the same segments; layers that run again in the backward pass."""
    monkeypatch.setattr(varlen, "KERNEL", kernel)
    monkeypatch.setattr(attention, "_way", lambda *_: getattr(attention, way))
    model, checkpointed = tiny_model("mistral"), tiny_model("mistral", gradient_checkpointing=True).train()
    tokens = laid_out(model, "shared_prefix", prompted())
    once = model(tokens).reward
    assert_same(model(doubled(tokens)).reward, torch.cat([once, once], dim=1))
    once.square().sum().backward()
    checkpointed(tokens).reward.square().sum().backward()
    for key, expected in gradients(model).items():
        assert_same(gradients(checkpointed)[key], expected)


def test_a_rectangle_has_a_row_for_each_tree() -> None:
    """[prompt | chosen | rejected] of 2, 1 and 2 tokens, and a sequence of 3: the row's places and what they see."""
    rectangle = rectangle_of([2, 1, 2, 3], [0, 1, 2, 0], torch.device("cpu"))
    assert rectangle.cell.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 0, 0]]
    assert rectangle.place.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert rectangle.segment.tolist() == [[0, 0, 1, 2, 2], [3, 3, 3, 4, 4]]
    assert rectangle.position.tolist() == [[0, 1, 2, 2, 3], [0, 1, 2, 0, 0]]
    assert rectangle.mask(causal=True, window=None)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
    assert rectangle.mask(causal=True, window=2)[0, 0, 4].int().tolist() == [0, 0, 0, 1, 1]
    assert rectangle.mask(causal=False, window=None)[1, 0].any(-1).all()  # padding sees padding: no row is empty


def test_the_prompted_pairs_share_what_they_can() -> None:
    """Else `test_layouts_are_exact` would prove little: 149 tokens of five distinct sequences."""
    model = tiny_model("llama")
    tokens = [laid_out(model, layout, prompted()).num_tokens for layout in layouts_of(model)]
    assert tokens == [5 * 62, 30 + 28 + 17 + 62 + 12, 16 + 10 + 4 + 2 + 1 + 46 + 12]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sixteen_responses_to_one_prompt(layout: LayoutName) -> None:
    """Best of n: one group of 16, another of responses that begin with the prompt of the first and go on.

    The last response ends at the last position that the model has.
    """
    prompt, lengths = conversation(20), [*range(3, 18), 34]
    groups = [
        Sample([[*prompt, *conversation(length, length)] for length in lengths]),
        Sample([[*prompt, *conversation(10, 99), *conversation(length, 50 + length)] for length in lengths]),
    ]
    model, plain = tiny_model("llama"), tiny_model("llama")
    assert len(groups[1].sequences[15]) == model.max_tokens == 64
    weight = torch.arange(32.0).sin().view(16, 2)
    expected = alone(plain, groups, "sdpa")
    (expected * weight).sum().backward()
    reward = model(laid_out(model, layout, groups)).reward
    assert_same(reward, expected.detach())
    (reward * weight).sum().backward()
    found = gradients(model)
    for key, gradient in gradients(plain).items():
        assert_same(found[key], gradient)


@pytest.mark.parametrize("name", ["bert", "modernbert", "deberta-v2"])
def test_an_encoder_shares_no_prefix(name: str) -> None:
    """Not by the layout, and not if somebody hands it the grid of a decoder's."""
    model = tiny_model(name)
    with pytest.raises(ValueError, match="use layout=packed or padded"):
        laid_out(model, "shared_prefix")
    with pytest.raises(ValueError, match=r"layout=(packed|padded)"):
        model(LAYOUTS["shared_prefix"](prompted(), "last", model.pad_id))


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma2", "bert", "roberta"])
def test_layouts_are_exact_with_eager_attention(name: str) -> None:
    model = tiny_model(name, attn_implementation="eager")
    expected = alone(model, prompted(), "eager")
    for layout in layouts_of(model):
        reward = model(laid_out(model, layout, prompted())).reward
        assert_same(reward, expected)


@pytest.mark.parametrize("name", ["mistral", "gemma3_text", "modernbert"])
def test_a_window_matters_to_these_sequences(name: str) -> None:
    """Else the window's part in `test_layouts_are_exact` would prove nothing."""
    changes = {"modernbert": {"local_attention": 128}}.get(name, {"sliding_window": 64})
    windowed, whole = tiny_model(name), tiny_model(name, changes=changes)
    tokens = laid_out(windowed, "packed", [Sample([conversation(40), conversation(50)])])
    assert (windowed(tokens).reward - whole(tokens).reward).abs().max() > 1e-5


def test_left_padding_and_a_row_with_gaps_read_the_same() -> None:
    """Any grid of contiguous segments: here two rows, padding before, between and after three sequences."""
    model = tiny_model("llama")
    first, second, third = conversation(5), conversation(7), conversation(4)
    grid = torch.full((2, 14), PAD)
    mask, positions = torch.zeros_like(grid, dtype=torch.bool), torch.zeros_like(grid)
    for row, start, ids in ((0, 1, first), (0, 7, second), (1, 10, third)):
        grid[row, start : start + len(ids)] = torch.tensor(ids)
        mask[row, start : start + len(ids)] = True
        positions[row, start : start + len(ids)] = torch.arange(len(ids))
    tokens = TokenBatch(
        input_ids=grid,
        position_ids=positions,
        mask=mask,
        reward_index=torch.tensor([[5, 13, 27]]),
        response_index=torch.zeros(2, 0, dtype=torch.long),
        segments=Segments((1, 5, 1, 7, 10, 4), (0,) * 6),
    )
    expected = alone(tiny_model("llama"), [Sample([ids]) for ids in (first, second, third)], "sdpa")
    assert_same(model(tokens).reward, expected)


@pytest.mark.parametrize("window", [64, 6])
def test_a_decoder_made_bidirectional_shares_no_prefix(window: int) -> None:
    """EmbeddingGemma's attention: read at the last token, and every token sees all of its sequence, or a window."""
    changes = {"use_bidirectional_attention": True, "sliding_window": window}
    model = tiny_model("gemma3_text", changes=changes)
    layouts: list[LayoutName] = ["padded", "packed"]
    for layout in layouts:
        reward = model(laid_out(model, layout)).reward
        expected = alone(tiny_model("gemma3_text", changes=changes), pairs(), "sdpa")
        assert_same(reward, expected)
    with pytest.raises(ValueError, match="see what follows them"):
        model(laid_out(model, "shared_prefix", prompted()))


def test_fast_layouts() -> None:
    """Of backbones that are large enough for a token to cost more than a call."""
    wide = {"hidden_size": 256, "intermediate_size": 512}
    assert tiny_model("llama", changes=wide).fast_layouts == ("padded", "packed", "shared_prefix")
    assert tiny_model("bert", changes=wide).fast_layouts == ("padded", "packed")
    bidirectional = wide | {"use_bidirectional_attention": True}
    assert tiny_model("gemma3_text", changes=bidirectional).fast_layouts == ("padded", "packed")
    assert tiny_model("llama", changes=wide, attn_implementation="eager").fast_layouts == ("padded",)
    assert tiny_model("deberta", changes=wide).fast_layouts == ("padded",)
    assert tiny_model("llama").fast_layouts == ("padded",)


@pytest.mark.parametrize("name", ["deberta", "deberta-v2"])
def test_packing_an_architecture_that_cannot_is_an_error(name: str) -> None:
    model = tiny_model(name)
    with pytest.raises(ValueError, match="layout=padded"):
        model(laid_out(model, "packed"))
    one = [Sample([conversation(6)])]
    assert torch.equal(model(laid_out(model, "packed", one)).reward, model(laid_out(model, "padded", one)).reward)


def test_packing_with_eager_attention_beyond_a_window_is_an_error() -> None:
    model = tiny_model("mistral", attn_implementation="eager")
    with pytest.raises(ValueError, match=r"layout=padded"):
        model(laid_out(model, "packed"))
    layouts: list[LayoutName] = ["packed", "shared_prefix"]
    for layout in layouts:  # the longest sequence has 62 tokens
        model = tiny_model("mistral", changes={"sliding_window": 61}, attn_implementation="eager")
        with pytest.raises(ValueError, match=r"layout=padded"):
            model(laid_out(model, layout, prompted()))
        model = tiny_model("mistral", changes={"sliding_window": 62}, attn_implementation="eager")
        expected = alone(tiny_model("mistral", changes={"sliding_window": 62}), prompted(), "eager")
        reward = model(laid_out(model, layout, prompted())).reward
        assert_same(reward, expected)


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, layout) for name in ("llama", "gpt2", "bert") for layout in layouts_of(tiny_model(name))],
)
def test_gradient_checkpointing_changes_no_gradient(name: str, layout: LayoutName) -> None:
    found: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        model = tiny_model(name, gradient_checkpointing=checkpointing)
        torch.manual_seed(5)
        (model.train()(laid_out(model, layout, prompted())).reward * WEIGHT).sum().backward()
        found.append(gradients(model))
    for key, expected in found[0].items():
        assert_same(found[1][key], expected)


@pytest.mark.parametrize("name", ["llama", "bert", "roberta", "distilbert", "modernbert", "deberta-v2"])
def test_the_head_is_float32_under_a_bfloat16_backbone(name: str) -> None:
    model = tiny_model(name, dtype="bfloat16")
    assert {parameter.dtype for parameter in model.head_parameters()} == {torch.float32}
    output = model(laid_out(model))
    assert output.feature.dtype == torch.bfloat16
    assert output.reward.dtype == torch.float32
    assert not torch.equal(output.reward, output.reward.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        again = model(laid_out(model)).reward
    assert again.dtype == torch.float32
    assert not torch.equal(again, again.bfloat16().float())


def test_under_autocast_the_head_computes_in_float32() -> None:
    """A sum of 32 products is right to some 1e-6 in float32, and to some 1e-2 in bfloat16."""
    model = tiny_model("llama", dtype="float32")
    with torch.autocast("cpu", torch.bfloat16):
        output = model(laid_out(model))
    expected = output.feature.double() @ next(model.head_parameters())[0].double()
    torch.testing.assert_close(output.reward.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_head_cast_to_bfloat16_is_an_error() -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    with pytest.raises(ValueError, match="bf16-mixed"):
        model(laid_out(model))


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert"])
def test_classifier_dropout_is_active_in_training_alone(name: str) -> None:
    changes = {"classifier_dropout": 0.5, "seq_classif_dropout": 0.5}
    changes = {key: value for key, value in changes.items() if (key == "seq_classif_dropout") == (name == "distilbert")}
    others = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = tiny_model(name, changes={**changes, **(others if name in ("bert", "roberta") else {})})
    tokens = laid_out(model)
    assert torch.equal(model(tokens).reward, model(tokens).reward)
    model.train()
    assert not torch.equal(model(tokens).reward, model(tokens).reward)


def test_head_and_backbone_parameters_are_all_parameters_once() -> None:
    for name in ("llama", "bert", "roberta", "modernbert"):
        model = tiny_model(name)
        head, backbone = list(map(id, model.head_parameters())), list(map(id, model.backbone_parameters()))
        assert sorted(head + backbone) == sorted(map(id, model.parameters()))
        assert head
        assert not set(head) & set(backbone)


def test_limits() -> None:
    """RoBERTa's table of 64 positions starts after its padding token, 1."""
    assert [tiny_model(name).max_tokens for name in ("llama", "gpt2", "bert", "roberta")] == [64, 64, 64, 62]
    assert RewardModel.from_config(family_config("mpt")).max_tokens == 64  # by another name
    assert tiny_model("gpt2").hidden_size == 32
    assert [tiny_model(name).read_at for name in ("llama", "bert")] == ["last", "first"]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lm_loss_is_the_mean_over_chosen_response_tokens(layout: LayoutName, tied: bool, tmp_path: Any) -> None:
    """Against transformers' causal model on each chosen sequence alone, token by token."""
    config = {**CONFIGS["llama"], "vocab_size": VOCAB, "pad_token_id": PAD, "tie_word_embeddings": tied}
    config_object = tiny_model("llama", changes=config).backbone.config
    torch.manual_seed(0)
    causal = AutoModelForCausalLM.from_config(config_object)
    causal.save_pretrained(tmp_path)
    model = RewardModel.from_pretrained(tmp_path, dtype="float64", keep_lm_head=True)
    samples = [*pairs(), *prompted()]
    logits: list[list[float]] = []
    targets: list[int] = []
    for sample in samples:
        ids = list(sample.sequences[0])
        with torch.no_grad():
            rows = causal(input_ids=torch.tensor([ids])).logits[0].tolist()
        for position in range(max(sample.prompt_length, 1), len(ids)):
            logits.append(rows[position - 1])
            targets.append(ids[position])
    tokens = laid_out(model, layout, samples)
    loss = model.lm_loss(model(tokens, keep_hidden=True), tokens)
    # Of transformers 5.10 the two differ by 5e-10.
    bound = 1e-8 if older_than(5, 17) else 1e-12
    assert float(loss.detach()) == pytest.approx(reference.cross_entropy(logits, targets), rel=bound)
    loss.backward()
    assert model.lm_head is not None
    embeddings = model.backbone.get_input_embeddings()
    assert (model.lm_head.weight is embeddings.weight) == tied
    assert model.lm_head.weight.grad is not None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cohere_compass_text", {"logit_scale": 0.5}),
        ("gemma2", {"final_logit_softcapping": 2.0}),
        ("minicpm3", {"dim_model_base": 4}),
    ],
)
def test_lm_loss_is_of_the_logits_that_the_family_has(name: str, changes: dict[str, Any], tmp_path: Any) -> None:
    if name not in CONFIG_MAPPING:
        pytest.skip("this version of transformers does not know the family")
    causal = AutoModelForCausalLM.from_config(family_config(name, **changes), dtype=torch.float64).eval()
    with torch.no_grad():
        causal.get_output_embeddings().weight.mul_(50)  # so that logits differ from one another
    causal.save_pretrained(tmp_path)
    model = RewardModel.from_pretrained(tmp_path, dtype="float64", keep_lm_head=True).eval()
    sequence = [3, 7, 11, 5, 9, 2]
    tokens = laid_out(model, "padded", [Sample([sequence, sequence[:2]], prompt_length=1)])
    with torch.no_grad():
        loss = model.lm_loss(model(tokens, keep_hidden=True), tokens)
        logits = causal(input_ids=torch.tensor([sequence])).logits[0]
    assert_same(loss, cross_entropy(logits[:-1], torch.tensor(sequence[1:])))


def test_a_feature_may_be_narrower_than_layers() -> None:
    """OPT-350M's last states are projected to half their width."""
    model = RewardModel.from_config(family_config("opt", word_embed_proj_dim=8))
    assert model.hidden_size == model(laid_out(model)).feature.shape[-1] == 8


def test_lm_loss_needs_a_head_and_hidden_states(tmp_path: Any) -> None:
    model = tiny_model("llama")
    tokens = laid_out(model)
    with pytest.raises(ValueError, match="keep_lm_head=True"):
        model.lm_loss(model(tokens, keep_hidden=True), tokens)
    AutoModelForCausalLM.from_config(model.backbone.config).save_pretrained(tmp_path)
    model = RewardModel.from_pretrained(tmp_path, dtype="float64", keep_lm_head=True)
    output: RewardOutput = model(tokens)
    with pytest.raises(ValueError, match="keep_hidden=True"):
        model.lm_loss(output, tokens)


def test_eos_in_the_middle_is_not_where_the_reward_is_read() -> None:
    model = tiny_model("llama")
    ids = conversation(9)
    assert ids.count(EOS) == 2
    whole = model(laid_out(model, "padded", [Sample([ids, conversation(12)])])).reward[0, 0]
    prefix = model(laid_out(model, "padded", [Sample([ids[:5]])])).reward[0, 0]
    assert not torch.isclose(whole, prefix)
    assert_same(whole, alone(tiny_model("llama"), [Sample([ids])], "sdpa")[0, 0])
