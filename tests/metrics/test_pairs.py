from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import Metric

from lightning_rm.analysis.calibration import reliability
from lightning_rm.batch import PreferenceBatch, TokenBatch, preference_batch
from lightning_rm.metrics.groups import GroupMetrics
from lightning_rm.metrics.pairs import PairMetrics, pair_statistics
from lightning_rm.metrics.scores import ScoreMetrics
from lightning_rm.metrics.text import TextMetrics
from tests import reference
from tests.float64 import same
from tests.processes import run_ranks

NAMES = ("easy", "hard", "empty")


def make_batch(num_pairs: int, names: tuple[str, ...] = ("all",), **columns: torch.Tensor) -> PreferenceBatch:
    """A batch of pairs with the given columns; metrics never look at its tokens."""
    grid = torch.zeros(1, 1, dtype=torch.long)
    tokens = TokenBatch(grid, grid, grid, torch.zeros(2, num_pairs, dtype=torch.long), grid.bool())
    return dataclasses.replace(preference_batch(tokens, **columns), subset_names=names)


def make_pairs(num_pairs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, PreferenceBatch]:
    """Random rewards and a batch with hard, soft and undecided labels, ties, unknown clean labels and two subsets."""
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected = torch.randn(2, num_pairs, generator=generator, dtype=torch.float64).mul(2).add(5)
    rejected[::7] = chosen[::7]
    choices = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.7, 0.5], dtype=torch.float64)
    clean = torch.tensor([1.0, 0.0, float("nan")])
    length = torch.randint(1, 9, (2, num_pairs), generator=generator)
    batch = make_batch(
        num_pairs,
        NAMES,
        label=choices[torch.randint(0, len(choices), (num_pairs,), generator=generator)],
        clean=clean[torch.randint(0, 3, (num_pairs,), generator=generator)],
        length=length,
        subset=torch.randint(0, 2, (num_pairs,), generator=generator),
    )
    return chosen, rejected, batch


def expected_metrics(chosen: torch.Tensor, rejected: torch.Tensor, batch: PreferenceBatch) -> dict[str, float]:
    """The reference over all valid pairs, and over each subset that has some."""
    keep = [i for i in range(batch.num_pairs) if batch.valid[i]]
    groups = {"": keep} | {
        f"{name}/": [i for i in keep if batch.subset[i] == s] for s, name in enumerate(batch.subset_names)
    }
    values: dict[str, float] = {}
    for prefix, rows in groups.items():
        if not rows:
            continue
        metrics = reference.pair_metrics(
            chosen[rows].double().tolist(),
            rejected[rows].double().tolist(),
            batch.label[rows].double().tolist(),
            [None if math.isnan(c) else c for c in batch.clean[rows].tolist()],
            batch.length[0, rows].tolist(),
            batch.length[1, rows].tolist(),
        )
        values |= {prefix + name: value for name, value in metrics.items()}
    return values


def take(batch: PreferenceBatch, rows: slice | list[int]) -> PreferenceBatch:
    columns = {name: getattr(batch, name)[rows] for name in ("label", "clean", "subset", "valid")}
    return make_batch(len(columns["label"]), batch.subset_names, length=batch.length[:, rows], **columns)


def assert_metrics(actual: dict[str, torch.Tensor], expected: dict[str, float]) -> None:
    assert {name: float(value) for name, value in actual.items()} == same(expected)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_uneven_batches_give_the_reference_over_all_pairs(batch_size: int) -> None:
    chosen, rejected, batch = make_pairs(50)
    metrics = PairMetrics()
    for start in range(0, 50, batch_size):
        rows = slice(start, start + batch_size)
        metrics.update(chosen[rows], rejected[rows], take(batch, rows))
    assert_metrics(metrics.compute(), expected_metrics(chosen, rejected, batch))


def test_mean_of_batch_means_is_not_the_mean() -> None:
    """Batches of 11/11 and 1/2 right: means average to .75, but 12 of 13 pairs are right, .923."""
    metrics = PairMetrics()
    metrics.update(torch.ones(11), torch.zeros(11), make_batch(11))
    metrics.update(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), make_batch(2))
    assert float(metrics.compute()["accuracy"]) == same(12 / 13)


