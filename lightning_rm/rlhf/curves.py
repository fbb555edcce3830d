"""Over-optimisation by the best of n: gold and proxy of the response that a reward model likes best, as n grows.

Choosing the best of n is the cheapest way to optimise a reward, and its distance from the policy is known without a
policy's log-probabilities. From the N samples of a prompt that are scored once, every n up to N is estimated without
drawing (`evaluation.best_of_n`). Pure functions of arrays; they know no model and no text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_rm.evaluation.best_of_n import best_of_n, kl_of_best_of_n
from lightning_rm.evaluation.items import Floats, Ints
from lightning_rm.evaluation.statistics import Interval, interval


@dataclass(frozen=True)
class Curve:
    """What the best of n is worth, for J values of n; means over prompts.

    Args:
        n: (J,) how many responses the best is chosen from.
        kl: (J,) nats from the policy: exact where no two responses have equal rewards, else a bound.
        gold: (J,) gold of the chosen response.
        proxy: (J,) its reward by the model that chooses.
        low: (J,) lower end of the 95 % interval of gold, over draws of prompts; NaN where they are all alike.
        high: (J,) upper end.
        summary: the figures of a table.
    """

    n: Ints
    kl: Floats
    gold: Floats
    proxy: Floats
    low: Floats
    high: Floats
    summary: Summary


@dataclass(frozen=True)
class Summary:
    """How far a reward model can be optimised.

    Args:
        start: gold at n = 1, the policy itself.
        highest: the highest gold of the curve.
        n_highest: the n that has it; beyond it gold falls though the proxy rises.
        end: gold at the largest n.
        end_interval: its 95 % interval over draws of prompts.
        fall: `highest - end`, 0 where gold never turns.
        fall_interval: the interval of gold at `n_highest` minus gold at the end, over the same draws. Since `n_highest`
            was looked for in the same prompts, an interval just above 0 is not yet a fall.
        regret: what the gold of the best response would be at the largest n, minus `end`.
        against: gold at the end minus that of the reference model, on the same prompts; None for the reference.
        against_interval: its 95 % interval over the same draws.
    """

    start: float
    highest: float
    n_highest: int
    end: float
    end_interval: Interval
    fall: float
    fall_interval: Interval
    regret: float
    against: float | None = None
    against_interval: Interval | None = None


def powers_of_two(most: int) -> Ints:
    """Return 1, 2, 4, ... and `most` itself."""
    return np.array([*(2**j for j in range(most.bit_length()) if 2**j < most), most], np.int64)


def curves(
    rewards: dict[str, Floats], gold: Floats, n: Ints | None = None, *, num_draws: int = 1000, seed: int = 0
) -> dict[str, Curve]:
    """Return the curves of several reward models on the same responses; the first model is the reference of the others.

    Args:
        rewards: name -> (P, N), by which each model chooses among the N responses of P prompts.
        gold: (P, N) what each response is worth.
        n: (J,) rising, from 1 to N at most; None for powers of two and N.
        num_draws: of the bootstrap over prompts, the same prompts for all models.
        seed: of the draws.

    Raises:
        ValueError: if an n is out of its range, or there is no prompt.
    """
    num_prompts, num_samples = gold.shape
    n = powers_of_two(num_samples) if n is None else np.asarray(n, np.int64)
    if not num_prompts:
        raise ValueError("there is no prompt to choose responses for")
    if len(n) == 0 or n[0] < 1 or n[-1] > num_samples or (np.diff(n) <= 0).any():
        raise ValueError(
            f"n={n.tolist()}: name rising numbers from 1 to {num_samples}, of how many responses the best is chosen"
        )
    drawn = np.random.default_rng(seed).integers(num_prompts, size=(num_draws, num_prompts))
    counts = np.stack([np.bincount(draw, minlength=num_prompts) for draw in drawn]) / num_prompts
    golds = {name: best_of_n(reward, gold)[:, n - 1] for name, reward in rewards.items()}
    oracle = float(best_of_n(gold, gold)[:, n[-1] - 1].mean())
    reference = next(iter(golds))
    found: dict[str, Curve] = {}
    for name, worth in golds.items():
        mean, draws = worth.mean(axis=0), counts @ worth
        bounds = [interval(draw) for draw in draws.T]
        top = int(mean.argmax())
        against = None if name == reference else worth[:, -1] - golds[reference][:, -1]
        found[name] = Curve(
            n=n,
            kl=kl_of_best_of_n(n.astype(np.float64)),
            gold=mean,
            proxy=best_of_n(rewards[name], rewards[name])[:, n - 1].mean(axis=0),
            low=np.array([bound.low for bound in bounds]),
            high=np.array([bound.high for bound in bounds]),
            summary=Summary(
                start=float(gold.mean()),
                highest=float(mean[top]),
                n_highest=int(n[top]),
                end=float(mean[-1]),
                end_interval=bounds[-1],
                fall=float(mean[top] - mean[-1]),
                fall_interval=interval(draws[:, top] - draws[:, -1]),
                regret=oracle - float(mean[-1]),
                against=None if against is None else float(against.mean()),
                against_interval=None if against is None else interval(counts @ against),
            ),
        )
    return found
