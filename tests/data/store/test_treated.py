from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import PairRow, Source
from lightning_rm.data.sources.records import RecordSource
from lightning_rm.data.store.treated import named_treatments, treated
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs
from lightning_rm.strength import (
    Strength,
    Targets,
    Treatment,
    adaptive_margin,
    decile,
    drop,
    flip,
    label_smoothing,
    select,
    soft_label,
    weight,
)
from lightning_rm.strength.policies import agreement, flip_weakest
from tests.toy import Rows

NUM = 40


def annotated(num_pairs: int = NUM) -> Rows:
    """Pair i has the votes i - 10 and i - 8, but every eighth has none."""
    rows = list(SyntheticSource(num_pairs, split="train"))
    return Rows(
        [
            row if i % 8 == 7 else replace(row, strength_mean=i - 9.0, strength_std=1.0, votes=(i - 10.0, i - 8.0))
            for i, row in enumerate(rows)
        ]
    )


def data(cache_dir: Path, *treatments: object, source: Source | None = None, **options: object) -> PreferenceDataModule:
    module = PreferenceDataModule(
        world_tokenizer(),
        train=source or annotated(),
        val=SyntheticSource(6, split="val"),
        cache_dir=cache_dir,
        treatments=treatments,  # pyright: ignore[reportArgumentType]
        **{"batch_pairs": NUM, "order": "random", **options},  # pyright: ignore[reportArgumentType]
    )
    module.setup("fit")
    return module


def test_the_strengths_reach_the_data_set_and_the_batch(tmp_path: Path) -> None:
    pairs = data(tmp_path).datasets["train"]
    known = [i for i in range(NUM) if i % 8 != 7]
    assert pairs.strength.mean[known].tolist() == [i - 9.0 for i in known]
    assert pairs.strength.share[known].tolist() == [
        0.5 * ((i > 10) + 0.5 * (i == 10)) + 0.5 * ((i > 8) + 0.5 * (i == 8)) for i in known
    ]
    assert np.isnan(pairs.strength.mean[7::8]).all()
    assert pairs.source_row.tolist() == list(range(NUM))
    torch.testing.assert_close(pairs.columns([3, 7])["strength"], torch.tensor([-6.0, float("nan")]), equal_nan=True)


def record(i: int) -> dict[str, object]:
    """Pair i has the votes i - 10 and i - 8."""
    votes = [i - 10.0, i - 8.0]
    return {"id": i, "prompt": f"w{i}", "chosen": "w1 w2", "rejected": "w3", "strength_mean": i - 9.0, "votes": votes}


def other_way_round(row: dict[str, Any]) -> dict[str, object]:
    """The same preference, told of the responses in the other order."""
    votes = [-vote for vote in row["votes"]]
    sides = {"chosen": row["rejected"], "rejected": row["chosen"]}
    return {**row, **sides, "label": 0, "strength_mean": -row["strength_mean"], "votes": votes}


@pytest.mark.parametrize(
    "treatment",
    [
        partial(flip, below_quantile=0.2),
        partial(flip, below_mean=0.0),
        partial(drop, ranges=[(0.0, 0.3)]),
        partial(decile, number=1),
        partial(label_smoothing, pairs="negative"),
        soft_label,
        adaptive_margin,
        weight,
        partial(flip_weakest, share=0.5),
        partial(agreement, agree=0.8),
    ],
    ids=lambda treatment: getattr(treatment, "func", treatment).__name__,
)
def test_it_makes_no_difference_which_way_round_a_file_has_its_pairs(
    tmp_path: Path, treatment: Callable[..., Targets]
) -> None:
    rows = [record(i) for i in range(20)]
    mixed = [other_way_round(row) if i % 2 else row for i, row in enumerate(rows)]
    one, other = (RecordSource(given) for given in (rows, mixed))
    plain, turned = (data(tmp_path, treatment, source=source).datasets["train"] for source in (one, other))
    assert turned.report.changes.pop("turned round, since the label is below 1/2") == 10
    assert turned.report.changes == plain.report.changes
    assert [turned.sample(i) for i in range(len(turned))] == [plain.sample(i) for i in range(len(plain))]
    every = range(len(plain))
    torch.testing.assert_close(turned.columns(every), plain.columns(every), equal_nan=True, rtol=0, atol=0)


def test_treatments_change_what_a_batch_is_trained_towards(tmp_path: Path) -> None:
    module = data(tmp_path, partial(flip, below_mean=0.0), adaptive_margin, partial(label_smoothing, alpha=0.1))
    [batch] = list(module.train_dataloader())
    known = ~batch.strength.isnan()
    negative = known & (batch.strength < 0)
    assert negative.sum() == 8
    torch.testing.assert_close(batch.label[negative], torch.full((8,), 0.1))
    torch.testing.assert_close(batch.label[~negative], torch.full((NUM - 8,), 0.9))
    torch.testing.assert_close(batch.margin[known], batch.strength[known])
    assert (batch.margin[~known] == 0).all()


def test_validation_pairs_are_never_treated(tmp_path: Path) -> None:
    module = data(tmp_path, partial(flip, below_quantile=1.0))
    [loader] = module.val_dataloader()
    assert all((batch.label == 1).all() for batch in loader)


