"""What a micro-batch of training pairs adds to the sums that are logged, and the values that those sums give.

Metrics are sums over pairs, and losses sums over what they are means over: pairs, or lists of scored responses, each of
which counts once however many pairs it makes. So means are exact over micro-batches of any size and over any number of
ranks. It knows losses and rewards; not when they are logged, nor by whom.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.metrics.pairs import Sums, batch_statistics, summarize
from lightning_rm.modules.progress import Totals

STATISTICS = "statistics of pairs"
"""The name, among the sums, of those that the metrics are made of; no loss has this name."""

LISTS = "number of lists"
"""The name, among the sums, of how many lists the losses are of: a pair that is none's is one of its own."""

OF_EPOCH = (STATISTICS, LISTS, "loss")
"""The names of those that the metrics of an epoch are made of."""


def counted(batch: PreferenceBatch, output: RewardOutput, losses: Mapping[str, Tensor], finite: Tensor) -> Totals:
    """Return what a micro-batch adds to the sums; zeros where its loss is not finite, for it changes no weight.

    Args:
        batch: P pairs.
        output: their rewards; of members the mean is taken.
        losses: means over the lists, scalars by name.
        finite: whether the loss is, a flag.

    Returns:
        `STATISTICS`, a row for `Sums.unstack`, `LISTS`, and the sum over the lists of each loss.
    """
    mean = output.averaged()
    statistics = batch_statistics(mean.chosen, mean.rejected, batch).sum(0).where(finite, 0.0)
    num_lists = _num_lists(batch).to(statistics.dtype).where(finite, 0.0)
    totals = {name: value.detach().to(num_lists.dtype) * num_lists for name, value in losses.items()}
    return {
        STATISTICS: statistics,
        LISTS: num_lists,
        **{name: total.where(finite, 0.0) for name, total in totals.items()},
    }


def mean_losses(totals: Totals) -> dict[str, Tensor]:
    """Return the mean of each loss over all lists that the sums are of."""
    return {name: total / totals[LISTS] for name, total in totals.items() if name not in (STATISTICS, LISTS)}


def metrics_of(totals: Totals) -> dict[str, Tensor]:
    """Return the metrics of all pairs that the sums are of."""
    return summarize(Sums.unstack(totals[STATISTICS]))


def _num_lists(batch: PreferenceBatch) -> Tensor:
    """Return how many lists a batch has that are no fillers, a scalar: the pairs that are the first of theirs."""
    earlier = (batch.group[:, None] == batch.group).tril(-1)
    return (batch.valid & ~earlier.any(1)).sum()
