"""What a micro-batch of training pairs adds to the sums that are logged, and the values that those sums give.

Sums are over pairs, so means are exact over micro-batches of any size and over any number of ranks. It knows losses and
rewards; not when they are logged, nor by whom.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.metrics.pairs import Sums, batch_statistics, summarize
from lightning_rm.modules.progress import Totals

STATISTICS = "statistics of pairs"
"""The name, among the sums, of those that the metrics are made of; no loss has this name."""


def counted(batch: PreferenceBatch, output: RewardOutput, losses: Mapping[str, Tensor], finite: Tensor) -> Totals:
    """Return what a micro-batch adds to the sums; zeros where its loss is not finite, for it changes no weight.

    Args:
        batch: P pairs.
        output: their rewards; of members the mean is taken.
        losses: means over the pairs, scalars by name.
        finite: whether the loss is, a flag.

    Returns:
        `STATISTICS`, a row for `Sums.unstack`, and the sum over the pairs of each loss.
    """
    mean = output.averaged()
    statistics = batch_statistics(mean.chosen, mean.rejected, batch).sum(0).where(finite, 0.0)
    num_pairs = Sums.unstack(statistics).pairs
    totals = {name: value.detach().to(num_pairs.dtype) * num_pairs for name, value in losses.items()}
    return {STATISTICS: statistics, **{name: total.where(finite, 0.0) for name, total in totals.items()}}


def mean_losses(totals: Totals) -> dict[str, Tensor]:
    """Return the mean of each loss over all pairs that the sums are of."""
    num_pairs = Sums.unstack(totals[STATISTICS]).pairs
    return {name: total / num_pairs for name, total in totals.items() if name != STATISTICS}


def metrics_of(totals: Totals) -> dict[str, Tensor]:
    """Return the metrics of all pairs that the sums are of."""
    return summarize(Sums.unstack(totals[STATISTICS]))
