"""Models ranked by votes on their answers, once by people's and once by a reward model's: how alike are the two?

The figures of Arena-Hard (Li et al., arXiv 2406.11939) and PPE (Frick et al., arXiv 2410.14872) on Bradley-Terry
ratings. It knows arrays of votes; no benchmark and no reward model.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.regression import kendall_rank_corrcoef, pearson_corrcoef, spearman_corrcoef

from lightning_rm.evaluation.items import Floats, Ints
from lightning_rm.evaluation.statistics import cluster_draws

NUM_DRAWS = 100
"""How many draws of votes the intervals of ratings are made from, as for Chatbot Arena's."""

LEVEL = 0.95

EQUAL = 1e-9
"""Ratings that differ by no more than this are taken for equal."""


class Votes(NamedTuple):
    """Pairs of answers that were voted on.

    Args:
        first: (N,) the number of the model that gave the first answer.
        second: (N,) that of the second.
        cluster: (N,) the same for votes that are drawn together, those of one prompt.
        num: how many models there are.
    """

    first: Ints
    second: Ints
    cluster: Ints
    num: int


def agreement(votes: Votes, human: Floats, machine: Floats, seed: int = 0) -> dict[str, float]:
    """Say how alike people's and a reward model's votes rank models.

    - Spearman's and Kendall's correlation of ratings, Pearson's of the rates at which each model beats each other one;
      left out where a side has all models equal.
    - `separability`: the share of pairs of models whose intervals of ratings, by the machine's votes, do not overlap;
      beside it that of people's.
    - `confidence agreement`: over the pairs of models that people's votes separate, 1 for one that the machine's
      separate the same way round, -1 for the other way round, 0 where they separate it
      neither way; left out where people separate none.
    - `Brier of ranks`: over all pairs of models, the squared difference between the share of draws in which the machine
      puts the one above the other, and 1 or 0 as people's ratings order them (1/2 for equal ratings).

    Votes on one prompt have correlations alone: all their draws are alike, and would separate any two models.

    Args:
        votes: the pairs.
        human: (N,) people's share of a win for the first answer: 1, 0, or 1/2 for a tie.
        machine: (N,) the reward model's.
        seed: of the draws; both sides have the same ones.
    """
    of_human, of_machine = (wins(votes.first, votes.second, share, votes.num) for share in (human, machine))
    met = of_human + of_human.T > 0
    rates = [(table / np.where(met, table + table.T, 1.0))[met] for table in (of_human, of_machine)]
    human_rating, machine_rating = (bradley_terry(table, met) for table in (of_human, of_machine))
    found = _correlations(human_rating, machine_rating, *rates)
    if not np.ptp(votes.cluster):
        return found
    drawn = draws_of_wins(votes, np.stack([human, machine]), seed)
    human_draws, machine_draws = (bradley_terry(tables, met) for tables in drawn)
    pairs = np.triu_indices(votes.num, 1)
    by_human, by_machine = (separated(draws)[pairs] for draws in (human_draws, machine_draws))
    outcome = (0.5 + 0.5 * np.sign(human_rating[:, None] - human_rating))[pairs]
    above = (0.5 + 0.5 * np.sign(machine_draws[:, :, None] - machine_draws[:, None, :])).mean(axis=0)[pairs]
    found |= {
        "separability": float(np.abs(by_machine).mean()),
        "separability of people's votes": float(np.abs(by_human).mean()),
        "Brier of ranks": float(((above - outcome) ** 2).mean()),
    }
    if by_human.any():
        found["confidence agreement"] = float((by_human * by_machine)[by_human != 0].mean())
    return found


def _correlations(human: Floats, machine: Floats, human_rate: Floats, machine_rate: Floats) -> dict[str, float]:
    """Return correlations of ratings and of rates, without those where a side has all models equal."""
    found: dict[str, float] = {}
    if min(np.ptp(human), np.ptp(machine)) > EQUAL:
        ratings = torch.from_numpy(human), torch.from_numpy(machine)
        found["Spearman of ratings"] = float(spearman_corrcoef(*ratings))
        found["Kendall of ratings"] = float(cast(torch.Tensor, kendall_rank_corrcoef(*ratings)))
    if min(np.ptp(human_rate), np.ptp(machine_rate)) > EQUAL:
        rates = torch.from_numpy(human_rate), torch.from_numpy(machine_rate)
        found["Pearson of win rates"] = float(pearson_corrcoef(*rates))
    return found


def separated(draws: Floats, level: float = LEVEL) -> Floats:
    """Return (n, n): 1 where the row's interval lies above the column's, -1 where it lies below, 0 where they overlap.

    Args:
        draws: (B, n) ratings.
        level: the share of draws within an interval.
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    above = (low[:, None] > high).astype(np.float64)
    return above - above.T


def draws_of_wins(votes: Votes, shares: Floats, seed: int = 0, num_draws: int = NUM_DRAWS) -> Floats:
    """Return (S, B, n, n): tables of wins over draws of clusters, the same draws for each of (S, N) shares."""
    tables = [
        wins(votes.first, votes.second, share, votes.num, counts[votes.cluster])
        for share in shares
        for draws in cluster_draws(int(votes.cluster.max()) + 1, num_draws, seed)
        for counts in draws
    ]
    return np.stack(tables).reshape(len(shares), num_draws, votes.num, votes.num)


def wins(first: Ints, second: Ints, share: Floats, num: int, weight: Floats | None = None) -> Floats:
    """Return (num, num): how often the row's model beat the column's.

    Args:
        first: (N,) models of the first answers.
        second: (N,) models of the second.
        share: (N,) shares of a win for the first.
        num: of models.
        weight: (N,) how often each vote counts; None for once.
    """
    weight = np.ones(len(share)) if weight is None else weight
    won = np.bincount(first * num + second, weight * share, num * num) + 0.0
    lost = np.bincount(second * num + first, weight * (1 - share), num * num)
    table = np.asarray(won + lost, np.float64).reshape(num, num)
    np.fill_diagonal(table, 0)
    return table


def bradley_terry(
    table: Floats, met: NDArray[np.bool_] | None = None, num_steps: int = 2000, prior: float = 0.1
) -> Floats:
    """Return (..., num) log-strengths that make the wins likely, by minorisation-maximisation (Hunter, 2004).

    Args:
        table: (..., num, num) wins of the row's model over the column's.
        met: (num, num) which models met, if the table is a draw that may lack some; None if the table shows it.
        num_steps: at most.
        prior: wins that are added both ways for every pair that met, so that a model that always wins has a rating.
    """
    beaten = np.swapaxes(table, -1, -2)
    table = table + prior * (table + beaten > 0 if met is None else met)
    games, total = table + np.swapaxes(table, -1, -2), table.sum(axis=-1)
    strength = np.ones(total.shape)
    for _ in range(num_steps):
        before = strength
        strength = total / (games / (strength[..., :, None] + strength[..., None, :])).sum(axis=-1)
        strength = strength / np.exp(np.log(strength).mean(axis=-1, keepdims=True))
        if np.abs(np.log(strength / before)).max() < 1e-10:
            break
    return np.log(strength)
