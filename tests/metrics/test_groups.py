from __future__ import annotations

import dataclasses
import math
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.batch import GroupBatch, TokenBatch, group_batch
from lightning_rm.metrics.groups import GroupMetrics, GroupSums, group_metric_names, group_statistics
from tests.float64 import same
from tests.processes import run_ranks
from tests.reference import ranks

Group = list[tuple[float, float | None]]
"""One group as a list of (reward, gold reward or None)."""


def make_batch(groups: list[Group], k: int) -> tuple[torch.Tensor, GroupBatch]:
    """Groups of uneven size as (k, G) columns, filled up with their first reward and no gold."""
    rewards = torch.zeros(k, len(groups), dtype=torch.float64)
    gold, present = torch.full_like(rewards, math.nan), torch.zeros(k, len(groups), dtype=torch.bool)
    for column, group in enumerate(groups):
        for place in range(k):
            rewards[place, column] = group[place if place < len(group) else 0][0]
        for place, (_, true) in enumerate(group):
            gold[place, column] = math.nan if true is None else true
            present[place, column] = True
    grid = torch.zeros(1, 1, dtype=torch.long)
    tokens = TokenBatch(grid, grid, grid, torch.zeros(k, len(groups), dtype=torch.long), grid.bool())
    return rewards, group_batch(tokens, present=present, gold=gold)


def make_groups(num_groups: int, seed: int = 0, k: int = 5) -> list[Group]:
    """Groups of 2 to k responses with ties of rewards and of gold; every third group's gold is not wholly known."""
    generator = torch.Generator().manual_seed(seed)

    def draw(bound: int) -> int:
        return int(torch.randint(bound, (1,), generator=generator))

    groups: list[Group] = []
    for number in range(num_groups):
        group: Group = [(draw(6) / 2 - 1, float(draw(4))) for _ in range(2 + draw(k - 1))]
        if number % 3 == 2:
            group[draw(len(group))] = (0.5, None)
        groups.append(group)
    return groups


def expected_metrics(groups: list[Group]) -> dict[str, float]:
    """Loops over groups and pairs of responses, in the words of the metrics' docstring."""
    values: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        values.setdefault(name, []).append(value)

    for group in groups:
        k = len(group)
        rewards = [reward for reward, _ in group]
        distances = [abs(a - b) for a, b in combinations(rewards, 2)]
        add("difference", sum(distances) / len(distances))
        add("difference_loss", 2 / k**2 * sum(1 / (1 + math.exp(-distance)) for distance in distances))
        mean = sum(rewards) / k
        add("spread", math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / k))
        gold = [true for _, true in group if true is not None]
        if len(gold) < k:
            continue
        for true in gold:
            add("gold", true)
        best = [true for reward, true in zip(rewards, gold, strict=True) if reward == max(rewards)]
        add("best_of_k", sum(best) / len(best))
        add("best_possible", max(gold))
        for (a, true_a), (b, true_b) in combinations(zip(rewards, gold, strict=True), 2):
            if true_a != true_b:
                add("gold_accuracy", 0.5 if a == b else float((a > b) == (true_a > true_b)))
        if len(set(gold)) > 1:
            add("gold_correlation", pearson(ranks(rewards), ranks(gold)) if len(set(rewards)) > 1 else 0.0)
    return {name: sum(column) / len(column) for name, column in values.items()} | {"num_groups": float(len(groups))}


def pearson(xs: list[float], ys: list[float]) -> float:
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return covariance / math.sqrt(sum((a - x) ** 2 for a in xs) * sum((b - y) ** 2 for b in ys))


def measured(groups: list[Group], k: int = 5) -> dict[str, float]:
    metrics = GroupMetrics()
    metrics.update(*make_batch(groups, k))
    return {name: float(value) for name, value in metrics.compute().items()}


def assert_same(actual: dict[str, float], expected: dict[str, float]) -> None:
    assert actual == same(expected)


SOME = st.integers(0, 10_000)


