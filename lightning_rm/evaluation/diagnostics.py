"""Diagnostics of rewards on pairs: calibration, where accuracy comes from, what rewards do within a prompt.

Pure functions of margins and of what is known of the pairs; they know no model and no file. Margins are chosen less
rejected, so that the right answer is always the first one: calibration must be folded onto confidences, and is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.functional.regression import spearman_corrcoef

from lightning_rm.evaluation.credit import pair_credit
from lightning_rm.evaluation.items import Floats, Items
from lightning_rm.losses.temperature import Best, best_temperature, tempered_nll

NUM_BINS = 10
NUM_STEPS = 50
"""Of Newton's method, at most."""
COVERAGES = (0.5, 0.7, 0.9, 1.0)


def calibration(margin: Floats, label: Floats, temperature: float = 1.0, num_bins: int = NUM_BINS) -> dict[str, Any]:
    """Return proper scores of `sigmoid(margin / temperature)`, and its reliability, folded.

    The confidence of a pair is max(p, 1 - p). The response that the model prefers is right with the probability that
    the label gives it, a tie with 1/2. Bins are of equal width on [1/2, 1].

    Returns:
        `nll` in nats, `brier`, `ece`, and `bins`: confidence, accuracy and pairs of each bin that has any.
    """
    scaled = margin / temperature
    confidence = 1 / (1 + np.exp(-np.abs(scaled)))
    right = 0.5 + np.sign(scaled) * (label - 0.5)
    place = np.clip(((confidence - 0.5) * 2 * num_bins).astype(np.int64), 0, num_bins - 1)
    bins = [
        {
            "confidence": float(confidence[place == number].mean()),
            "accuracy": float(right[place == number].mean()),
            "pairs": int((place == number).sum()),
        }
        for number in range(num_bins)
        if (place == number).any()
    ]
    gaps = [one["pairs"] * abs(one["accuracy"] - one["confidence"]) for one in bins]
    return {
        "nll": tempered_nll(torch.from_numpy(margin), torch.from_numpy(label), temperature),
        "brier": float(np.square(1 / (1 + np.exp(-scaled)) - label).mean()),
        "ece": sum(gaps) / len(margin),
        "bins": bins,
    }


def temperature_of(margin: Floats, label: Floats) -> Best:
    """Return the temperature that makes validation margins most likely, or why none does; never fit it on what is
    reported.
    """
    return best_temperature(torch.from_numpy(margin), torch.from_numpy(label))


def by_quantile(value: Floats, margin: Floats, label: Floats, num_bins: int) -> list[dict[str, float]]:
    """Return accuracy, ties half, in bins of equal numbers of pairs by some value; pairs without a value are left out.

    Returns:
        One row per bin, lowest first: the range of the value, accuracy and pairs.
    """
    known = ~np.isnan(value)
    value, right = value[known], _right(margin[known], label[known])
    order = np.argsort(value, kind="stable")
    return [
        {
            "from": float(value[rows[0]]),
            "to": float(value[rows[-1]]),
            "accuracy": float(right[rows].mean()),
            "pairs": len(rows),
        }
        for rows in np.array_split(order, min(num_bins, len(order)) or 1)
        if len(rows)
    ]


def length_effects(margin: Floats, label: Floats, difference: Floats) -> dict[str, float]:
    """Say how much of an accuracy length explains.

    Args:
        margin: (P,) rewards of better less worse.
        label: (P,) the probability that the better one is preferred.
        difference: (P,) characters of better less worse.

    Returns:
        - `longer wins`: the accuracy of preferring the longer response.
        - `right when longer`, `right when shorter`: accuracy where the better response is longer, or shorter.
        - `length-controlled`: the mean of these two; preferring the longer one always gives 1/2.
        - `without length`: accuracy of the margins less what a straight line through the origin explains of them by
          length. The line is fitted on the same pairs.
        - `choice by length`: the coefficient of the difference in length, in its standard deviations, in a logistic
          regression of the model's choice on length and label: 0 for a model that does not look at length.
    """
    right = _right(margin, label)
    longer, shorter = difference > 0, difference < 0
    when_longer, when_shorter = (float(right[mask].mean()) if mask.any() else math.nan for mask in (longer, shorter))
    square = float(np.square(difference).sum())
    slope = float((margin * difference).sum()) / square if square else 0.0
    return {
        "longer wins": float(_right(difference, label).mean()),
        "right when longer": when_longer,
        "right when shorter": when_shorter,
        "length-controlled": (when_longer + when_shorter) / 2,
        "without length": float(_right(margin - slope * difference, label).mean()),
        "choice by length": choice_by_length(margin, difference),
    }


def choice_by_length(margin: Floats, difference: Floats) -> float:
    """Return the coefficient of length in P(better is chosen) = sigmoid(label + coefficient * length), by Newton's
    method.

    A small ridge keeps it finite where length alone predicts every choice.
    """
    scale = float(np.sqrt(np.square(difference).mean()))
    if not scale:
        return 0.0
    design = np.stack([np.ones(len(margin)), difference / scale], axis=1)
    chosen = 0.5 + 0.5 * np.sign(margin)
    weights = np.zeros(2)
    for _ in range(NUM_STEPS):
        p = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (p - chosen) + 1e-3 * weights
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + 1e-3 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    return float(weights[1])


