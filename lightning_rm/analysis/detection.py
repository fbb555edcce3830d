"""Find wrong labels by preference strength: how often does a low score mean a wrong label? It knows only arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from lightning_rm.analysis.strength import Floats, known_pairs
from lightning_rm.metrics.intervals import normal_reach
from lightning_rm.metrics.scores import ranks

CUTS = {"mean": 0.0, "vote share": 0.5, "mean / std": 0.0}
"""Score -> the value below which most voters, or their mean, contradict the label."""


class Flagged(NamedTuple):
    """Pairs flagged up to each distinct score and the wrong ones among them, (K,) each, the lowest score first."""

    num_flagged: Floats
    num_found: Floats

    @property
    def precision(self) -> Floats:
        """(K,) share of the flagged pairs that are wrong."""
        return self.num_found / self.num_flagged

    @property
    def recall(self) -> Floats:
        """(K,) share of the wrong pairs that are flagged."""
        return self.num_found / self.num_found[-1]


class Detection(NamedTuple):
    """How well a low score finds wrong labels.

    `auroc_low` and `auroc_high` are the ends of a 95 % interval. `cut_*` tells of flagging the scores below `cut`
    (precision NaN where none is), `lowest_*` of flagging the `lowest` share of the pairs. `num_unknown` pairs have no
    known truth or no score and count nowhere.
    """

    auroc: float
    auroc_low: float
    auroc_high: float
    average_precision: float
    cut: float
    cut_precision: float
    cut_recall: float
    lowest: float
    lowest_precision: float
    lowest_recall: float
    num_pairs: int
    num_wrong: int
    num_unknown: int


def detection_scores(mean: ArrayLike, std: ArrayLike, share: ArrayLike) -> dict[str, Floats]:
    """Return three scores that are low where the label looks wrong: `mean`, `vote share` and `mean / std`.

    Args:
        mean: (N,) strength.
        std: (N,) standard deviation of the votes. Where it is 0 the voters are of one mind, and `mean / std` is
            infinite with the sign of the mean, or 0 if that is 0.
        share: (N,) share of the votes for the chosen response.
    """
    mean, std, share = (np.asarray(values, np.float64) for values in (mean, std, share))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((std == 0) & (mean == 0), 0.0, mean / std)
    return {"mean": mean, "vote share": share, "mean / std": ratio}


def flagged(score: ArrayLike, wrong: ArrayLike) -> Flagged:
    """Flag pairs from the lowest score up: the counts behind a precision-recall curve.

    Args:
        score: (N,) low where the label looks wrong; tied pairs are flagged at once.
        wrong: (N,) whether the label is wrong. Pairs without known truth or score (NaN) are left out.

    Raises:
        ValueError: if no pair is wrong, or all are: then there is nothing to find.
    """
    score, wrong = known_pairs(score, wrong)
    if not 0 < wrong.sum() < len(wrong):
        raise ValueError(f"{wrong.sum():.0f} of {len(wrong)} known labels are wrong; detection needs both kinds")
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    return Flagged(np.cumsum(counts).astype(np.float64), np.cumsum(np.bincount(place, wrong)).astype(np.float64))


def detection(score: ArrayLike, wrong: ArrayLike, cut: float = 0.0, lowest: float | None = None) -> Detection:
    """Say how well a low score finds wrong labels.

    AUROC is the chance that a wrong pair scores below a right one, a tie counting 1/2 (Mann-Whitney). Average precision
    is the sum of precision times the gain in recall over the distinct scores. Pairs tied at the edge of the
    lowest share each count in part, which is the mean over all orders of them.

    Args:
        score: (N,) low where the label looks wrong.
        wrong: (N,) whether the label is wrong.
        cut: flag the scores below it, see `CUTS`.
        lowest: the share of the pairs to flag, in (0, 1]; by default the share that is wrong, at which precision and
            recall are the same number.

    Raises:
        ValueError: if no pair is wrong, or all are, or `lowest` is not a share.
    """
    curve = flagged(score, wrong)
    known_score, known_wrong = known_pairs(score, wrong)
    num_pairs, num_wrong = len(known_wrong), float(known_wrong.sum())
    share = num_wrong / num_pairs if lowest is None else lowest
    if not 0 < share <= 1:
        raise ValueError(f"lowest={lowest} is not a share of the pairs; give a number above 0 and up to 1")
    below = known_score < cut
    found = float(np.interp(share * num_pairs, np.append(0, curve.num_flagged), np.append(0, curve.num_found)))
    # Places among the distinct scores: torchmetrics takes what lies outside of [0, 1] through a sigmoid, where
    # large scores would tie.
    distinct, place = np.unique(known_score, return_inverse=True)
    suspicion, target = torch.from_numpy(1 - place / len(distinct)), torch.from_numpy(known_wrong).long()
    low, high = auroc_interval(known_score, known_wrong)
    return Detection(
        auroc=float(binary_auroc(suspicion, target)),
        auroc_low=low,
        auroc_high=high,
        average_precision=float(binary_average_precision(suspicion, target)),
        cut=cut,
        cut_precision=float(known_wrong[below].mean()) if below.any() else float("nan"),
        cut_recall=float(known_wrong[below].sum()) / num_wrong,
        lowest=share,
        lowest_precision=found / (share * num_pairs),
        lowest_recall=found / num_wrong,
        num_pairs=num_pairs,
        num_wrong=int(num_wrong),
        num_unknown=np.asarray(score).size - num_pairs,
    )


def auroc_interval(score: ArrayLike, wrong: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return an interval of the AUROC by DeLong's variance (DeLong, DeLong and Clarke-Pearson, Biometrics 1988).

    It is one of `log(AUROC / (1 - AUROC))`, taken back: near 1 the AUROC itself is too skewed. Five wrong labels among
    25, AUROC .95: it holds the truth 97 times in 100, and one of the AUROC itself 71 times.

    Pairs are taken as independent: those of one prompt are not quite. Where one label alone is wrong, or right, or the
    score tells the two apart without a fault, nothing is known of the spread.

    Args:
        score: (N,) low where the label looks wrong, none NaN.
        wrong: (N,) whether the label is wrong, some and not all.
        level: of the interval.

    Returns:
        Its ends, within (0, 1); NaN where nothing is known of the spread.
    """
    score, wrong = np.asarray(score, np.float64), np.asarray(wrong).astype(bool)
    num_wrong, num_right = int(wrong.sum()), int((~wrong).sum())
    if min(num_wrong, num_right) < 2:
        return float("nan"), float("nan")
    rank, rank_wrong, rank_right = (
        ranks(torch.from_numpy(part)).numpy() for part in (score, score[wrong], score[~wrong])
    )
    # For each wrong label the share of right ones above it, for each right one the share of wrong ones below it.
    above = 1 - (rank[wrong] - rank_wrong) / num_right
    below = (rank[~wrong] - rank_right) / num_wrong
    variance = above.var(ddof=1) / num_wrong + below.var(ddof=1) / num_right
    if variance == 0:
        return float("nan"), float("nan")
    middle = float(above.mean())
    reach = normal_reach(level) * math.sqrt(variance) / (middle * (1 - middle))
    odds = middle / (1 - middle)
    return odds / (odds + math.exp(reach)), odds / (odds + math.exp(-reach))