def test_pairs_that_are_not_valid_are_left_out_whatever_they_hold() -> None:
    chosen, rejected, batch = make_pairs(20)
    valid = torch.arange(20) % 4 != 0
    batch = dataclasses.replace(batch, valid=valid)
    chosen[~valid] = float("nan")
    rejected[~valid] = float("inf")
    metrics = PairMetrics()
    metrics.update(chosen, rejected, batch)
    assert_metrics(metrics.compute(), expected_metrics(chosen, rejected, batch))


def test_labels_beyond_probabilities_are_measured_against_as_the_nearer_end() -> None:
    """A corrected label of 4/3 is 1 and of -1/3 is 0: a likelihood and a calibration are of probabilities."""
    chosen, rejected = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    found, expected = (PairMetrics(), PairMetrics())
    found.update(chosen, rejected, make_batch(3, label=torch.tensor([4 / 3, -1 / 3, 0.25])))
    expected.update(chosen, rejected, make_batch(3, label=torch.tensor([1.0, 0.0, 0.25])))
    assert_metrics(found.compute(), {name: float(value) for name, value in expected.compute().items()})


def test_worked_example_of_accuracies() -> None:
    """Right, tie, wrong against a label of 0, and an undecided label that only the other means see.

    accuracy (1 + 1/2 + 0) / 3; the longer response is right, a tie, right: (1 + 1/2 + 1) / 3; clean known for two.
    """
    batch = make_batch(
        4,
        label=torch.tensor([1.0, 1.0, 0.0, 0.5]),
        length=torch.tensor([[5, 4, 2, 9], [3, 4, 6, 1]]),
        clean=torch.tensor([float("nan"), float("nan"), 1.0, 0.0]),
    )
    metrics = PairMetrics()
    metrics.update(torch.tensor([2.0, 1.0, 3.0, 7.0]), torch.tensor([1.0, 1.0, 1.0, 4.0]), batch)
    values = metrics.compute()
    assert float(values["accuracy"]) == same(0.5)
    assert float(values["length_accuracy"]) == same(2.5 / 3)
    assert float(values["clean_accuracy"]) == same(0.5)
    assert float(values["tie_rate"]) == 0.25
    assert float(values["num_pairs"]) == 4


def test_margins_of_bfloat16_models_are_float64_sums() -> None:
    """512 margins of 1 + 2^-9 in a module moved to bfloat16 after its first epoch: a bfloat16 sum would stop at 256."""
    metrics = PairMetrics()
    metrics.update(torch.tensor([1.0]), torch.tensor([0.0]), make_batch(1))
    metrics.reset()
    metrics.to(torch.bfloat16)
    for _ in range(512):
        metrics.update(torch.tensor([1 + 2**-9]), torch.tensor([0.0]), make_batch(1))
    assert float(metrics.compute()["margin"]) == 1 + 2**-9
    assert metrics.sums.dtype == torch.float64


def test_spread_of_rewards_with_a_large_offset() -> None:
    """Rewards 4096 ± 2^-8 keep their spread; equal rewards have exactly none, and no correlation with length."""
    offset = torch.tensor([4096.0, 4096.0])
    spread = torch.tensor([2**-8, 2**-8])
    metrics = PairMetrics()
    metrics.update(offset + spread, offset - spread, make_batch(2, length=torch.tensor([[3, 3], [1, 1]])))
    values = metrics.compute()
    # Squares near 2^24 end at 2^-28 in float64, and the variance is 2^-16: a 4,000th of it.
    assert float(values["reward_std"]) == pytest.approx(2**-8, rel=1e-3)
    assert float(values["length_correlation"]) == pytest.approx(1, rel=1e-3)

    constant = PairMetrics()
    equal = torch.full((50_000,), 7.7)
    constant.update(equal, equal, make_batch(50_000, length=torch.arange(100_000).view(2, -1)))
    assert float(constant.compute()["reward_std"]) == 0
    assert math.isnan(constant.compute()["length_correlation"])


def test_diverged_rewards_are_not_called_accurate() -> None:
    metrics = PairMetrics()
    metrics.update(torch.tensor([float("nan"), 1.0]), torch.zeros(2), make_batch(2))
    values = metrics.compute()
    assert all(math.isnan(values[name]) for name in ("accuracy", "nll", "brier", "calibration_error", "margin"))


