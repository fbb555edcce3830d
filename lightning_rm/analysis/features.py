"""Features of pairs: what the head of a reward model reads, gathered, measured and projected to a plane.

It knows a reward model, tokenised pairs and tensors; not where models lie, nor how features are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.metrics.pairs import Sums, pair_statistics, summarize
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.engine import forwards


@dataclass(frozen=True)
class Features:
    """Features and rewards of P pairs by one reward model.

    Args:
        feature: (2, P, H), the chosen responses' first.
        reward: (2, P), the mean of the members where there are several.
        row: (P,) long, the pairs' rows in their data set.
        accuracy: of these P pairs, as `PairMetrics` has it.
        num_available: pairs of the data set, from which the P were taken.
    """

    feature: Tensor
    reward: Tensor
    row: Tensor
    accuracy: float
    num_available: int

    def differences(self) -> Features:
        """Return the same of `f(chosen) - f(rejected)` and of its negative (arXiv 2401.06080, 3.1), with the margin
        as reward.
        """
        difference, margin = self.feature[0] - self.feature[1], self.reward[0] - self.reward[1]
        return replace(self, feature=torch.stack([difference, -difference]), reward=torch.stack([margin, -margin]))


class Plane(NamedTuple):
    """N points in a plane, (N, 2) float64, and the names of its two axes."""

    points: Tensor
    axes: tuple[str, str]


def collect_features(
    model: AnyRewardModel,
    pairs: PairDataset,
    *,
    layout: LayoutSetting = "padded",
    batch_pairs: int = 16,
    max_pairs: int | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Features:
    """Gather the features and rewards of pairs, in batches and without gradient.

    Args:
        model: put into evaluation mode for the call and back; the device is its own.
        pairs: tokenised for this model.
        layout: how they are laid out, or `auto`; features are the same.
        batch_pairs: pairs a forward.
        max_pairs: the most pairs to read, spread evenly over the data set; None reads all.
        autocast: a context for the forward, such as `Fabric.autocast`.

    Raises:
        ValueError: if fewer than two pairs are read, a conversation is longer than the model reads, or a feature is not
            finite.
    """
    num_pairs = len(pairs) if max_pairs is None else min(max_pairs, len(pairs))
    if num_pairs < 2:
        raise ValueError(f"{pairs.name}: {num_pairs} of {len(pairs)} pairs are read; features need two or more")
    rows = np.arange(num_pairs) * len(pairs) // num_pairs
    longest = pairs.lengths[rows].max(1)
    if model.max_tokens is not None and longest.max() > model.max_tokens:
        raise ValueError(
            f"{pairs.name}: a conversation has {longest.max()} tokens and the model reads {model.max_tokens}; "
            f"set max_tokens={model.max_tokens}"
        )
    feature = torch.empty(num_pairs, 2, model.hidden_size, dtype=model.reward_dtype)
    reward = torch.empty(num_pairs, 2, dtype=model.reward_dtype)
    sequences = [tuple(ids) for row in rows.tolist() for ids in pairs.sample(row).sequences]
    with autocast():
        for places, output in forwards(model, sequences, model, layout=layout, batch_size=2 * batch_pairs):
            output = output.averaged()
            feature.flatten(0, 1)[places] = output.feature[0].cpu().to(feature.dtype)
            reward.flatten()[places] = output.reward[0].cpu()
    feature, reward = feature.transpose(0, 1).contiguous(), reward.T.contiguous()
    if not feature.isfinite().all():
        raise ValueError(f"{pairs.name}: features are not finite; has the model's training diverged?")
    columns = pairs.columns(rows.tolist())
    sums = pair_statistics(reward[0], reward[1], columns["label"], columns["clean"], columns["length"])
    accuracy = summarize(Sums(*(field.sum(0) for field in sums)))["accuracy"]
    return Features(feature, reward, torch.from_numpy(rows), float(accuracy), len(pairs))


def separation(feature: Tensor) -> float:
    """Say how far apart two kinds of features lie: the squared distance of their means over the mean variance within.

    `|mean(f_c) - mean(f_r)|^2 / mean_i |f_i - mean of its kind|^2`, the mean over all 2P. It is 0 where both have one
    mean, and 4 where their means lie two standard deviations apart; NaN where all features are equal.

    Args:
        feature: (2, P, H).
    """
    feature = feature.double()
    means = feature.mean(1, keepdim=True)
    within = (feature - means).square().sum(-1).mean()
    return float((means[0] - means[1]).square().sum() / within)


def pca(feature: Tensor) -> Plane:
    """Return the projection to the two directions of most variance, each with the sign of its largest loading.

    Args:
        feature: (N, H), N and H at least 2.
    """
    centred = _centred(feature)
    _, size, direction = torch.linalg.svd(centred, full_matrices=False)
    direction = direction[:2]
    direction = direction * direction.gather(1, direction.abs().argmax(1, keepdim=True)).sign()
    share = (size.square() / size.square().sum()).tolist()
    return Plane(
        centred @ direction.T,
        (f"component 1 ({share[0]:.0%} of variance)", f"component 2 ({share[1]:.0%} of variance)"),
    )


def tsne(feature: Tensor) -> Plane:
    """Embed points by t-SNE (van der Maaten and Hinton, JMLR 2008) of scikit-learn, started from PCA, the same points
    each time.

    Distances between clusters, and the axes themselves, mean nothing.

    Args:
        feature: (N, H), N at least 4. The perplexity is 30, or (N - 1) / 3 where that is less.

    Raises:
        ValueError: if scikit-learn is not installed.
    """
    perplexity = min(30.0, (len(feature) - 1) / 3)
    points = (
        _manifold().TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(_centred(feature).numpy())
    )
    return Plane(torch.from_numpy(points).double(), ("t-SNE 1", "t-SNE 2"))


PROJECTIONS: dict[str, Callable[[Tensor], Plane]] = {"pca": pca, "tsne": tsne}
"""Every projection by its name in `conf/analyze.yaml`."""


def check_projection(projection: str) -> None:
    """Check that a projection is available, before models are loaded for it.

    Raises:
        ValueError: if it is unknown, or its package is not installed.
    """
    if projection not in PROJECTIONS:
        raise ValueError(f"projection={projection!r}: there are {', '.join(PROJECTIONS)}")
    if projection == "tsne":
        _manifold()


def _manifold() -> Any:
    """Import `sklearn.manifold`, which is not a dependency of this package."""
    try:
        return import_module("sklearn.manifold")
    except ImportError as error:
        raise ValueError(
            "projection=tsne needs scikit-learn: pip install 'lightning-rm[tsne]', or take projection=pca"
        ) from error


def _centred(feature: Tensor) -> Tensor:
    """Return the features as (N, H) float64 of mean 0."""
    flat = feature.double().flatten(0, -2)
    return flat - flat.mean(0)
