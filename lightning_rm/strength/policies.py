"""Policies of curation: treatments whose outcome is written down pair by pair, with the reason.

A policy says of every pair whether it is kept, flipped, softened or set aside. It is a treatment like any other, so
that a curated file trains to what the treatment would. It knows arrays alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightning_rm.counts import is_positive
from lightning_rm.strength.selection import drop
from lightning_rm.strength.targets import Targets, Treatment, turned_round
from lightning_rm.strength.treatments import soft_label
from lightning_rm.strength.votes import Bools, Strength

PolicyName = Literal["flip_weakest", "agreement", "soft", "drop"]
Decision = Literal["kept", "flipped", "softened", "set aside"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)


def policy(name: PolicyName, *, share: float, agree: float = 0.8, temperature: float = 1.0) -> Treatment:
    """Return the treatment that a policy's name stands for.

        flip_weakest  flip the weakest `share` of the pairs, as far as the voters contradict them (arXiv 2401.06080)
        agreement     keep what `agree` of the votes back, flip what as many contradict, set aside what they dispute
                      (Skywork-Reward-V2, arXiv 2507.01352, section 3: agreement of models, and discarded pairs flipped)
        soft          the label is the voters' belief, `sigmoid(strength / temperature)`
        drop          set aside the weakest `share` of the pairs

    Args:
        name: of the policy.
        share: of the pairs, for `flip_weakest` and `drop`, in [0, 1].
        agree: share of the votes, for `agreement`, in (1/2, 1].
        temperature: for `soft`, above 0.

    Raises:
        ValueError: for another name, or a number out of its range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} is not a share of the pairs; give a number from 0 to 1")
    if not 0.5 < agree <= 1:
        raise ValueError(f"agree={agree} is not a majority of the votes; give a number above 0.5, 1 at most")
    if not is_positive(temperature):
        raise ValueError(f"temperature={temperature} must be above 0; 1 takes the voters at their word")
    known: dict[str, Treatment] = {
        "flip_weakest": partial(flip_weakest, share=share),
        "agreement": partial(agreement, agree=agree),
        "soft": partial(soft_label, temperature=temperature),
        "drop": partial(drop, ranges=[(0.0, share)] if share else []),
    }
    if name not in known:
        raise ValueError(f"policy={name!r} is not one of {', '.join(known)}")
    return known[name]


def flip_weakest(strength: Strength, targets: Targets, *, share: float) -> Targets:
    """Flip the weakest share of the pairs, but for those among them that the voters back."""
    return turned_round(targets, (strength.quantile < share) & (strength.mean < 0))


def agreement(strength: Strength, targets: Targets, *, agree: float = 0.8) -> Targets:
    """Keep what a majority of the votes backs, flip what it contradicts, leave out what is disputed.

    Pairs without votes are left as they are.
    """
    known = ~np.isnan(strength.share)
    turned = known & (strength.share <= 1 - agree + 1e-12)
    disputed = known & ~turned & (strength.share < agree - 1e-12)
    return replace(turned_round(targets, turned), kept=targets.kept & ~disputed)


def reviewed(strength: Strength, targets: Targets, *, verdicts: NDArray[np.str_]) -> Targets:
    """Return what people say of a pair counts, whatever came before: the last treatment of a chain.

    Args:
        strength: of N pairs; it is not read.
        targets: of the same pairs.
        verdicts: (N,) `keep`, `flip`, `tie` (label 1/2), or anything else for a pair that is left as it is.
    """
    keep, flip, tie = (verdicts == name for name in ("keep", "flip", "tie"))
    label = np.where(keep, 1.0, np.where(flip, 0.0, np.where(tie, 0.5, targets.label)))
    return replace(
        targets,
        label=label,
        flipped=np.where(keep | tie, False, targets.flipped | flip),
        kept=targets.kept | keep | flip | tie,
    )


def decisions(before: Targets, after: Targets) -> NDArray[np.str_]:
    """Return (N,), what a treatment has decided of each pair: one of `DECISIONS`.

    Args:
        before: the data's own targets.
        after: those that the treatment makes of them.
    """
    decided = np.full(len(before.label), "kept", dtype="<U9")
    decided[(after.label != before.label) & (after.label > 0) & (after.label < 1)] = "softened"
    decided[after.flipped] = "flipped"
    decided[before.kept & ~after.kept] = "set aside"
    return decided


def is_turned(targets: Targets) -> Bools:
    """Return (N,), whether chosen is the less likely one: the responses of such a pair change places when it is
    written.
    """
    return targets.label < 0.5


def reason(strength: Strength, i: int, name: str) -> str:
    """Say why a policy decided as it did of pair `i`, in numbers that a person can check."""
    if np.isnan(strength.mean[i]):
        return f"{name}: no votes"
    return (
        f"{name}: strength {strength.mean[i]:+.3f}, rank {100 * strength.quantile[i]:.1f} % from the weakest, "
        f"{100 * strength.share[i]:.0f} % of the votes for the label"
    )