def test_worked_example() -> None:
    """Rewards 3 1 1 with gold 2 0 1, and 0 2 without gold.

    Distances 2 2 0 (mean 4/3) and 2: difference 5/3. J is 2/9 (2 s + 1/2) and 2/4 s with s = sigmoid(2). Standard
    deviations sqrt(8/9) and 1. Of three pairs with gold, two are ordered rightly and one is tied: 5/6. Ranks 3 1.5 1.5
    and 3 1 2 correlate by sqrt(3)/2.
    """
    s = 1 / (1 + math.exp(-2))
    expected = {
        "difference": 5 / 3,
        "difference_loss": (2 / 9 * (2 * s + 0.5) + s / 2) / 2,
        "spread": (math.sqrt(8 / 9) + 1) / 2,
        "gold_accuracy": 5 / 6,
        "gold_correlation": math.sqrt(3) / 2,
        "best_of_k": 2.0,
        "best_possible": 2.0,
        "gold": 1.0,
        "num_groups": 2.0,
    }
    assert_same(measured([[(3, 2), (1, 0), (1, 1)], [(0, None), (2, None)]]), expected)
    assert set(expected) == group_metric_names()


@pytest.mark.parametrize("batch_size", [1, 3, 8, 40])
def test_uneven_batches_give_the_reference_over_all_groups(batch_size: int) -> None:
    groups = make_groups(40)
    metrics = GroupMetrics()
    for start in range(0, 40, batch_size):
        part = groups[start : start + batch_size]
        metrics.update(*make_batch(part, max(map(len, part))))
    assert_same({name: float(value) for name, value in metrics.compute().items()}, expected_metrics(groups))


@settings(max_examples=30)
@given(seed=SOME, cut=st.integers(1, 8))
def test_two_halves_add_up_to_the_whole(seed: int, cut: int) -> None:
    groups = make_groups(9, seed)
    parts = [make_batch(part, 5) for part in (groups, groups[:cut], groups[cut:])]
    sums = [group_statistics(rewards, batch.present, batch.gold) for rewards, batch in parts]
    for name, whole, first, second in zip(GroupSums._fields, *sums, strict=True):
        assert float(whole.sum()) == same(float(first.sum() + second.sum())), name


@settings(max_examples=30)
@given(seed=SOME, offset=st.sampled_from([-64.0, 0.5, 1024.0]))
def test_rewards_have_no_zero(seed: int, offset: float) -> None:
    groups = make_groups(6, seed)
    shifted: list[Group] = [[(reward + offset, true) for reward, true in group] for group in groups]
    assert_same(measured(shifted), measured(groups))


@settings(max_examples=30)
@given(seed=SOME, scale=st.sampled_from([0.25, 3.0, 50.0]))
def test_a_scale_of_rewards_scales_distances_and_no_metric_of_order(seed: int, scale: float) -> None:
    groups = make_groups(6, seed)
    before = measured(groups)
    after = measured([[(reward * scale, true) for reward, true in group] for group in groups])
    for name in ("difference", "spread"):
        assert after[name] == same(scale * before[name])
    for name in before.keys() - {"difference", "spread", "difference_loss"}:
        assert after[name] == same(before[name]), name


@settings(max_examples=30)
@given(seed=SOME, order=st.permutations(range(5)))
def test_the_order_of_responses_changes_nothing(seed: int, order: list[int]) -> None:
    rewards, batch = make_batch(make_groups(6, seed), 5)
    metrics = GroupMetrics()
    metrics.update(rewards[order], dataclasses.replace(batch, present=batch.present[order], gold=batch.gold[order]))
    actual = {name: float(value) for name, value in metrics.compute().items()}
    assert_same(actual, measured(make_groups(6, seed)))


@settings(max_examples=30)
@given(seed=SOME)
def test_rewards_that_are_gold_are_perfect_and_turned_round_the_opposite(seed: int) -> None:
    groups: list[Group] = [[(true or 0.0, true or 0.0) for _, true in group] for group in make_groups(8, seed)]
    right = measured(groups)
    wrong = measured([[(-reward, true) for reward, true in group] for group in groups])
    if "gold_accuracy" in right:
        assert (right["gold_accuracy"], wrong["gold_accuracy"]) == (1, 0)
        assert right["gold_correlation"] == same(1)
        assert wrong["gold_correlation"] == same(-1)
    assert right["best_of_k"] == same(right["best_possible"])
    assert right["difference"] == same(wrong["difference"])


def test_equal_rewards_tell_nothing() -> None:
    """J of five equal rewards is (k - 1) / 2k = .4; order is a coin's; the best of k is the mean of all."""
    values = measured([[(7.7, float(true)) for true in range(5)]])
    assert (values["difference"], values["spread"], values["gold_correlation"]) == (0, same(0), 0)
    assert values["difference_loss"] == same(0.4)
    assert values["gold_accuracy"] == 0.5
    assert values["best_of_k"] == values["gold"] == 2


