"""What an evaluation measures on each data set: exact metrics, and how many rewards are not finite.

It knows batches and rewards; no model, no trainer and no files.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Literal, cast

from torch import Tensor

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.counts import number_of
from lightning_rm.metrics.groups import GroupMetrics
from lightning_rm.metrics.pairs import PairMetrics
from lightning_rm.metrics.scores import ScoreMetrics
from lightning_rm.metrics.text import TextMetrics
from lightning_rm.modules.progress import AcrossRanks

EvaluationStage = Literal["val", "test"]


def metric_prefix(stage: EvaluationStage, data_set: str) -> str:
    """Name what the metrics of a data set are logged under: `val` for the set of that name, `val/hard` for another."""
    return stage if data_set == stage else f"{stage}/{data_set}"


def warn_not_finite(numbers: Mapping[str, int], num_steps: int) -> None:
    """Warn of sets that have rewards that are not finite, after so many optimizer steps."""
    for prefix, number in numbers.items():
        warnings.warn(
            f"{prefix}: {number:,} pairs or groups have a reward that is not finite, after "
            f"{number_of(num_steps, 'optimizer step')}; has training diverged?",
            stacklevel=2,
        )


class Measured:
    """Metrics by data set, from the first batch of an evaluation to its last."""

    def __init__(self) -> None:
        self._metrics: dict[str, PairMetrics | GroupMetrics | TextMetrics] = {}
        self._scores: dict[str, ScoreMetrics] = {}
        self._not_finite: dict[str, Tensor] = {}

    def update(
        self, batch: PreferenceBatch | GroupBatch, output: RewardOutput, scores: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Count a batch in the metrics of its data set.

        Args:
            batch: P pairs, or P groups of k responses.
            output: their rewards; of members the mean is taken.
            scores: (2, P) of the responses, NaN where nobody gave one, to hold rewards against; None for none. A
                response of several pairs counts once.

        Returns:
            `chosen` and `rejected` (P,) of pairs, `reward` (k, P) of groups, for callbacks.
        """
        output = output.averaged()
        bad = (~output.reward.isfinite().all(0) & batch.valid).sum()
        self._not_finite[batch.data_set] = self._not_finite.get(batch.data_set, 0) + bad
        metrics = self._metrics.get(batch.data_set)
        if metrics is None:
            metrics = GroupMetrics() if isinstance(batch, GroupBatch) else PairMetrics()
            self._metrics[batch.data_set] = metrics.to(output.reward.device)
        if isinstance(batch, GroupBatch):
            cast(GroupMetrics, metrics).update(output.reward, batch)
            return {"reward": output.reward}
        cast(PairMetrics, metrics).update(output.chosen, output.rejected, batch)
        if scores is not None:
            of_scores = self._scores.setdefault(batch.data_set, ScoreMetrics().to(output.reward.device))
            once = first_of_each(batch)
            of_scores.update(output.reward[once], scores[once])
        return {"chosen": output.chosen, "rejected": output.rejected}

    def update_text(self, batch: PreferenceBatch, loss: Tensor) -> None:
        """Count the text of a batch's chosen responses in the metrics of its data set, in place of rewards.

        Args:
            batch: P pairs, or a filler.
            loss: a scalar, the mean over the tokens of `response_index`.
        """
        bad = (~loss.isfinite() & batch.valid).sum()
        self._not_finite[batch.data_set] = self._not_finite.get(batch.data_set, 0) + bad
        metrics = self._metrics.setdefault(batch.data_set, TextMetrics().to(loss.device))
        cast(TextMetrics, metrics).update(loss, batch.valid.any() * batch.tokens.response_index.shape[1])

    def not_finite(self, stage: EvaluationStage, add_up: AcrossRanks) -> dict[str, int]:
        """Count the pairs or groups of all ranks whose reward was not finite, by prefix; sets without any left out."""
        numbers = {name: int(add_up(bad)) for name, bad in self._not_finite.items()}
        return {metric_prefix(stage, name): number for name, number in numbers.items() if number}

    def values(self, stage: EvaluationStage) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """Yield each data set's prefix and its exact metrics over all ranks, and forget what they were made of."""
        for name, metrics in self._metrics.items():
            yield metric_prefix(stage, name), metrics.compute()
            metrics.reset()
        for name, scores in self._scores.items():
            found = scores.compute()
            scores.reset()
            if found["num_scores"] > 0:
                yield metric_prefix(stage, name), found


def first_of_each(batch: PreferenceBatch) -> Tensor:
    """Return (2, P) bool, True at one place for each response of the batch: at the first where it stands in several
    pairs, and nowhere for fillers.

    Pairs (0, 1), (0, 2) and (1, 2) of one row give 1 0 0 of chosen and 1 1 0 of rejected.
    """
    name = (batch.group * (batch.side.max() + 1) + batch.side).where(batch.valid, -1)
    same = name.flatten()[:, None] == name.flatten()
    return (same.tril(-1).sum(1) == 0).view_as(name) & batch.valid
