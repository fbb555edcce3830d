"""The methods beside the ranking loss: each step by its reference, what each refuses, what each exports."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_rm.batch import PreferenceBatch, preference_batch
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.losses import list_shares, ranking_loss, response_rank_loss, spread_groups
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.odin import OdinRM
from lightning_rm.modules.ordinal import OrdinalRM
from lightning_rm.modules.regression import RegressionRM
from lightning_rm.modules.response_rank import ResponseRankRM
from lightning_rm.modules.robust import RobustRM
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.voters import VotersRM, plausible_to_others
from lightning_rm.strength import levels
from tests import reference
from tests.float64 import assert_same, same
from tests.toy import Rows, toy_data, toy_model, toy_trainer, weights

ADAMW = partial(torch.optim.AdamW, lr=5e-3)


@pytest.fixture(scope="module")
def tokens() -> Any:
    data = toy_data(4)
    data.setup("fit")
    return next(iter(data.train_dataloader())).tokens


def batch_of(tokens: Any, **columns: Any) -> PreferenceBatch:
    return preference_batch(tokens, **columns)


def leveled(num_pairs: int = 24, **options: Any) -> SyntheticSource:
    return SyntheticSource(num_pairs, levels=3, **options)


def data_of(tmp_path: Path, source: Any, **options: Any) -> PreferenceDataModule:
    return PreferenceDataModule(
        world_tokenizer(),
        train=source,
        val=SyntheticSource(4, split="val"),
        cache_dir=tmp_path,
        **{"batch_pairs": 8, **options},
    )


# Ordinal


def test_ordinal_by_its_reference(tokens: Any) -> None:
    level = torch.tensor([2.0, 0.0, -1.0, 1.0])
    module = OrdinalRM(toy_model(dtype="float64"), ADAMW, num_levels=2, threshold_penalty=0.1).double()
    batch = batch_of(tokens, level=level, weight=torch.tensor([1.0, 2.0, 1.0, 1.0]))
    output = module(batch)
    losses = module.losses(batch, output)
    thresholds = module.thresholds().tolist()
    margins = (output.chosen - output.rejected).tolist()
    of_pairs = [
        weight * reference.ordinal(d, int(z), thresholds)
        for d, z, weight in zip(margins, level.tolist(), (1, 2, 1, 1), strict=True)
    ]
    penalty = 0.1 * sum(threshold**2 for threshold in thresholds)
    assert losses["loss"].item() == same(sum(of_pairs) / 4 + penalty)


def test_thresholds_stay_in_order_while_they_are_learned(tmp_path: Path) -> None:
    module = OrdinalRM(toy_model(), partial(torch.optim.SGD, lr=3.0), num_levels=3)
    before = module.thresholds().tolist()
    data = data_of(tmp_path, leveled(), ties="keep", treatments=[levels])
    toy_trainer(tmp_path, max_epochs=3).fit(module, data)
    after = module.thresholds().tolist()
    assert after != before
    assert 0 < after[0] < after[1] < after[2]
    assert OrdinalRM(toy_model(), ADAMW, ties=False).thresholds()[0].item() == 0


@pytest.mark.parametrize(
    ("source", "options", "module", "message"),
    [
        (SyntheticSource(8), {}, {}, "needs a level for every pair"),
        (leveled(), {"treatments": [levels], "ties": "keep"}, {"num_levels": 1}, "module.num_levels=1"),
        (leveled(), {"treatments": [levels], "ties": "keep"}, {"ties": False}, "module.ties=false"),
    ],
)
def test_levels_that_do_not_fit_are_said(
    tmp_path: Path, source: Any, options: dict[str, Any], module: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        toy_trainer(tmp_path).fit(OrdinalRM(toy_model(), ADAMW, **module), data_of(tmp_path, source, **options))


# ResponseRank


def test_response_rank_goes_by_label_and_leaves_ties_unranked(tokens: Any) -> None:
    label, strength = torch.tensor([1.0, 0.0, 0.5, 1.0]), torch.tensor([2.0, -3.0, 0.0, 1.0])
    module = ResponseRankRM(toy_model(dtype="float64"), ADAMW, group_size=2)
    batch = batch_of(tokens, label=label, strength=strength)
    output = module(batch)
    side = torch.tensor([1.0, -1.0, 1.0, 1.0])
    margin, strength = side * (output.chosen - output.rejected), side * strength
    expected = response_rank_loss(margin, strength, spread_groups(strength, 2), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert_same(module.losses(batch, output)["loss"], expected)
    alone = ResponseRankRM(module.model, ADAMW, group_size=1)
    plain = batch_of(tokens)
    assert_same(alone.losses(plain, output)["loss"], ranking_loss(output.chosen, output.rejected))
    assert not alone.needs_strengths


@pytest.mark.parametrize(
    ("make", "batch_pairs", "wanted"),
    [
        (partial(ResponseRankRM, group_size=6), 4, 6),
        (partial(RobustRM, trim=0.2), 4, 5),
        (OdinRM, 1, 2),
        (partial(BaselineRM, length_penalty=1), 1, 2),
    ],
)
def test_a_micro_batch_that_is_too_small_for_a_method_is_said(
    tmp_path: Path, make: Any, batch_pairs: int, wanted: int
) -> None:
    for enough in (True, False):
        module, number = make(toy_model(), ADAMW), wanted if enough else batch_pairs
        data = data_of(tmp_path, leveled(), batch_pairs=number)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            toy_trainer(tmp_path, max_steps=1).fit(module, data)
        said = [str(each.message) for each in caught if "together, and the first one has" in str(each.message)]
        assert len(said) == (0 if enough else 1)
        assert enough or said[0].startswith(f"{type(module).__name__} looks at {wanted} pairs of a micro-batch")


@pytest.mark.parametrize("make", [BaselineRM, StrengthAwareRM, OrdinalRM, RegressionRM])
def test_pairs_that_all_have_the_weight_0_are_refused(tmp_path: Path, make: Any) -> None:
    source = [replace(row, weight=0.0) for row in leveled(4)]
    data = data_of(tmp_path, Rows(source), ties="keep", treatments=[levels])
    with pytest.raises(ValueError, match="all 4 training pairs have the weight 0"):
        toy_trainer(tmp_path).fit(make(toy_model(), ADAMW), data)


@pytest.mark.parametrize("method", [BaselineRM, StrengthAwareRM])
def test_lists_of_one_batch_are_those_of_two_micro_batches(tokens: Any, method: Any) -> None:
    """A list of three pairs and one of one, centred: together, and by themselves with a scale that counts lists."""
    module = method(toy_model(dtype="float64"), ADAMW, centering=0.1)
    whole = batch_of(tokens, group=torch.tensor([0, 0, 0, 1]))
    whole = replace(whole, weight=list_shares(whole.group))
    output = module(whole)
    together = module.losses(whole, output)
    apart: list[dict[str, Tensor]] = []
    for part in (slice(0, 3), slice(3, 4)):
        columns = {name: getattr(whole, name)[part] for name in ("label", "margin", "group")}
        batch = replace(whole, weight=torch.ones(len(columns["label"])), **columns)
        apart.append(module.losses(batch, replace(output, reward=output.reward[:, part])))
    for name, value in together.items():
        assert value.item() == same(sum(losses[name].item() for losses in apart) / 2), name


# Noise


def test_trimming_leaves_the_largest_losses_out(tokens: Any) -> None:
    module = RobustRM(toy_model(dtype="float64"), ADAMW, trim=0.5)
    batch = batch_of(tokens)
    output = module(batch)
    margins = sorted((output.chosen - output.rejected).tolist())
    losses = module.losses(batch, output)
    assert losses["loss"].item() == same(-sum(map(reference.log_sigmoid, margins[2:])) / 2)
    assert losses["kept"].item() == 0.5
    order = (output.rejected - output.chosen).argsort().argsort()  # what weighs much is left out for its margin alone
    weighed = module.losses(batch_of(tokens, weight=1.0 + order), output)["loss"].item()
    assert weighed == same(-sum(w * reference.log_sigmoid(d) for w, d in zip((2, 1), margins[2:], strict=True)) / 2)
    later = RobustRM(module.model, ADAMW, trim=0.5, trim_after=3)
    assert_same(later.losses(batch, output)["loss"], ranking_loss(output.chosen, output.rejected))
    assert later.losses(batch, output)["kept"].item() == 1  # or the log that the third step falls into would say less
    with pytest.raises(ValueError, match="trim=1"):
        RobustRM(toy_model(), ADAMW, trim=1)
    with pytest.raises(ValueError, match="trim_after=-1; give 0 or more"):
        RobustRM(toy_model(), ADAMW, trim_after=-1)


def test_co_teaching_leaves_out_what_the_others_doubt(tokens: Any) -> None:
    margin = torch.tensor([[3.0, 1.0, 2.0], [-1.0, 1.0, -5.0], [-1.0, 1.0, -5.0]])
    plausible = plausible_to_others(margin, torch.tensor([1.0, 0.0, 0.5]))
    assert plausible.tolist() == [[0, 0, 1], [1, 0, 1], [1, 0, 1]]
    model = MemberRewardModel.of(toy_model(dtype="float64"), Members(3))
    with pytest.raises(ValueError, match="co_teaching_after=-1; give 0 or more"):
        VotersRM(model, ADAMW, co_teaching_after=-1)
    module = VotersRM(model, ADAMW, bootstrap=False, co_teaching_after=0)
    batch = batch_of(tokens)
    output = module(batch)
    weight = plausible_to_others(output.chosen - output.rejected, batch.label)
    losses = module.losses(batch, output)
    assert_same(losses["loss"], ranking_loss(output.chosen, output.rejected, weight=weight))
    assert losses["plausible"].item() == same(float(weight.mean()))
    later = VotersRM(model, ADAMW, bootstrap=False, co_teaching_after=3).losses(batch, output)
    assert_same(later["loss"], ranking_loss(output.chosen, output.rejected))
    assert later["plausible"].item() == same(float(weight.mean()))


# Length


def test_odin_is_a_ranking_loss_of_two_heads_and_their_correlations(tokens: Any) -> None:
    length = torch.tensor([[5, 3, 8, 9], [2, 7, 4, 1]])
    module = OdinRM(toy_model(dtype="float64"), ADAMW, length_weight=0.5, orthogonal_weight=2.0).double()
    batch = batch_of(tokens, length=length)
    output = module(batch)
    weight = module.length_head.weight[0]
    of_length = output.feature @ weight
    both = output.reward + of_length
    flat = [values.T.flatten().tolist() for values in (output.reward, of_length, length.double())]
    (head,) = module.model.head_parameters()
    cosine = float(head[0] @ weight / head.norm() / weight.norm())
    expected = reference.ranking_loss(both[0].tolist(), both[1].tolist(), [1.0] * 4, [0.0] * 4, [1.0] * 4)
    expected += 0.5 * (abs(reference.pearson(flat[0], flat[2])) - reference.pearson(flat[1], flat[2]))
    assert module.losses(batch, output)["loss"].item() == same(expected + 2.0 * abs(cosine))


def test_odin_exports_the_quality_head_alone(tmp_path: Path) -> None:
    module = OdinRM(toy_model(), ADAMW)
    toy_trainer(tmp_path, max_steps=2).fit(module, toy_data(8))
    module.export(tmp_path / "model", world_tokenizer())
    loaded = RewardModel.from_pretrained(tmp_path / "model")
    assert loaded.state_dict().keys() == module.model.state_dict().keys()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, module.model.state_dict()[name])


def test_penalties_over_a_batch_are_parts_of_the_baseline(tokens: Any) -> None:
    length = torch.tensor([[5, 3, 8, 9], [2, 7, 4, 1]])
    module = BaselineRM(toy_model(dtype="float64"), ADAMW, batch_centering=0.5, length_penalty=2.0)
    batch = batch_of(tokens, length=length)
    output = module(batch)
    ranking = ranking_loss(output.chosen, output.rejected)
    mean = float(output.reward.mean())
    rho = reference.pearson(output.reward.flatten().tolist(), length.double().flatten().tolist())
    assert module.losses(batch, output)["loss"].item() == same(float(ranking) + 0.5 * mean**2 + 2 * abs(rho))
    assert_same(module.diagnostics()["feature_norm_std"], output.feature.norm(dim=-1).std())
    other = replace(output, reward=1 - 2 * output.reward)  # as another member might say, whose mean is another
    of_members = replace(output, reward=torch.stack([output.reward, other.reward], 1))
    alone = [module.losses(batch, each)["loss"].item() for each in (output, other)]
    assert module.losses(batch, of_members)["loss"].item() == same(sum(alone) / 2)
    assert BaselineRM(module.model, ADAMW).diagnostics() == {}


# Regression


class Scored:
    """Responses of the made world with two attributes, of which every third has the first alone."""

    def __init__(self, num_rows: int, k: int) -> None:
        self.rows = [
            replace(row, scores=tuple(self._scores(i, gold) for i, gold in enumerate(row.gold))).only(range(k))
            for row in SyntheticGroups(num_rows, k=2)
        ]

    def _scores(self, i: int, gold: float) -> dict[str, float]:
        return {"helpful": gold} if i % 3 == 0 else {"helpful": gold, "brief": -gold}

    def fingerprint(self) -> str:
        return repr(self.rows)

    def __iter__(self) -> Any:
        return iter(self.rows)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_regression_is_over_the_scores_that_are_known(tokens: Any, loss: Any) -> None:
    nan = torch.nan
    scores = torch.tensor([[[4.0], [nan], [0.0], [nan]], [[1.0], [2.0], [3.0], [nan]]])
    module = RegressionRM(toy_model(dtype="float64"), ADAMW, loss=loss, bounds=(0, 4))
    batch = batch_of(tokens, scores=scores)
    output = module(batch)

    def of(reward: Tensor, score: float) -> float:
        if loss == "mse":
            return float(reward - score / 4) ** 2
        return reference.ranking_loss([float(reward)], [0.0], [score / 4], [0.0], [1.0])

    chosen, rejected = output.reward
    expected = [
        (of(chosen[0], 4) + of(rejected[0], 1)) / 2,
        of(rejected[1], 2),
        (of(chosen[2], 0) + of(rejected[2], 3)) / 2,
        0.0,
    ]
    assert module.losses(batch, output)["loss"].item() == same(sum(expected) / 4)
    # Scores 3, 1, 1 make two pairs, of which the best response is in both: the three count alike, in a list's mean.
    lists = replace(
        batch,
        scores=torch.tensor([[3.0, 3, 2, 1], [1.0, 1, 0, 4]])[..., None],
        group=torch.tensor([0, 0, 1, 2]),
        side=torch.tensor([[0, 0, 0, 1], [1, 2, 1, 0]]),
        weight=torch.tensor([2 / 3, 2 / 3, 4 / 3, 4 / 3]),
    )
    of_lists = [
        (of(chosen[0], 3) + of(rejected[0], 1) + of(rejected[1], 1)) / 3,
        (of(chosen[2], 2) + of(rejected[2], 0)) / 2,
        (of(chosen[3], 1) + of(rejected[3], 4)) / 2,
    ]
    assert module.losses(lists, output)["loss"].item() == pytest.approx(sum(of_lists) / 3, rel=1e-7)  # weights


@pytest.mark.parametrize("attributes", [{"brief": -0.5, "helpful": 2.0}, {"brief": -1.0}], ids=["two", "one"])
def test_merged_heads_score_as_the_weighted_attributes_do(tmp_path: Path, attributes: dict[str, float]) -> None:
    module = RegressionRM(toy_model(dtype="float64"), ADAMW, attributes=attributes)
    data = data_of(tmp_path, Scored(12, k=2), ties="keep")
    toy_trainer(tmp_path, max_steps=2).fit(module, data)
    module.double()  # heads are trained in float32
    module.export(tmp_path / "model", world_tokenizer())
    batch = next(iter(data.val_dataloader()[0]))
    with torch.no_grad():
        feature = module(batch).feature
        assert module.heads is not None
        weighted = module.heads(feature) * torch.tensor([*attributes.values()])
        loaded = RewardModel.from_pretrained(tmp_path / "model", dtype="float64").eval()
        assert_same(loaded(batch.tokens).reward, weighted.sum(-1))


def test_the_model_has_the_attributes_head_wherever_it_is_asked(tmp_path: Path) -> None:
    """Between validations, after a training without any, and of a checkpoint of a step."""

    class Asked(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            assert_alike(pl_module, pl_module.measured_model(), batch)

    def assert_alike(module: RegressionRM, model: AnyRewardModel, batch: PreferenceBatch) -> None:
        with torch.no_grad():
            torch.testing.assert_close(model(batch.tokens).reward, module(batch).reward, rtol=1e-4, atol=1e-5)

    step = ModelCheckpoint(tmp_path, "step", every_n_train_steps=2)
    module = RegressionRM(toy_model(), ADAMW, attributes={"helpful": 1.0, "brief": 0.5})
    data = data_of(tmp_path, Scored(12, k=2), ties="keep")
    trainer = toy_trainer(tmp_path, limit_val_batches=0, callbacks=[Asked(), step], enable_checkpointing=True)
    trainer.fit(module, data)
    batch = next(iter(data.val_dataloader()[0]))
    assert_alike(module, module.model, batch)
    loaded = RegressionRM.load_from_checkpoint(step.best_model_path, attributes={"helpful": 1.0, "brief": 0.5})
    assert_alike(loaded, loaded.model, batch)


def test_rows_of_one_response_are_for_regression(tmp_path: Path) -> None:
    data = data_of(tmp_path, Scored(12, k=1))
    with pytest.raises(ValueError, match="module=regression"):
        toy_trainer(tmp_path).fit(BaselineRM(toy_model(), ADAMW), data)
    module = RegressionRM(toy_model(), ADAMW, attributes={"helpful": 1.0})
    before = weights(module)
    toy_trainer(tmp_path, max_steps=2).fit(module, data)
    assert any(not torch.equal(value, before[name]) for name, value in weights(module).items())
    pairs = data.train_pairs()
    assert pairs is not None
    pairs.num_tied = 2
    with pytest.warns(UserWarning, match="2 rows are left out.*data.ties=keep"):
        module.check_pairs(pairs)


@pytest.mark.parametrize("k", [1, 2])
def test_regression_is_measured_by_scores_and_keeps_the_best(tmp_path: Path, k: int) -> None:
    """Each response counts once, one that is alone and those of a pair."""
    data = PreferenceDataModule(
        world_tokenizer(), train=Scored(12, k=k), val=Scored(9, k=k), cache_dir=tmp_path, batch_pairs=4, ties="keep"
    )
    module = RegressionRM(toy_model(dtype="float64"), ADAMW, attributes={"helpful": 1.0})
    best = ModelCheckpoint(tmp_path, monitor="val/score_rank_correlation", mode="max")
    trainer = toy_trainer(tmp_path, max_epochs=2, callbacks=[best], enable_checkpointing=True)
    trainer.fit(module, data)
    assert best.best_model_score is not None
    found = trainer.validate(module, data, verbose=False)[0]
    rewards, scores = dict[tuple[int, int], float](), dict[tuple[int, int], float]()
    row = 0
    with torch.no_grad():
        for batch in data.val_dataloader()[0]:
            output = module(batch)
            helpful = batch.attributes.index("helpful")
            for pair in batch.valid.nonzero().flatten().tolist():
                for side in (0, 1):
                    name = (row + int(batch.group[pair]), int(batch.side[side, pair]))
                    rewards[name], scores[name] = (
                        output.reward[side, pair].item(),
                        batch.scores[side, pair, helpful].item(),
                    )
            row += int(batch.group.max()) + 1
    assert found["val/num_scores"] == len(rewards) == 9 * k
    both = torch.tensor([[rewards[name], scores[name]] for name in rewards], dtype=torch.float64)
    assert found["val/score_correlation"] == pytest.approx(torch.corrcoef(both.T)[0, 1].item(), abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "several attributes; give their weights"),
        ({"attributes": {"honest": 1.0}}, "names 'honest'"),
        ({"attributes": {"helpful": "high"}}, "the weight of 'helpful' is not a number"),
        ({"attributes": {"helpful": 1.0}, "loss": "bce"}, "module.bounds="),
    ],
)
def test_scores_that_do_not_fit_are_said(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_trainer(tmp_path).fit(RegressionRM(toy_model(), ADAMW, **options), data_of(tmp_path, Scored(12, k=2)))


@pytest.mark.parametrize(
    ("module", "option"),
    [
        (OdinRM, "length_weight"),
        (BaselineRM, "lm_loss"),
        (OrdinalRM, "threshold_penalty"),
        (StrengthAwareRM, "centering"),
    ],
)
def test_weights_in_a_loss_are_not_negative(module: Any, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=-1.0; give 0 or more"):
        module(toy_model(), ADAMW, **{option: -1.0})


# Lists


def test_plackett_luce_learns_the_order_of_a_list(tmp_path: Path) -> None:
    source = SyntheticGroups(12, k=4, scored=True)
    data = data_of(tmp_path, source)
    module = BaselineRM(toy_model(), ADAMW, list_loss="plackett_luce")
    trainer = toy_trainer(tmp_path, max_epochs=20)
    trainer.fit(module, data)
    assert trainer.callback_metrics["train_epoch/accuracy"] > 0.9


@pytest.mark.parametrize("list_loss", ["pairs", "plackett_luce"])
def test_a_logged_loss_is_the_mean_over_lists_of_uneven_micro_batches(tmp_path: Path, list_loss: Any) -> None:
    """Lists of 4, 1, 2 and 1 pairs: each counts once, one a micro-batch or all in one."""
    scores = ((2.0, 2.0, 1.0, 1.0), (2.0, 1.0), (2.0, 1.0, 1.0), (2.0, 1.0))
    rows = [
        replace(row, responses=row.responses[: len(of)], scores=tuple({"score": score} for score in of))
        for row, of in zip(SyntheticGroups(4, k=4), scores, strict=True)
    ]
    logged: list[float] = []
    for lists in (4, 1):
        module = BaselineRM(toy_model(dtype="float64"), partial(torch.optim.SGD, lr=0.0), list_loss=list_loss)
        trainer = toy_trainer(tmp_path, log_every_n_steps=4 // lists)
        trainer.fit(module, data_of(tmp_path, Rows(rows), batch_pairs=lists, order="random"))
        logged.append(float(trainer.callback_metrics["train/loss"]))
    assert logged[0] == same(logged[1])


def test_ties_have_no_place_in_an_order(tmp_path: Path) -> None:
    tied = [replace(row, scores=({"score": 2.0}, {"score": 1.0}, {"score": 1.0})) for row in SyntheticGroups(4, k=3)]
    module = BaselineRM(toy_model(), ADAMW, list_loss="plackett_luce")
    with pytest.raises(ValueError, match=r"4 training pairs are ties, and list_loss=plackett_luce.*data.ties=drop"):
        toy_trainer(tmp_path).fit(module, data_of(tmp_path, Rows(tied), ties="keep"))
    toy_trainer(tmp_path, max_steps=1).fit(module, data_of(tmp_path, Rows(tied)))
    assert module.global_step == 1