def test_extreme_margins_are_finite() -> None:
    metrics = PairMetrics()
    metrics.update(torch.tensor([1000.0, -1000.0]), torch.zeros(2), make_batch(2))
    values = metrics.compute()
    assert float(values["nll"]) == same(500)
    assert float(values["brier"]) == same(0.5)
    assert float(values["calibration_error"]) == same(0.5)


def test_calibration_of_a_calibrated_model_is_near_zero() -> None:
    """Pairs come chosen first, drawn with p = sigmoid(|margin|): folded error about .0015, not 1 - mean(p), .35.

    The trap: with a target of 1 for every pair, p = sigmoid(margin) against 1 gives 1 - mean(p) exactly.
    """
    generator = torch.Generator().manual_seed(0)
    num_pairs = 200_000
    truth = torch.randn(num_pairs, generator=generator, dtype=torch.float64) * 1.5
    first_wins = torch.rand(num_pairs, generator=generator, dtype=torch.float64) < truth.sigmoid()
    margin = torch.where(first_wins, truth, -truth)
    metrics = PairMetrics()
    metrics.update(margin, torch.zeros_like(margin), make_batch(num_pairs))
    values = metrics.compute()
    trap = 1 - float(margin.sigmoid().mean())
    assert 0.3 < trap < 0.4
    assert float(values["calibration_error"]) < 0.004

    doubled = PairMetrics()
    doubled.update(2 * margin, torch.zeros_like(margin), make_batch(num_pairs))
    assert float(doubled.compute()["calibration_error"]) > 0.08


def test_calibration_of_soft_labels_that_the_rewards_equal_is_zero() -> None:
    label = torch.tensor([0.5, 0.6, 0.2, 0.9], dtype=torch.float64)
    metrics = PairMetrics()
    metrics.update(label.logit(), torch.zeros_like(label), make_batch(4, label=label))
    assert float(metrics.compute()["calibration_error"]) == same(0)


@settings(max_examples=50)
@given(
    pairs=st.lists(st.tuples(st.floats(-50, 50), st.sampled_from([0.0, 0.3, 0.5, 1.0])), min_size=1, max_size=30),
    num_bins=st.integers(1, 15),
)
def test_calibration_equals_the_reference_and_the_figure(pairs: list[tuple[float, float]], num_bins: int) -> None:
    margins, labels = (np.array(column) for column in zip(*pairs, strict=True))
    metrics = PairMetrics(num_bins=num_bins)
    batch = make_batch(len(pairs), label=torch.from_numpy(labels))
    metrics.update(torch.from_numpy(margins), torch.zeros(len(pairs)), batch)
    error = reference.folded_calibration_error(margins.tolist(), labels.tolist(), num_bins)
    assert float(metrics.compute()["calibration_error"]) == same(error)
    bins = reliability(margins, labels, num_bins)
    assert bins.calibration_error == same(error)
    assert bins.num_pairs.sum() == len(pairs)
    assert bins.num_pairs.shape == bins.confidence.shape == bins.accuracy.shape == (num_bins,)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_exchanging_the_responses_and_the_label_changes_nothing(seed: int) -> None:
    chosen, rejected, batch = make_pairs(12, seed)
    exchanged = dataclasses.replace(batch, label=1 - batch.label, clean=1 - batch.clean, length=batch.length.flip(0))
    one, other = PairMetrics(), PairMetrics()
    one.update(chosen, rejected, batch)
    other.update(rejected, chosen, exchanged)
    values, mirrored = one.compute(), other.compute()
    assert set(values) == set(mirrored)
    for name, value in values.items():
        sign = -1 if name.endswith("margin") else 1
        assert float(mirrored[name]) == same(sign * float(value))


def test_statistics_carry_no_gradient_and_update_keeps_none() -> None:
    chosen, rejected, batch = make_pairs(4)
    statistics = pair_statistics(chosen.requires_grad_(), rejected, batch.label, batch.clean, batch.length)
    assert not any(column.requires_grad for column in statistics)


