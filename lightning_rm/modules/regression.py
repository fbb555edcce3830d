"""`RegressionRM`: rewards that are scores, of one attribute or of several whose weighted sum is the reward."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.counts import is_number
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.linear_head import LinearHead, linear_head, set_whole, whole
from lightning_rm.modules.measured import first_of_each
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.requirements import Target, TrainPairs
from lightning_rm.options import check_words

RegressionLoss = Literal["mse", "bce"]


class RegressionRM(PairwiseRM):
    """Regression on scores (SteerLM and HelpSteer2, arXiv 2406.08673), attributes that nobody scored left out.

    A row is one response with its score or attributes, or k of them to a prompt (`data=scored`). Of several attributes
    each has a linear head without a bias, and the reward is their sum by given weights, which is again one linear map:
    that one is measured, and exported as an ordinary reward model. NVIDIA's second stage (arXiv 2410.01257) trains it
    further on pairs, with the head it has: load the exported folder.

    Validation and test sets that have scores are measured by the correlations of rewards with them too
    (`metrics.scores`), which is all that responses without a second one can be measured by:
    `monitor=val/score_rank_correlation` keeps the weights that order them best.

    Args:
        model, optimizer, scheduler, head_lr, max_skipped, spike_factor: as in `PairwiseRM`.
        attributes: name -> weight in the reward; None for data with one attribute, whose score is the reward.
        loss: `mse`, or `bce`, the cross-entropy of the score against the sigmoid of the reward.
        bounds: the lowest and the highest score, which are taken to 0 and 1; None leaves scores as they are.
        seed: of the attributes' heads.

    Raises:
        ValueError: if an option is out of its range, or the model's head is not one linear map where attributes are.
    """

    reads_single_responses = True

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        attributes: Mapping[str, float] | None = None,
        loss: RegressionLoss = "mse",
        bounds: tuple[float, float] | None = None,
        seed: int = 0,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        check_words(get_args(RegressionLoss), loss=loss)
        if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
            raise ValueError(f"bounds={list(bounds)}; give the lowest and the highest score, [0, 4]")
        if wrong := [name for name, weight in (attributes or {}).items() if not is_number(weight)]:
            raise ValueError(f"attributes={dict(attributes or {})}: the weight of {wrong[0]!r} is not a number")
        if attributes is not None and not any(attributes.values()):
            raise ValueError(f"attributes={dict(attributes)}; name one at least that has a weight")
        if model.num_rewards != 1:
            raise ValueError("module=regression trains one model, without members")
        self.attributes = None if attributes is None else dict(attributes)
        self.loss: RegressionLoss = loss
        self.bounds = bounds
        self.heads: LinearHead | None = None
        if self.attributes is not None and [*self.attributes.values()] != [1]:
            linear_head(model, "module.attributes of several names, or with a weight,")
            self.heads = LinearHead(model.hidden_size, len(self.attributes), seed)

    @property
    def reads(self) -> frozenset[Target]:
        """Weights; beside them scores, which are no treatment's."""
        return frozenset({"weight"})

    def check_pairs(self, pairs: TrainPairs) -> None:
        """Check the scores of the training rows.

        Raises:
            ValueError: if an attribute is not among them, none is chosen of several, or a score is not within bounds.

        Warns:
            UserWarning: if rows are left out whose responses all have one score.
        """
        super().check_pairs(pairs)
        if pairs.num_tied:
            warnings.warn(
                f"{pairs.num_tied:,} rows are left out, for all of their responses have one score, and make no pair; "
                "regression needs none: set data.ties=keep",
                stacklevel=2,
            )
        scores = pairs.scores[..., self._places(pairs.attributes)]
        if np.isnan(scores).all():
            raise ValueError("module=regression needs scores, and no row has one; give it data=scored")
        low, high = self.bounds or ((0.0, 1.0) if self.loss == "bce" else (-np.inf, np.inf))
        found = np.nanmin(scores), np.nanmax(scores)
        if found[0] < low or found[1] > high:
            raise ValueError(
                f"scores go from {found[0]:g} to {found[1]:g}, and {low:g} to {high:g} is read: set "
                f"module.bounds=[{found[0]:g},{found[1]:g}], or mend the data"
            )

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the model's own head too where attributes have theirs: it is their sum."""
        yield from super().idle_parameters()
        if self.heads is not None:
            yield from self.model.head_parameters()

    def forward(self, batch: PreferenceBatch | GroupBatch) -> RewardOutput:
        """Return rewards (2, P), of several attributes their weighted sum, and features (2, P, H)."""
        output: RewardOutput = self.model(batch.tokens)
        if self.heads is None:
            return output
        return replace(output, reward=self._weighted(self.heads(output.feature)))

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the mean over pairs of the mean over the scores that are known of a pair's two responses.

        Of k responses to a prompt, of which some make more pairs than others, each counts once.
        """
        predicted = output.reward[..., None] if self.heads is None else self.heads(output.feature)
        target = batch.scores[..., self._places(batch.attributes)].to(predicted.dtype)
        known = ~target.isnan()
        target = target.nan_to_num(nan=0.0)
        if self.bounds is not None:
            target = (target - self.bounds[0]) / (self.bounds[1] - self.bounds[0])
        if self.loss == "bce":
            losses = F.binary_cross_entropy_with_logits(predicted, target.where(known, 0.0), reduction="none")
        else:
            losses = (predicted - target).square()
        counts = known & first_of_each(batch)[..., None]
        total, number = (losses * counts).sum((0, 2)), counts.sum((0, 2))
        same_list = batch.group[:, None] == batch.group
        of_lists = (total * same_list).sum(1) / (number * same_list).sum(1).clamp(min=1)
        loss = (batch.weight * of_lists).mean()
        return {"loss": loss, self.loss: loss}

    def scores(self, batch: PreferenceBatch | GroupBatch) -> Tensor | None:
        """Return the score of each response, (2, P): of several attributes their weighted sum, where all are known.

        None of a set that lacks one of them, such as pairs without scores.
        """
        if isinstance(batch, GroupBatch) or not {*(self.attributes or batch.attributes[:1])} <= {*batch.attributes}:
            return None
        scores = batch.scores[..., self._places(batch.attributes)]
        return scores[..., 0] if self.heads is None else self._weighted(scores)

    def export(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the reward model; of several attributes with the one head that is their weighted sum."""
        self.merge_heads()
        super().export(folder, tokenizer)

    def measured_model(self) -> AnyRewardModel:
        """Return the model with the head that it is measured with."""
        self.merge_heads()
        return self.model

    def on_validation_start(self) -> None:
        """Give the model the head that it is measured with, for callbacks that ask the model itself."""
        super().on_validation_start()
        self.merge_heads()

    def on_train_end(self) -> None:
        """Leave the model with the head that was trained, for whoever saves it or asks it from here."""
        self.merge_heads()

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **arguments: Any) -> Self:
        """Return the module as a checkpoint has it; the model has the head of the attributes of that step."""
        module = super().load_from_checkpoint(*args, **arguments)
        module.merge_heads()
        return module

    @torch.no_grad()
    def merge_heads(self) -> None:
        """Make the model's head the attributes' weighted sum."""
        if self.heads is not None:
            head = linear_head(self.model, "module.attributes")
            heads = whole(self.heads.weight)
            set_whole(head, (self._weights(heads) @ heads)[None])

    def _weighted(self, scores: Tensor) -> Tensor:
        """Return (...,), the weighted sum of (..., A): no product of matrices, which autocast would round."""
        return (scores * self._weights(scores)).sum(-1)

    def _weights(self, like: Tensor) -> Tensor:
        assert self.attributes is not None
        return torch.tensor(list(self.attributes.values()), dtype=like.dtype, device=like.device)

    def _places(self, attributes: tuple[str, ...]) -> list[int]:
        """Return where the attributes that are asked for stand among those of the data."""
        if self.attributes is None:
            if len(attributes) > 1:
                weights = ", ".join(f"{name}: 1" for name in attributes)
                raise ValueError(
                    f"the data has several attributes; give their weights: module.attributes={{{weights}}}"
                )
            return [0]
        if missing := [name for name in self.attributes if name not in attributes]:
            raise ValueError(f"module.attributes names {missing[0]!r}, and the data has {', '.join(attributes)}")
        return [attributes.index(name) for name in self.attributes]
