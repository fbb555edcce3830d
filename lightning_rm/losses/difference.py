"""MetaRM's difference loss: how far apart a reward model holds the responses to one prompt. It knows rewards alone."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_rm.precision import wide


def difference_loss(
    reward: Tensor, present: Tensor | None = None, agreed: Tensor | None = None, cap: float | None = None
) -> Tensor:
    """Return J, to be maximised: the mean over prompts of `2 / k^2 sum_{i<j} sigmoid(|r_i - r_j|)` (arXiv 2401.06080,
    eq 11).

    With k responses it lies in `[(k - 1) / 2k, (k - 1) / k)`: for five, from 0.4 where all rewards are equal to below
    0.8. Equal rewards have no gradient: nothing says which of them should rise.

    Args:
        reward: (k, G) rewards of k responses to each of G prompts, or (k, M, G) of M members.
        present: (k, G) bool, False where a group has fewer than k responses; its own number counts then. None for all.
        agreed: (k, k, G) bool, the pairs of responses that count; None for all. The others add nothing to the sum.
        cap: differences beyond it count as much as it and have no gradient; None for no cap.

    Returns:
        A float32 scalar.
    """
    reward = wide(reward)
    k, groups = reward.shape[0], reward.shape[-1]
    if present is None:
        present = torch.ones(k, groups, dtype=torch.bool, device=reward.device)
    counted = present[:, None] & present[None, :]
    counted &= torch.ones(k, k, dtype=torch.bool, device=reward.device).triu(1)[..., None]
    if agreed is not None:
        counted &= agreed
    if reward.ndim == 3:
        counted = counted[:, :, None]
    difference = (reward[:, None] - reward[None, :]).abs()
    if cap is not None:
        difference = difference.clamp(max=cap)
    summed = (difference.sigmoid() * counted).sum((0, 1))
    return (2 * summed / present.sum(0).square()).mean()
