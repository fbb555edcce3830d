"""Preference strength: what M voters say of a pair, and treatments that make training targets of it.

A vote is one reward model's margin on a pair, strength the mean of the votes (arXiv 2401.06080, section 2.2). Arrays
hold the N pairs of a whole training set, since quantiles are of all of it. Nothing here knows a file, batch or model.
"""

from lightning_rm.strength.selection import decile, drop, prefix, select
from lightning_rm.strength.targets import ById, Target, Targets, Treatment, changed, told, treat
from lightning_rm.strength.treatments import (
    adaptive_margin,
    flip,
    label_smoothing,
    levels,
    noise_corrected,
    soft_label,
    weight,
)
from lightning_rm.strength.votes import Strength, in_ranges, quantiles, vote_shares

__all__ = [
    "ById",
    "Strength",
    "Target",
    "Targets",
    "Treatment",
    "adaptive_margin",
    "changed",
    "decile",
    "drop",
    "flip",
    "in_ranges",
    "label_smoothing",
    "levels",
    "noise_corrected",
    "prefix",
    "quantiles",
    "select",
    "soft_label",
    "told",
    "treat",
    "vote_shares",
    "weight",
]
