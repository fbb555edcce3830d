"""The best of n, estimated from all samples of a prompt without drawing any. Pure functions; they know arrays alone."""

from __future__ import annotations

from functools import cache

import numpy as np

from lightning_rm.evaluation.items import Floats


def best_of_n(rewards: Floats, gold: Floats) -> Floats:
    """Return the expected gold of the response of highest reward among n, for n = 1 to N, from the N samples of a
    prompt.

    Over all subsets of n samples, which is what drawing n without replacement gives (Coste et al., arXiv 2310.02743,
    section 4): with gold values g by rising reward,

        E_n = sum over i from n to N of C(i - 1, n - 1) / C(N, n) * g_i.

    Of responses with equal rewards any may be chosen, so each gets the mean of their gold values.

    Args:
        rewards: (P, N) of the samples of P prompts.
        gold: (P, N) what each is worth.

    Returns:
        (P, N): gold (0, 1, 3, 2) by rising reward gives 1.5, 2.1667, 2.25, 2.
    """
    order = np.argsort(rewards, axis=1, kind="stable")
    rising = np.take_along_axis(gold, order, axis=1)
    steps = np.diff(np.take_along_axis(rewards, order, axis=1), axis=1)
    for row in np.flatnonzero((steps == 0).any(axis=1)):
        block = np.concatenate([[0], np.cumsum(steps[row] > 0)])
        rising[row] = (np.bincount(block, rising[row]) / np.bincount(block))[block]
    return rising @ weights_of_ranks(rewards.shape[1]).T


@cache
def weights_of_ranks(num: int) -> Floats:
    """Return (N, N): in row n - 1 the probability that the i-th lowest of N samples is the highest of n drawn from
    them.

    By the recursion w_N = n / N, w_(i-1) = w_i (i - n) / (i - 1): no binomial coefficient is ever computed.
    """
    weights = np.zeros((num, num))
    n = np.arange(1, num + 1)
    weights[:, num - 1] = n / num
    for i in range(num, 1, -1):
        weights[:, i - 2] = np.maximum(weights[:, i - 1] * (i - n) / (i - 1), 0.0)
    return weights


def kl_of_best_of_n(n: Floats) -> Floats:
    """Return KL(best of n || policy) in nats, `log n - (n - 1) / n`: exact without ties, else a bound (arXiv
    2401.01879).
    """
    n = np.asarray(n, np.float64)
    return np.log(n) - (n - 1) / n