@pytest.mark.parametrize("metrics", [PairMetrics(), GroupMetrics(), ScoreMetrics(), TextMetrics()])
def test_before_any_update_a_metric_can_go_to_a_device_without_float64(metrics: Metric) -> None:
    """As `Measured` has it: it is made, moved to the rewards' device, which may be Apple's, and updated there."""
    kept = [state for state in metrics.metric_state.values() if isinstance(state, torch.Tensor)]
    assert all(state.dtype == torch.float32 for state in kept)


def test_before_any_update_there_are_no_pairs_and_no_means() -> None:
    with pytest.warns(UserWarning, match="before"):
        values = PairMetrics().compute()
    assert float(values["num_pairs"]) == 0
    assert all(math.isnan(value) for name, value in values.items() if name != "num_pairs")
    assert "clean_accuracy" not in values


def test_a_reset_starts_anew_with_the_same_subsets() -> None:
    chosen, rejected, batch = make_pairs(10)
    metrics = PairMetrics()
    metrics.update(rejected, chosen, batch)
    metrics.reset()
    metrics.update(chosen, rejected, batch)
    assert_metrics(metrics.compute(), expected_metrics(chosen, rejected, batch))


def test_a_reset_forgets_the_subsets_too() -> None:
    chosen, rejected, batch = make_pairs(10)
    metrics = PairMetrics()
    metrics.update(torch.ones(2), torch.zeros(2), make_batch(2, ("only",)))
    metrics.reset()
    metrics.update(chosen, rejected, batch)
    assert_metrics(metrics.compute(), expected_metrics(chosen, rejected, batch))


def test_forward_gives_the_batch_and_keeps_the_whole() -> None:
    chosen, rejected, batch = make_pairs(30)
    metrics = PairMetrics()
    for rows in (slice(0, 20), slice(20, 30)):
        of_batch = metrics(chosen[rows], rejected[rows], take(batch, rows))
        assert_metrics(of_batch, expected_metrics(chosen[rows], rejected[rows], take(batch, rows)))
    assert_metrics(metrics.compute(), expected_metrics(chosen, rejected, batch))


def test_state_made_in_inference_mode_goes_on_outside_it() -> None:
    chosen, rejected, batch = make_pairs(20)
    metrics = PairMetrics()
    with torch.inference_mode():
        metrics.update(chosen[:5], rejected[:5], take(batch, slice(0, 5)))
    metrics.update(chosen[5:], rejected[5:], take(batch, slice(5, 20)))
    assert_metrics(metrics.compute(), expected_metrics(chosen, rejected, batch))


def test_one_subset_has_no_keys_of_its_own_and_unknown_clean_labels_none() -> None:
    metrics = PairMetrics()
    metrics.update(torch.ones(2), torch.zeros(2), make_batch(2))
    assert not any("/" in name for name in metrics.compute())
    assert "clean_accuracy" not in metrics.compute()


def test_another_data_set_is_refused() -> None:
    metrics = PairMetrics()
    metrics.update(torch.ones(2), torch.zeros(2), make_batch(2))
    for call in (metrics.update, metrics):
        with pytest.raises(ValueError, match="one PairMetrics for each data set"):
            call(torch.ones(2), torch.zeros(2), make_batch(2, ("a", "b")))


def test_rewards_of_an_ensemble_are_refused() -> None:
    with pytest.raises(ValueError, match="one reward a pair"):
        PairMetrics().update(torch.ones(3, 2), torch.zeros(3, 2), make_batch(2))


def _two_ranks(rank: int, folder: str, port: int) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    chosen, rejected, batch = make_pairs(13)
    # Rank 0 has seven pairs in two batches. Rank 1 has six, in batches as many, the last filled with a repeated pair.
    rows = [[0, 2, 4, 6], [8, 10, 12]] if rank == 0 else [[1, 3, 5, 7, 9], [11, 11]]
    metrics = PairMetrics()
    for number, chunk in enumerate(rows):
        part = take(batch, chunk)
        if rank == 1 and number == 1:
            part = dataclasses.replace(part, valid=torch.tensor([True, False]))
        metrics.update(chosen[chunk], rejected[chunk], part)
    torch.save(metrics.compute(), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_with_uneven_pairs_give_the_reference(tmp_path: Path) -> None:
    run_ranks(_two_ranks, 2, str(tmp_path))
    expected = expected_metrics(*make_pairs(13))
    for rank in range(2):
        assert_metrics(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected)