def test_metrics_without_data_are_absent() -> None:
    without_gold = measured([[(1, None), (2, 3.0)]])
    assert set(without_gold) == {"difference", "difference_loss", "spread", "num_groups"}
    equal_gold = measured([[(1, 3.0), (2, 3.0)]])
    assert group_metric_names() - set(equal_gold) == {"gold_accuracy", "gold_correlation"}
    assert equal_gold["best_of_k"] == 3


def test_a_group_of_one_is_not_counted() -> None:
    groups = make_groups(4)
    assert_same(measured([*groups, [(9.0, 9.0)]]), expected_metrics(groups))


def test_groups_that_are_not_valid_are_left_out_whatever_they_hold() -> None:
    groups = make_groups(10)
    rewards, batch = make_batch(groups, 5)
    batch = dataclasses.replace(batch, valid=torch.arange(10) % 4 != 0)
    rewards[:, ~batch.valid] = math.nan
    metrics = GroupMetrics()
    metrics.update(rewards, batch)
    actual = {name: float(value) for name, value in metrics.compute().items()}
    assert_same(actual, expected_metrics([group for place, group in enumerate(groups) if place % 4]))


def test_responses_that_are_not_there_are_left_out_whatever_they_hold() -> None:
    groups = make_groups(10)
    rewards, batch = make_batch(groups, 5)
    rewards[~batch.present] = math.nan
    batch.gold[~batch.present] = math.inf
    metrics = GroupMetrics()
    metrics.update(rewards, batch)
    assert_same({name: float(value) for name, value in metrics.compute().items()}, expected_metrics(groups))


def test_diverged_rewards_have_no_metrics() -> None:
    values = measured([[(math.nan, 1.0), (1.0, 2.0), (2.0, 3.0)]])
    for name in ("difference", "difference_loss", "spread", "gold_accuracy", "gold_correlation", "best_of_k"):
        assert math.isnan(values[name]), name


def test_before_any_update_there_are_no_groups() -> None:
    with pytest.warns(UserWarning, match="before"):
        values = GroupMetrics().compute()
    assert {name: float(value) for name, value in values.items()} == {"num_groups": 0}


def test_a_reset_in_bfloat16_and_inference_mode_lose_no_digit() -> None:
    """512 groups of rewards 1 + 2^-9 apart in a module moved to bfloat16: a bfloat16 sum would stop at 256."""
    metrics = GroupMetrics()
    apart = 1 + 2**-9
    with torch.inference_mode():
        metrics.update(*make_batch([[(9.0, None), (1.0, None)]], 2))
    metrics.reset()
    metrics.to(torch.bfloat16)
    for _ in range(512):
        metrics.update(*make_batch([[(apart, None), (0.0, None)]], 2))
    assert float(metrics.compute()["difference"]) == apart


def test_forward_gives_the_batch_and_keeps_the_whole() -> None:
    groups = make_groups(9)
    metrics = GroupMetrics()
    for part in (groups[:6], groups[6:]):
        of_batch = metrics(*make_batch(part, 5))
        assert_same({name: float(value) for name, value in of_batch.items()}, expected_metrics(part))
    assert_same({name: float(value) for name, value in metrics.compute().items()}, expected_metrics(groups))


def test_rewards_of_an_ensemble_are_refused() -> None:
    rewards, batch = make_batch(make_groups(3), 5)
    with pytest.raises(ValueError, match=r"one reward a response, \(5, 3\); got \(5, 2, 3\)"):
        GroupMetrics().update(rewards[:, None].expand(5, 2, 3), batch)


def _two_ranks(rank: int, folder: str, port: int) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    metrics = GroupMetrics()
    groups = make_groups(7)
    # Rank 0 has four groups. Rank 1 has three, its batch filled with a repeated one.
    mine = groups[::2] if rank == 0 else [*groups[1::2], groups[1]]
    rewards, batch = make_batch(mine, 5)
    metrics.update(rewards, dataclasses.replace(batch, valid=torch.tensor([True, True, True, rank == 0])))
    torch.save(metrics.compute(), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_with_uneven_groups_give_the_reference(tmp_path: Path) -> None:
    run_ranks(_two_ranks, 2, str(tmp_path))
    for rank in range(2):
        values = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_same({name: float(value) for name, value in values.items()}, expected_metrics(make_groups(7)))
