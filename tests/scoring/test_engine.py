from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from lightning_rm.batch import LayoutName, Sample, TokenBatch
from lightning_rm.data.batches.layouts import LAYOUTS, layout_of, shared_prefix
from lightning_rm.data.beginnings import num_shared
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.scoring.batches import batches_of
from lightning_rm.scoring.engine import batch_budget, score_sequences
from lightning_rm.scoring.load import load_model
from tests.float64 import roughly, same
from tests.toy import toy_model

PROMPTS = ([5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [5, 6, 7, 20, 21, 22, 23, 24, 25, 26, 27])
SEQUENCES = [[*prompt, *answer] for answer in ([30], [31, 32], [33, 34, 35]) for prompt in PROMPTS] + [[40, 41], [40]]


def alone(model: RewardModel, sequence: list[int]) -> float:
    model.eval()
    with torch.no_grad():
        return model.backbone(input_ids=torch.tensor([sequence])).logits.item()


def test_a_budget_that_nobody_names_suits_the_device() -> None:
    """Small on a CPU, whose caches are."""
    model = toy_model()
    assert [batch_budget(model, asked) for asked in (None, 7)] == [2048, 7]
    assert batch_budget(model.to("meta"), None) == 16384


@pytest.mark.parametrize("limit", ["batch_size", "batch_tokens"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "4", True])
def test_a_limit_of_a_forward_that_is_none_is_an_error(limit: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{limit}={value!r}; give "):
        score_sequences(toy_model(), SEQUENCES, **{limit: value})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_tokens", [1, 30, 10_000])
def test_rewards_are_hugging_faces_one_by_one_whatever_the_batches(layout: LayoutName, batch_tokens: int) -> None:
    model = toy_model(dtype="float64")
    sequences = [*SEQUENCES, *SEQUENCES[::2]]
    told: list[int] = []
    rewards = score_sequences(model, sequences, layout=layout, batch_tokens=batch_tokens, progress=told.append)
    assert rewards.dtype == np.float64
    assert rewards.shape == (len(sequences), 1)
    assert rewards[:, 0].tolist() == same([alone(model, one) for one in sequences])
    assert sum(told) == len(sequences)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_positions_that_the_longest_scales_are_those_of_each_alone(layout: LayoutName) -> None:
    """Phi's longrope: over 12 tokens, which six of these have, the factors of a whole forward are others."""
    factors: dict[str, Any] = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    scaling = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1}
    positions = {"max_position_embeddings": 64, "original_max_position_embeddings": 12, "rope_parameters": scaling}
    config = {"model_type": "phi3", **positions, **sizes, **heads}
    model = RewardModel.from_config(config, dtype="float64")
    assert model.steady_tokens == 12
    assert (toy_model().steady_tokens, RewardEnsemble([model]).steady_tokens) == (None, 12)
    sequences = [*SEQUENCES, [5, 6, 7]]
    rewards = score_sequences(model, sequences, layout=layout)
    assert rewards[:, 0].tolist() == same([alone(model, one) for one in sequences])


def test_each_sequence_and_each_common_beginning_is_computed_once() -> None:
    model, grids = toy_model(), list[TokenBatch]()
    model.register_forward_pre_hook(lambda _, args: grids.append(args[0]))
    score_sequences(model, SEQUENCES * 3, layout="shared_prefix")
    (grid,) = grids
    assert grid.num_tokens == shared_prefix([Sample([one]) for one in SEQUENCES], "last", 0).num_tokens
    assert grid.num_tokens < sum(map(len, SEQUENCES)) / 2


def test_batches_stay_in_their_budget_and_hold_every_sequence_once() -> None:
    sequences = [tuple(one) for one in SEQUENCES]
    for layout in LAYOUTS:
        batches = batches_of(sequences, layout, 25)
        assert sorted(place for batch in batches for place in batch) == list(range(len(sequences)))
        for batch in batches:
            grid = LAYOUTS[layout]([Sample([sequences[place]]) for place in batch], "last", 0)
            # What is too short to be worth sharing is laid out each time.
            assert grid.num_tokens <= 25 + (7 * len(batch) if layout == "shared_prefix" else 0)
    assert batches_of([(1, 2, 3), (4,), (1, 2, 5)], "shared_prefix", 4) == [[0, 2], [1]]
    assert num_shared((1, 2, 3), (1, 2, 4, 5)) == 2


def test_a_budget_counts_a_prompt_for_long_sequences_and_for_others() -> None:
    """A prompt of 20 tokens with responses of 4 and of 8, of which those of over 25 tokens share nothing with others:
    (20 + 3 * 4) + (20 + 3 * 8) = 76 tokens, which a budget of 60 took for 56.
    """
    sequences = [(*range(20), place, *([99] * (3 + 4 * (place % 2)))) for place in range(100, 106)]
    arrange = layout_of("shared_prefix", 25)

    def num_tokens(batch: list[int]) -> int:
        return arrange([Sample([sequences[place]]) for place in batch], "last", 0).num_tokens

    assert num_tokens(list(range(6))) == 76
    assert batches_of(sequences, "shared_prefix", 60) == [[0, 1, 2, 3, 4, 5]]
    batches = batches_of(sequences, "shared_prefix", 60, steady_tokens=25)
    assert (batches, [num_tokens(batch) for batch in batches]) == ([[0, 2, 4, 1], [3, 5]], [60, 36])


def test_members_have_a_column_each_and_an_ensemble_answers_as_one_or_each() -> None:
    models = [toy_model(seed, dtype="float64") for seed in range(3)]
    ensemble = RewardEnsemble(models, how="worst", offsets=[0.0, 0.5, 1.0])
    own = np.concatenate([score_sequences(model, SEQUENCES) for model in models], axis=1) - [0.0, 0.5, 1.0]
    assert score_sequences(ensemble, SEQUENCES, each_member=True) == same(own)
    assert score_sequences(ensemble, SEQUENCES)[:, 0] == same(own.min(1))
    members = MemberRewardModel.of(toy_model(dtype="float64"), Members(num_members=2))
    rewards = score_sequences(members, SEQUENCES)
    assert rewards[:, 1] == same(score_sequences(members.member(1), SEQUENCES)[:, 0])
    assert score_sequences(members, []).shape == (0, 2)


def test_every_part_of_the_model_is_left_in_its_mode_also_after_an_error() -> None:
    model = toy_model()
    model.backbone.base_model.eval()
    before = [part.training for part in model.modules()]
    assert len(set(before)) == 2
    score_sequences(model, SEQUENCES)
    with torch.no_grad():
        next(model.head_parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"row 0 has a reward that is not finite, and so have 7 others of 8: has"):
        score_sequences(model, SEQUENCES, name="row {}".format)
    assert [part.training for part in model.modules()] == before


def test_what_cannot_be_read_is_named() -> None:
    model = toy_model(max_position_embeddings=12)
    with pytest.raises(ValueError, match="sequence 2 has 13 tokens and the model reads 12"):
        score_sequences(model, [[1], [2], [3] * 13])
    with pytest.raises(ValueError, match="sequence 1 has no tokens"):
        score_sequences(model, [[1], []])


def test_options_that_cannot_be_are_named() -> None:
    model = toy_model()
    with pytest.raises(ValueError, match="layout='pack'; it must be one of auto, padded"):
        score_sequences(model, [[1]], layout=cast(LayoutName, "pack"))
    with pytest.raises(ValueError, match="batch_tokens=0; give 1 or more"):
        score_sequences(model, [[1]], batch_tokens=0)


def test_a_head_that_was_never_trained_is_refused_by_whoever_scores(tmp_path: Path) -> None:
    """A causal language model in a folder: loading it to score names the folder, a step of training lifts the ban."""
    tokenizer = world_tokenizer()
    RewardModel.from_config(toy_model().backbone.config, keep_lm_head=True, tokenizer=tokenizer).save_policy(
        tmp_path, tokenizer
    )
    with pytest.raises(ValueError, match=f"{tmp_path}' holds no trained reward head: its"):
        load_model(tmp_path)
    (tmp_path / "value_head.safetensors").touch()
    with pytest.raises(ValueError, match=r"stored as value_head\.safetensors, which transformers does not read"):
        load_model(tmp_path)
    (tmp_path / "value_head.safetensors").unlink()
    control = load_model(tmp_path, new_head=True).model
    assert np.isfinite(score_sequences(control, SEQUENCES)).all()
    for model in (RewardModel.from_pretrained(tmp_path), MemberRewardModel.from_pretrained(tmp_path)):
        for scored in (model, RewardEnsemble([model])) if type(model) is RewardModel else (model,):
            with pytest.raises(ValueError, match=f"{tmp_path}' has no reward head, and the random one in its place"):
                score_sequences(scored, SEQUENCES)
        with torch.no_grad():
            next(model.head_parameters()).add_(0.1)
        assert np.isfinite(score_sequences(model, SEQUENCES)).all()


def test_weights_that_are_loaded_lie_as_those_in_memory_do(tmp_path: Path) -> None:
    """In the map of a file they lay at odd addresses, from where some processors add in another order."""
    toy_model().save_pretrained(tmp_path, world_tokenizer())
    model = load_model(tmp_path).model
    assert {tensor.data_ptr() % 64 for tensor in (*model.parameters(), *model.buffers())} == {0}


def test_every_form_of_model_is_loaded_as_what_it_is(tmp_path: Path) -> None:
    """A run, a folder, an ensemble and members, each scored as before it was saved."""
    tokenizer = world_tokenizer()
    forms = {
        "run/model/best": toy_model(1),
        "folder": toy_model(2),
        "ensemble": RewardEnsemble([toy_model(3), toy_model(4)]),
        "members": MemberRewardModel.of(toy_model(5), Members(num_members=2)),
    }
    for name, model in forms.items():
        model.save_pretrained(tmp_path / name, tokenizer)
        loaded = load_model(tmp_path / name.removesuffix("/model/best"))
        assert not loaded.model.training
        assert loaded.tokenizer.get_vocab() == tokenizer.get_vocab()
        rewards = score_sequences(loaded.model, SEQUENCES)
        assert rewards.dtype == np.float32
        assert np.array_equal(rewards, score_sequences(model, SEQUENCES))
    with pytest.raises(ValueError, match="holds several members on one backbone"):
        RewardModel.from_pretrained(tmp_path / "members")
    average = RewardModel.from_pretrained(tmp_path / "members", average=True)
    mean = score_sequences(forms["members"], SEQUENCES).mean(1)
    assert score_sequences(average, SEQUENCES)[:, 0] == roughly(mean)
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.yaml").touch()
    with pytest.raises(ValueError, match=r"young is a run without weights in model/best; has its training finished\?"):
        load_model(tmp_path / "young")
    toy_model().save_pretrained(tmp_path / "several" / "warm", tokenizer)  # as lightning-rm ensemble leaves its average
    with pytest.raises(ValueError, match=r"several': the folder holds no model.*; there is one in .*several/warm"):
        load_model(tmp_path / "several")
    with pytest.raises(ValueError, match="there is no folder of that name, and the Hugging Face hub gave no model"):
        load_model("no/such-model", tokenizer=tokenizer)


def test_code_that_a_folder_brings_is_not_run_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("a question on the terminal")

    monkeypatch.setattr("builtins.input", ask)
    (tmp_path / "config.json").write_text(
        '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.M"}}'
    )
    (tmp_path / "mine.py").write_text("raise AssertionError('code of the folder ran')\n")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load_model(tmp_path, tokenizer=world_tokenizer())
