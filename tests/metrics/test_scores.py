"""Metrics of rewards against scores: hand-made numbers, torchmetrics' own, and what cannot be measured."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

from lightning_rm.metrics.scores import ScoreMetrics, ranks, score_metric_names
from tests.float64 import same


def test_ranks_of_equal_values_are_their_mean() -> None:
    values = torch.tensor([7.0, 5.0, torch.nan, 7.0], dtype=torch.float64)
    assert ranks(values).nan_to_num(0).tolist() == [2.5, 1.0, 0.0, 2.5]


def test_scores_by_numbers_and_without_those_that_nobody_gave() -> None:
    """Rewards 1 2 4 of the scores 0 2 1: means 7/3 and 1; (4/3 - 1/3 + 0) / sqrt(14/3 * 2); ranks 1 2 3 and 1 3 2."""
    metric = ScoreMetrics()
    metric.update(torch.tensor([1.0, 9.0, 2.0]), torch.tensor([0.0, torch.nan, 2.0]))
    metric.update(torch.tensor([4.0]), torch.tensor([1.0]))
    metric.update(torch.empty(0), torch.empty(0))
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found.keys() == score_metric_names()
    assert found["score_correlation"] == same(1 / (28 / 3) ** 0.5)
    assert found["score_rank_correlation"] == same(0.5)
    assert found["num_scores"] == 3


def test_scores_as_torchmetrics_has_them_in_any_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(50, generator=generator, dtype=torch.float64).round(decimals=1)
    score = torch.randint(5, (50,), generator=generator).double() + reward
    metric = ScoreMetrics()
    for part in (slice(0, 7), slice(7, 50)):
        metric.update(reward[part], score[part])
    found = metric.compute()
    assert found["score_correlation"].item() == same(pearson_corrcoef(reward, score).item())
    theirs = spearman_corrcoef(reward, score).item()  # with 1e-6 added to the divisor
    assert found["score_rank_correlation"].item() == pytest.approx(theirs, abs=1e-5)


def test_a_constant_and_a_diverged_model_correlate_with_nothing() -> None:
    for reward in ([1.0, 1.0], [1.0, torch.nan]):
        metric = ScoreMetrics()
        metric.update(torch.tensor(reward), torch.tensor([0.0, 1.0]))
        values = [value for name, value in metric.compute().items() if name != "num_scores"]
        assert all(value.isnan() for value in values)