def selective(margin: Floats, label: Floats, doubt: Floats) -> dict[str, Any]:
    """Return what accuracy becomes where a model abstains from the pairs that it doubts most.

    Args:
        margin: (P,).
        label: (P,).
        doubt: (P,) higher where the model is less sure: minus |margin|, or the spread of its members' margins.

    Returns:
        `accuracy` at coverages of 50, 70, 90 and 100 %; `AUROC` and `average precision` of the doubt as a finder of
        wrong pairs (ties are neither right nor wrong and count nowhere).
    """
    right = _right(margin, label)
    order = np.argsort(doubt, kind="stable")
    accuracy = {f"{share:.0%}": float(right[order[: max(1, round(share * len(order)))]].mean()) for share in COVERAGES}
    sided = right != 0.5
    wrong = torch.from_numpy((right < 0.5)[sided].astype(np.int64))
    found: dict[str, Any] = {"accuracy": accuracy, "AUROC": math.nan, "average precision": math.nan}
    if 0 < int(wrong.sum()) < len(wrong):
        # torchmetrics takes scores outside of [0, 1] through a sigmoid, where large ones would tie: ranks do not.
        ranks = np.argsort(np.argsort(doubt[sided], kind="stable"), kind="stable")
        _, block = np.unique(doubt[sided], return_inverse=True)
        mean_rank = np.bincount(block, ranks) / np.bincount(block)
        score = torch.from_numpy((mean_rank[block] + 0.5) / len(ranks))
        found["AUROC"] = float(binary_auroc(score, wrong))
        found["average precision"] = float(binary_average_precision(score, wrong))
    return found


def spread_within_prompts(items: Items, rewards: Floats) -> dict[str, float]:
    """Say how far rewards lie apart within a prompt, where a policy is trained on their differences, and between
    prompts.

    Returns:
        `within`: the mean over prompts of the standard deviation of the rewards of a prompt's responses; `flat`, the
        share of prompts where it is below a tenth of that; `between`: the standard deviation of the prompts' means;
        `length`: Spearman's correlation of reward and length, both less their prompt's mean.
    """
    there = np.isfinite(rewards)
    cluster = np.broadcast_to(items.cluster[:, None], rewards.shape)[there]
    reward, length = rewards[there], items.length[there]
    number = np.bincount(cluster).astype(np.float64)
    several = number > 1
    means = np.bincount(cluster, reward) / np.maximum(number, 1)
    deviation = reward - means[cluster]
    sd = np.sqrt(np.bincount(cluster, np.square(deviation)) / np.maximum(number, 1))[several]
    log_length = np.log1p(length)
    log_length = log_length - (np.bincount(cluster, log_length) / np.maximum(number, 1))[cluster]
    return {
        "within": float(sd.mean()) if len(sd) else math.nan,
        "flat": float((sd < 0.1 * sd.mean()).mean()) if len(sd) else math.nan,
        "between": float(means[number > 0].std()),
        "length": _correlation(spearman_corrcoef, deviation, log_length),
    }


def health(margin: Floats, rewards: Floats) -> dict[str, float]:
    """Return mean, spread and range of rewards, ties, and the ties that bfloat16 would make of different rewards."""
    reward = rewards[np.isfinite(rewards)]
    rounded = torch.from_numpy(reward).to(torch.bfloat16).double().numpy()
    return {
        "mean": float(reward.mean()),
        "sd": float(reward.std()),
        "lowest": float(reward.min()),
        "highest": float(reward.max()),
        "margin sd": float(margin.std()),
        "ties": float((margin == 0).mean()),
        "below 0.1": float((np.abs(margin) < 0.1).mean()),
        "kept apart by bfloat16": len(np.unique(rounded)) / len(np.unique(reward)),
    }


def diagnose(
    items: Items, rewards: Floats, votes: Floats | None = None, temperature: float | None = None
) -> dict[str, Any]:
    """Return all diagnostics of one model on items, as plain numbers.

    Args:
        items: N of them.
        rewards: (N, K).
        votes: (N, K, M) of its members; None for a single model.
        temperature: fitted on other pairs, for calibration with it; None for none.
    """
    comparisons = items.comparisons
    kept = np.isfinite(comparisons.margins(rewards))
    margin, label = comparisons.margins(rewards)[kept], comparisons.label[kept]
    item, better, worse = comparisons.item[kept], comparisons.better[kept], comparisons.worse[kept]
    difference = items.length[item, better] - items.length[item, worse]
    strength = np.array([float(items[int(number)].facts.get("strength", math.nan)) for number in item])
    found: dict[str, Any] = {
        "pairs": len(margin),
        "accuracy": float(_right(margin, label).mean()),
        "calibration": calibration(margin, label),
        "by |margin|": by_quantile(np.abs(margin), margin, label, 5),
        "by length difference": by_quantile(difference, margin, label, 5),
        "length": length_effects(margin, label, difference),
        "spread": spread_within_prompts(items, rewards),
        "rewards": health(margin, rewards),
        "selective by |margin|": selective(margin, label, -np.abs(margin)),
    }
    if temperature is not None:
        found["temperature"] = temperature
        found["calibration with temperature"] = calibration(margin, label, temperature)
    if not np.isnan(strength).all():
        found["by strength"] = by_quantile(strength, margin, label, 10)
        known = ~np.isnan(strength)
        found["margin and strength"] = _correlation(spearman_corrcoef, margin[known], strength[known])
    if votes is not None:
        member_margins = votes[item, better] - votes[item, worse]
        found["selective by members' spread"] = selective(margin, label, member_margins.std(axis=1))
        found["members' agreement"] = float((np.sign(member_margins) == np.sign(margin)[:, None]).mean())
    return found


def _right(margin: Floats, label: Floats) -> Floats:
    """Return (P,), 1 where a margin agrees with the label, 1/2 for a tie, else 0."""
    return pair_credit(margin * np.sign(label - 0.5), "half")


def _correlation(measure: Any, first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return a correlation computed by torchmetrics; NaN where one side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(measure(torch.from_numpy(np.ascontiguousarray(first)), torch.from_numpy(np.ascontiguousarray(second))))
