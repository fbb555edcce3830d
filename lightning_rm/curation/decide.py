"""What becomes of each pair that was voted on: by a policy, and by people wherever they have said something.

It knows votes, rules and verdicts; no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_rm.annotation.votes import Votes
from lightning_rm.curation.result import Rules
from lightning_rm.strength import Targets
from lightning_rm.strength.policies import decisions, policy, reason, reviewed


class Decided(NamedTuple):
    """What was decided of N pairs.

    Args:
        targets: (N,) what they are to be trained towards.
        decision: (N,) the same in a word, one of `policies.DECISIONS`.
        why: N reasons.
    """

    targets: Targets
    decision: NDArray[np.str_]
    why: Sequence[str]


def decide(votes: Votes, rules: Rules, share: float, verdict: NDArray[np.str_]) -> Decided:
    """Decide what becomes of N pairs.

    Args:
        votes: on the pairs.
        rules: of the decisions.
        share: of the pairs, that the policy is given.
        verdict: (N,) what people say of each, empty where they say nothing.
    """
    before = votes.pairs.targets()
    treatment = policy(rules.policy, share=share, agree=rules.agree, temperature=rules.temperature)
    after = reviewed(votes.strength, treatment(votes.strength, before), verdicts=verdict)
    why = [
        f"reviewed: {said}" if said in ("keep", "flip", "tie") else reason(votes.strength, i, rules.policy)
        for i, said in enumerate(verdict.tolist())
    ]
    return Decided(after, decisions(before, after), why)
