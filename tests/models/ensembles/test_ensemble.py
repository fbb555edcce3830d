"""An ensemble is its members' separate runs and a naive aggregate, wherever a reward model is accepted."""

from __future__ import annotations

import copy
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from lightning_rm.annotation.annotate import annotate
from lightning_rm.annotation.voters import Voter
from lightning_rm.batch import TokenBatch
from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.batches.layouts import LAYOUTS, LayoutName
from lightning_rm.data.rows import PairRow
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.dropout import DropoutAt, add_dropout
from lightning_rm.models.ensembles.aggregate import Aggregate, aggregate
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.ascent import choose_parameters
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.scoring.conversations import score
from lightning_rm.scoring.load import find_folder
from tests.float64 import assert_same, roughly, same
from tests.tiny import pairs, tiny_model
from tests.toy import toy_data, toy_model, toy_module, toy_trainer

NAIVE: dict[str, Callable[[list[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "worst": min,
    "mean_minus_variance": lambda votes: statistics.fmean(votes) - 0.7 * statistics.pvariance(votes),
}


def tokens_for(model: RewardModel, layout: LayoutName = "padded") -> TokenBatch:
    return LAYOUTS[layout](pairs(), model.read_at, model.pad_id)


def tiny_members(name: str = "llama", number: int = 3) -> list[RewardModel]:
    return [tiny_model(name, seed) for seed in range(number)]


def pairs_of(num_pairs: int) -> list[PairRow]:
    return [row for row in SyntheticSource(num_pairs, split="train") if isinstance(row, PairRow)]


def separate(members: list[RewardModel], tokens: TokenBatch) -> Tensor:
    """(k, M, P)."""
    return torch.stack([member(tokens).reward for member in members], dim=1)


@pytest.mark.parametrize("num_members", [1, 4, 5])
@pytest.mark.parametrize("how", get_args(Aggregate))
def test_aggregates_are_naive_ones(how: Aggregate, num_members: int) -> None:
    reward = torch.randn(2, num_members, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = aggregate(reward, how, 0.7)
    expected = [[NAIVE[how](reward[i, :, p].tolist()) for p in range(3)] for i in range(2)]
    assert_same(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("how", get_args(Aggregate))
def test_an_ensemble_of_one_is_the_model(how: Aggregate) -> None:
    model = tiny_model()
    tokens = tokens_for(model)
    expected, found = model(tokens), RewardEnsemble([model], how).eval()(tokens)
    assert torch.equal(found.reward, expected.reward)
    assert torch.equal(found.feature, expected.feature)


@pytest.mark.parametrize(("name", "layout"), [("llama", "padded"), ("llama", "shared_prefix"), ("bert", "packed")])
def test_an_ensemble_is_its_members_run_apart(name: str, layout: LayoutName) -> None:
    members = tiny_members(name)
    ensemble = RewardEnsemble(members).eval()
    tokens = tokens_for(members[0], layout)
    votes, output = separate(members, tokens), ensemble(tokens)
    assert torch.equal(ensemble.votes(tokens), votes)
    assert_same(output.reward, sum(votes.unbind(1), torch.zeros(2, 3, dtype=torch.float64)) / 3)
    features = [member(tokens).feature for member in members]
    assert_same(output.feature, (features[0] + features[1] + features[2]) / 3)
    assert (ensemble.read_at, ensemble.pad_id) == (members[0].read_at, members[0].pad_id)
    assert (ensemble.hidden_size, ensemble.max_tokens) == (32, 64)


def test_head_and_backbone_parameters_are_all_parameters_once() -> None:
    ensemble = RewardEnsemble(tiny_members())
    head, backbone = list(map(id, ensemble.head_parameters())), list(map(id, ensemble.backbone_parameters()))
    assert len(head) == 3
    assert sorted(head + backbone) == sorted(map(id, ensemble.parameters()))
    kept = [tiny_model("llama", keep_lm_head=True) for _ in range(2)]
    of_members = [parameter for member in kept for parameter in member.lm_head_parameters()]
    assert of_members
    assert list(map(id, RewardEnsemble(kept).lm_head_parameters())) == list(map(id, of_members))


def test_members_of_different_sizes_have_rewards_and_no_feature() -> None:
    small = {"hidden_size": 16, "max_position_embeddings": 48}
    members = [tiny_model(), tiny_model(changes=small)]
    ensemble = RewardEnsemble(members, "worst").eval()
    tokens = tokens_for(ensemble)
    output = ensemble(tokens)
    assert torch.equal(output.reward, separate(members, tokens).amin(1))
    assert output.feature.shape == (2, 3, 0)
    assert ensemble.max_tokens == 48
    with pytest.raises(ValueError, match=r"hidden sizes \[16, 32\]"):
        _ = ensemble.hidden_size


def test_conservative_aggregates_measure_offsets_until_members_are_centred() -> None:
    """The same model twice never disagrees with itself, whatever constants its rewards have."""
    model = tiny_model()
    ensemble = RewardEnsemble([model, model], "mean_minus_variance", offsets=[-5.0, 5.0]).eval()
    tokens = tokens_for(model)
    expected = model(tokens).reward
    assert_same(ensemble(tokens).reward, expected - 25)
    ensemble.centre(ensemble.votes(tokens).transpose(0, 1).flatten(1).T)
    assert_same(ensemble.offsets, expected.mean().expand(2))
    for how in get_args(Aggregate):
        ensemble.how = how
        assert_same(ensemble(tokens).reward, expected - expected.mean())
    assert_same(ensemble.votes(tokens).mean((0, 2)), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("num_members", [1, 2])
def test_members_are_centred_on_what_score_gives(num_members: int) -> None:
    conversations = [[*row.prompt, *row.chosen] for row in SyntheticSource(3, split="train")]
    ensemble, tokenizer = (
        RewardEnsemble([toy_model(seed, dtype="float64") for seed in range(num_members)]),
        world_tokenizer(),
    )
    before = score(ensemble, tokenizer, conversations, each_member=True)
    assert before.shape == (3, num_members)
    ensemble.centre(before)
    assert_same(score(ensemble, tokenizer, conversations, each_member=True), before - before.mean(0))


@pytest.mark.parametrize("layout", ["padded", "packed", "shared_prefix", "auto"])
def test_score_takes_an_ensemble(layout: LayoutSetting) -> None:
    conversations = [[*row.prompt, *row.chosen] for row in SyntheticSource(3, split="train")]
    members, tokenizer = [toy_model(seed, dtype="float64") for seed in (0, 1)], world_tokenizer()
    found = score(RewardEnsemble(members, "worst"), tokenizer, conversations, layout=layout)
    assert RewardEnsemble(members).fast_layouts == members[0].fast_layouts
    apart = [score(member, tokenizer, conversations, layout=layout) for member in members]
    assert_same(found, torch.stack(apart).amin(0))


def test_lightning_tests_an_ensemble_of_one_as_its_member(tmp_path: Path) -> None:
    module = toy_module(config={"dtype": "float64"})
    ensemble = BaselineRM(RewardEnsemble([module.model]), module.optimizer)
    expected, found = (toy_trainer(tmp_path).test(one, toy_data(), verbose=False)[0] for one in (module, ensemble))
    assert found == same(expected)


def test_lightning_trains_every_member(tmp_path: Path) -> None:
    members = [toy_model(0), toy_model(1)]
    before = [{name: value.clone() for name, value in member.state_dict().items()} for member in members]
    module = BaselineRM(RewardEnsemble(members), partial(torch.optim.SGD, lr=0.1), head_lr=0.2)
    toy_trainer(tmp_path, max_steps=1).fit(module, toy_data())
    for member, old in zip(members, before, strict=True):
        moved = [name for name, value in member.named_parameters() if not torch.equal(value, old[name])]
        assert "backbone.score.weight" in moved
        assert len(moved) == len(list(member.parameters()))


def test_a_saved_ensemble_is_read_back(tmp_path: Path) -> None:
    ensemble = RewardEnsemble(tiny_members(), "mean_minus_variance", 0.3, [0.5, 0.1, -2.0]).eval()
    tokens = tokens_for(ensemble)
    RewardEnsemble(tiny_members("llama", 1)).save_pretrained(tmp_path)
    ensemble.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "ensemble.json").read_text())["members"] == ["member_0", "member_1", "member_2"]
    assert not list(tmp_path.glob(".draft*"))
    found = RewardEnsemble.load(tmp_path, dtype="float64").eval()
    assert (found.how, found.lam, found.offsets.tolist()) == ("mean_minus_variance", 0.3, ensemble.offsets.tolist())
    assert torch.equal(found(tokens).reward, ensemble(tokens).reward)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "member_2")
    assert torch.equal(classifier.score.weight, next(ensemble.members[2].head_parameters()))


def test_a_saved_ensemble_is_a_voter(tmp_path: Path) -> None:
    """In annotation, and wherever a run's or a model's folder is named."""
    ensemble = RewardEnsemble([toy_model(seed=seed) for seed in range(2)], "worst").eval()
    ensemble.save_pretrained(tmp_path / "both", world_tokenizer())
    toy_model(seed=2).save_pretrained(tmp_path / "single", world_tokenizer())
    voters = [Voter(name, folder) for name in ("both", "single") if (folder := find_folder(tmp_path / name))]
    assert len({voter.digest for voter in voters}) == 2
    votes = annotate(SyntheticSource(6, split="train"), voters, tmp_path / "strength.parquet")
    expected = score(ensemble, world_tokenizer(), [(*row.prompt, *row.chosen) for row in pairs_of(6)])
    assert votes.chosen[:, 0].tolist() == roughly(expected.tolist())


@pytest.mark.parametrize("at", ["embeddings", "features"])
def test_dropout_and_parts_are_those_of_every_member(at: DropoutAt) -> None:
    """Also of members on one backbone; one place takes the place of another, in copies too, and None takes it away."""
    ensemble, members = RewardEnsemble(tiny_members()), MemberRewardModel.of(tiny_model(), Members(num_members=2))
    for model in (ensemble, members):
        tokens = tokens_for(model)
        plain = model(tokens).reward
        add_dropout(model, "features" if at == "embeddings" else "embeddings", 0.3)
        copied = copy.deepcopy(model)
        for dropped in (model, copied):
            add_dropout(dropped, at, 0.3)
            assert not torch.equal(dropped(tokens).reward, dropped(tokens).reward)
            add_dropout(dropped, at, 0.0)
            assert_same(dropped(tokens).reward, plain)
            add_dropout(dropped, at, 0.3)
            add_dropout(dropped, None, 0.0)
            assert_same(dropped(tokens).reward, plain)
    last = {name for name, _ in choose_parameters(ensemble, "last:1")}
    single = {name for name, _ in choose_parameters(tiny_model(), "last:1")}
    assert last == {f"members.{number}.{name}" for number in range(3) for name in single}


def test_members_are_read_by_a_pattern_or_a_list(tmp_path: Path) -> None:
    members = tiny_members(number=2)
    for number, member in enumerate(members):
        member.save_pretrained(tmp_path / f"voter_{number}")
    tokens = tokens_for(members[0])
    for path in (f"{tmp_path}/voter_*", [tmp_path / "voter_0", tmp_path / "voter_1"]):
        ensemble = RewardEnsemble.from_pretrained(path, how="median", dtype="float64").eval()
        assert torch.equal(ensemble.votes(tokens), separate(members, tokens))
    assert len(RewardEnsemble.from_pretrained(tmp_path / "voter_0").members) == 1


def test_what_cannot_be_an_ensemble_is_named(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="at least one reward model"):
        RewardEnsemble([])
    with pytest.raises(ValueError, match="member 1 has model_type='qwen3' and member 0 has 'llama'"):
        RewardEnsemble([model, tiny_model("qwen3")])
    with pytest.raises(ValueError, match="member 1 has pad_id=0 and member 0 has 1"):
        RewardEnsemble([model, tiny_model(pad_id=0)])
    with pytest.raises(ValueError, match="member 1 is a RewardEnsemble"):
        RewardEnsemble([model, RewardEnsemble([model])])
    with pytest.raises(ValueError, match=r"offsets has shape \(1,\) for 2 members"):
        RewardEnsemble([model, model], offsets=[0.0])
    with pytest.raises(ValueError, match="how='best' is not an aggregate; choose one of: mean, median"):
        RewardEnsemble([model], how="best")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="lam=-1"):
        RewardEnsemble([model], lam=-1)
    with pytest.raises(ValueError, match=r"path='.*none_\*' matches no folder"):
        RewardEnsemble.from_pretrained(f"{tmp_path}/none_*")
    with pytest.raises(ValueError, match=r"no ensemble\.json"):
        RewardEnsemble.load(tmp_path)
    with pytest.raises(ValueError, match="lm_loss=0"):
        RewardEnsemble([model])(tokens_for(model), keep_hidden=True)
    for wrong in (torch.empty(0, 1), torch.zeros(4), torch.zeros(4, 2)):
        with pytest.raises(ValueError, match=r"rewards of shape \(N, 1\).*each_member=True"):
            RewardEnsemble([model]).centre(wrong)
