"""What every contrast is, and what it compares: samples of the features of P pairs, in two views.

A contrast makes samples of features, compares their views and keeps what it learns beside the reward model: a
projection, prototypes, a queue. These are in checkpoints and in no exported folder. How views come about is not known
here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_rm.models.backbone.contexts import seeded
from lightning_rm.precision import wide

Samples = Literal["responses", "difference"]
"""What is contrasted: `responses`, H = {f_c, f_r}; or `difference`, H = {f_c - f_r, f_r - f_c}.

A response that stands for a pair with itself has no difference, and is no sample of these."""


class Contrasted(NamedTuple):
    """What a contrast says of n samples.

    Args:
        loss: a float32 scalar.
        first: (n, D) the first views as they were compared, projected if so, and normalised, without gradient.
        second: (n, D) the second views.
        share: (n, K) what the first views predict of K prototypes, where there are any.
        counted: (n,) bool, those that are samples; None for all.
    """

    loss: Tensor
    first: Tensor
    second: Tensor
    share: Tensor | None = None
    counted: Tensor | None = None


class Contrast(nn.Module, ABC):
    """Compares two views of samples, and may keep what it learns."""

    @abstractmethod
    def forward(self, first: Tensor, second: Tensor, index: Tensor, weight: Tensor | None = None) -> Contrasted:
        """Compare the features (2, P, H) of P pairs in each view; P is 0 where a rank has run out of pairs.

        `index` (2, P) names the responses: equal numbers are one response, whatever pairs and ranks it stands in.
        `weight` (P,) is each pair's in the mean, None for 1: a list counts once, however many pairs it makes.
        """

    def before_step(self, step: int, num_steps: float) -> None:
        """Do what is due before an optimizer step, with all gradients there; here nothing.

        Args:
            step: optimizer steps taken.
            num_steps: of the whole run; infinite where it has no planned end.
        """


ContrastFactory = Callable[[int], Contrast]
"""From the size of a feature to a `Contrast`: `functools.partial(SimCSE, samples="difference")`."""


def samples_of(feature: Tensor, samples: Samples) -> Tensor:
    """Return what is contrasted, in float32: the samples of chosen, then those of rejected.

    Args:
        feature: (2, P, H) features of chosen and rejected.
        samples: `responses` or `difference`.

    Returns:
        (2P, H). The other sample of row i's pair is row `(i + P) % 2P`.
    """
    chosen, rejected = wide(feature)
    if samples == "difference":
        chosen, rejected = chosen - rejected, rejected - chosen
    return torch.cat([chosen, rejected])


def names_of(index: Tensor, samples: Samples) -> Tensor:
    """Return names of a batch's 2P samples: equal ones are of one response, or of one pair of responses in one order.

    Args:
        index: (2, P) names of the responses.
        samples: `responses` or `difference`.

    Returns:
        (2P, 1) or (2P, 2), in the order of `samples_of`.
    """
    own, other = index.flatten(), index.flip(0).flatten()
    return torch.stack([own, other] if samples == "difference" else [own], dim=1)


def counted_of(names: Tensor) -> Tensor:
    """Return (n,) bool, False for the differences of a response to itself, from what `names_of` returned.

    Such a difference is 0 whatever is learned: it would pull at nothing, and be a negative of every other one.
    """
    if names.shape[1] == 1:
        return torch.ones_like(names[:, 0], dtype=torch.bool)
    return names[:, 0] != names[:, 1]


def projection_head(feature_size: int, size: int | None, seed: int) -> nn.Module:
    """Return two layers from features to `size` numbers; without a size, nothing."""
    if size is None:
        return nn.Identity()
    with seeded(seed):
        return nn.Sequential(nn.Linear(feature_size, feature_size), nn.ReLU(), nn.Linear(feature_size, size))


def of_samples(weight: Tensor | None, samples: Tensor) -> Tensor | float:
    """Return (2P,) the weights of both samples of P pairs, in the samples' dtype; 1 for None."""
    return 1.0 if weight is None else weight.to(samples.dtype).repeat(2)


def unit(rows: Tensor) -> Tensor:
    """Return rows of length one; a row of 0 stays."""
    return F.normalize(rows, dim=-1)
