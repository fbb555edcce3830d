"""Importance weights: that they turn one policy's expectation into another's, and the formula against naive loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.rlhf.importance import LogProbs, Weighing
from lightning_rm.rlhf.log_probs import response_log_probs
from tests.float64 import roughly
from tests.rlhf.policies import tiny_policy

PLAIN = Weighing(power=1.0, relative=0.0)


def log_probs(*pairs: Sequence[float], num_tokens: tuple[float, float] = (1.0, 1.0)) -> LogProbs:
    return LogProbs(np.array(pairs), np.array([num_tokens] * len(pairs)))


def test_weights_turn_one_policys_expectation_into_anothers() -> None:
    """p says four responses equally often, so every pair of them stands once for its probability; q does not."""
    q = np.array([0.7, 0.2, 0.09, 0.01])
    places = [(first, second) for first in range(4) for second in range(4)]
    worth = np.random.default_rng(0).normal(size=(4, 4))
    weight = PLAIN.of(log_probs(*np.log(q[places]).tolist()), log_probs(*[(math.log(0.25),) * 2] * 16)).weight
    under_q = sum(q[first] * q[second] * worth[first, second] for first, second in places)
    assert np.mean([w * worth[place] for w, place in zip(weight, places, strict=True)]) == roughly(under_q)


def test_so_do_weights_by_two_language_models() -> None:
    """Of one token, all responses can be listed: pairs of p, weighed, give the expectation of q."""
    policy, reference = tiny_policy(seed=1).double(), tiny_policy(seed=2).double()
    num = len(world_tokenizer())
    prompt, said = [[1, 5, 7]] * num, [[token] for token in range(num)]
    q, p = (response_log_probs(model, prompt, said) for model in (policy, reference))
    assert np.exp(q).sum() == roughly(1.0)
    worth = np.random.default_rng(0).normal(size=(num, num))
    first, second = np.divmod(np.arange(num * num), num)
    tokens = np.ones((num * num, 2))
    weighing = PLAIN.of(
        LogProbs(np.stack([q[first], q[second]], 1), tokens), LogProbs(np.stack([p[first], p[second]], 1), tokens)
    )
    drawn = np.exp(p[first] + p[second])
    found = (drawn * weighing.weight * worth.ravel()).sum() / (drawn * weighing.weight).sum()
    assert found == roughly(float(np.exp(q) @ worth @ np.exp(q)))


@pytest.mark.parametrize(
    "weighing",
    [
        Weighing(),
        PLAIN,
        Weighing(0.3, 0.2, per_token=True),
        Weighing(0.5, 0.0, clip=1.5),
        Weighing(0.2, 0.9, per_token=True, clip=1.1),
    ],
)
def test_weights_against_loops(weighing: Weighing) -> None:
    rng = np.random.default_rng(3)
    own, other = -rng.uniform(1, 20, (7, 2)), -rng.uniform(1, 20, (7, 2))
    tokens = rng.integers(1, 9, (7, 2)).astype(float)
    found = weighing.of(LogProbs(own, tokens), LogProbs(other, tokens))
    plain = []
    for i in range(7):
        product = 1.0
        for side in range(2):
            length = tokens[i, side] if weighing.per_token else 1.0
            q, p = math.exp(own[i, side] / length), math.exp(other[i, side] / length)
            product *= q / (weighing.relative * q + (1 - weighing.relative) * p)
        plain.append(product**weighing.power)
    scaled = [value / (sum(plain) / 7) for value in plain]
    bounded = [min(value, weighing.clip or math.inf) for value in scaled]
    expected = [value / (sum(bounded) / 7) for value in bounded]
    assert found.weight.tolist() == roughly(expected)
    assert found.clipped.tolist() == [value > (weighing.clip or math.inf) for value in scaled]
    assert found.effective == roughly(sum(expected) ** 2 / sum(value**2 for value in expected))


def test_without_a_reference_and_at_the_ends() -> None:
    """log q sums to -3 and -1: weights e^-3 : e^-1. A power of 0, and a policy that has not moved, weigh all alike."""
    policy = log_probs((-1.0, -2.0), (-1.0, 0.0))
    ratio = math.exp(2.0)
    weight = PLAIN.of(policy, None).weight
    assert weight.tolist() == roughly([2 / (1 + ratio), 2 * ratio / (1 + ratio)])
    assert Weighing(0.0, 0.1).of(policy, log_probs((0.0, 0.0), (-9.0, 0.0))).weight.tolist() == [1.0, 1.0]
    assert Weighing().of(policy, policy).weight.tolist() == [1.0, 1.0]
    far = PLAIN.of(log_probs((-2000.0, 0.0), (-9.0, 0.0)), log_probs((0.0, 0.0), (0.0, 0.0)))
    assert far.weight.tolist() == [0.0, 2.0]
    assert far.effective == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": -1.0}, "power=-1.0"),
        ({"power": math.inf}, "power=inf"),
        ({"power": "a"}, "power=a"),
        ({"clip": "a"}, "clip=a"),
        ({"relative": 1.0}, "relative=1.0"),
        ({"clip": 0.5}, "clip=0.5: it bounds weights whose mean is 1"),
        ({"clip": math.nan}, "clip=nan: it bounds weights"),
    ],
)
def test_settings_out_of_range(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Weighing(**options)