def test_pairs_left_out_are_gone_and_counted(tmp_path: Path) -> None:
    module = data(tmp_path, partial(drop, ranges=[[0.0, 0.2]]), partial(flip, below_quantile=0.4), weight)
    pairs, report = module.datasets["train"], module.reports["train"]
    assert len(pairs) == report.kept == NUM - 7
    assert report.read == report.kept + sum(report.reasons.values())
    assert report.reasons == {"left out by treatment": 7}
    assert report.changes["label flipped"] == 7
    assert "1. drop, 2. flip, 3. weight; strengths of 35 pairs" in report.notes[-1]
    whole = data(tmp_path).datasets["train"]
    for i in range(len(pairs)):
        row = int(pairs.source_row[i])
        assert pairs.sample(i) == replace(whole.sample(row), row=i)
        assert (pairs.text(i), pairs.votes(i)) == (whole.text(row), whole.votes(row))
    np.testing.assert_array_equal(pairs.lengths, whole.lengths[pairs.source_row])
    rows = [int(row) for batch in module.train_dataloader() for row in batch.row]
    assert sorted(rows) == list(range(NUM - 7))


def test_flips_that_a_soft_label_undoes_are_not_reported(tmp_path: Path) -> None:
    module = data(tmp_path, partial(flip, below_mean=0.0), soft_label)
    assert module.reports["train"].changes == {"label softened": NUM - NUM // 8}


def test_a_treated_set_survives_a_pickle(tmp_path: Path) -> None:
    pairs = data(tmp_path, partial(decile, number=3), partial(flip, below_quantile=1.0)).datasets["train"]
    again = pickle.loads(pickle.dumps(pairs))
    assert [again.sample(i) for i in range(len(pairs))] == [pairs.sample(i) for i in range(len(pairs))]
    torch.testing.assert_close(again.columns([0, 1]), pairs.columns([0, 1]), equal_nan=True)


def test_named_treatments_keep_their_names(tmp_path: Path) -> None:
    pairs = prepare_pairs(annotated(), world_tokenizer(), TokenizePolicy(), tmp_path, "train")
    result = treated(pairs, {"weakest": partial(select, ranges=[[0.0, 0.5]])})
    assert result.report.notes[-1].startswith("train: weakest; ")
    assert treated(pairs, {}) is pairs


def test_without_strengths_it_says_how_to_get_them(tmp_path: Path) -> None:
    plain = Rows([row for row in SyntheticSource(8, split="train") if isinstance(row, PairRow)])
    with pytest.raises(ValueError, match=r"is by preference strength.*lightning-rm annotate"):
        data(tmp_path, adaptive_margin, source=plain)
    with pytest.raises(ValueError, match="leave no pair of 40"):
        data(tmp_path, partial(select, ranges=[[0.0, 0.5]]), partial(drop, ranges=[[0.0, 0.5]]))


def halved(strength: Strength, targets: Targets) -> Targets:
    return replace(targets, weight=np.where(strength.mean < 0, 0.5, 1.0))


def halved_in_place(strength: Strength, targets: Targets) -> Targets:
    targets.weight[strength.mean < 0] = 0.5
    return targets


@pytest.mark.parametrize("own", [halved, halved_in_place])
def test_a_treatment_of_ones_own_is_counted_and_known_by_its_name(own: Treatment, tmp_path: Path) -> None:
    """Of the pairs 0 to 8, whose strength is negative, all but the seventh are annotated."""
    module = data(tmp_path, own)
    pairs = module.datasets["train"]
    assert pairs.targets().weight.tolist() == [0.5 if i < 9 and i != 7 else 1.0 for i in range(NUM)]
    assert pairs.changed == {"weight": [f"1. {own.__name__}"]}  # pyright: ignore[reportFunctionMemberAccess]
    assert module.reports["train"].changes == {"weighted": 8}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda _: None, "it returned an object of the type NoneType"),
        (lambda targets: replace(targets, weight=0.5), "its weight is of the type float"),
        (lambda targets: replace(targets, label=torch.ones(NUM)), "its label is of the type Tensor"),
        (lambda targets: replace(targets, margin=np.ones(3)), r"its margin is of float64 in the shape \(3,\)"),
        (lambda targets: replace(targets, kept=np.ones(NUM)), r"its kept is of float64 .* not a boolean for each"),
        (lambda targets: replace(targets, margin=targets.margin * np.nan), "40 of 40 pairs a margin that .* nan;"),
        (lambda targets: replace(targets, weight=-targets.weight), "40 of 40 pairs a weight .* -1.0; .* 0 or more"),
    ],
)
def test_what_a_treatment_must_not_give_is_told(made: Callable[[Targets], Any], told: str, tmp_path: Path) -> None:
    def own(_: Strength, targets: Targets) -> Any:
        return made(targets)

    with pytest.raises(ValueError, match=f"treatment 1. own .*{told}"):
        data(tmp_path, own)


@pytest.mark.parametrize(("given", "told"), [(halved, "is halved alone"), (["flip"], "holds 'flip'"), ("flip", "text")])
def test_treatments_are_functions_in_a_list(given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"treatments {told}.*\[partial\(flip, below_quantile=0.1\)\]|{told} 'flip'"):
        named_treatments(given)


@pytest.mark.parametrize(("order", "sign"), [("strongest_first", -1), ("weakest_first", 1)])
def test_a_curriculum_goes_by_strength(tmp_path: Path, order: str, sign: int) -> None:
    module = data(tmp_path, order=order, batch_pairs=4)
    for _ in range(2):
        strengths = [value for batch in module.train_dataloader() for value in batch.strength.tolist()]
        known = [value for value in strengths if value == value]
        assert known == sorted(known, key=lambda value: sign * value)
        assert all(value != value for value in strengths[len(known) :])


def test_a_curriculum_needs_strengths(tmp_path: Path) -> None:
    plain = Rows([row for row in SyntheticSource(8, split="train") if isinstance(row, PairRow)])
    with pytest.raises(ValueError, match="order='weakest_first' needs preference strengths"):
        data(tmp_path, source=plain, order="weakest_first").train_dataloader()
