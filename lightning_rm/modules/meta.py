"""`MetaRM`: the ranking gradient is taken where the model tells responses of today's policy further apart."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast, get_args

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from transformers.modeling_layers import GradientCheckpointingLayer

from lightning_rm.batch import PreferenceBatch, ResponseBatch, RewardOutput
from lightning_rm.losses import difference_loss
from lightning_rm.metrics.groups import group_statistics
from lightning_rm.models.backbone.kernels import is_compiled
from lightning_rm.models.dropout import DropoutAt, add_dropout
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.sharding import reshard
from lightning_rm.modules.ascent import (
    Ascent,
    StepScale,
    average_over_ranks,
    choose_parameters,
    gradient_of,
    length_and_cosine,
    squared_norm,
)
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.contrast import ContrastFactory
from lightning_rm.modules.objective import Objective, RankingViews
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.second_order import model_above
from lightning_rm.modules.views import Forward


class MetaRM(PairwiseRM):
    """Minimise the ranking loss by its gradient at `theta' = theta + eta dJ/dtheta` (arXiv 2401.06080, eq 10-14).

    Every optimizer step first climbs, from theta, the difference loss J of a batch of response groups, which need no
    labels; takes the gradient of the pairs' loss at theta'; goes back to theta and has the optimizer step from there.
    A pair of margin z weighs sigma(-z'), where z' = z + eta <grad z, grad J>: one whose margin grows with J counts for
    less, one whose margin shrinks for more. This is the first-order method, as the authors ran it.

    With gradient accumulation J is summed over as many batches of groups as a step has batches of pairs, before the
    first of these. The response groups' dropout masks are drawn aside: with `ascent_lr=0` a step is the plain one, bit
    for bit.

    What is logged of the pairs under `train/` is at theta', where their gradient is taken; `val/` and `test/` are of
    theta.

    A step whose J, loss or gradient is not finite changes no weight and is counted as `train/skipped_steps`.

    Args:
        model: the reward model.
        optimizer: from parameter groups to an optimizer.
        scheduler: from (optimizer, number of steps) to a schedule; None keeps the learning rate.
        head_lr: the head's learning rate; None takes the optimizer's.
        ascent_lr: eta. 5e-6 is the paper's, for 7B parameters; a model of another size hardly moves at that rate:
            look at `train/ascent_length`. A negative rate goes down: the pairs' gradient is then taken where the
            policy's responses are harder to tell apart, as SAM takes it where the loss is higher.
        ascent_scale: `sgd`, the paper's plain step; `norm`, of length eta whatever the gradient, as in SAM (arXiv
            2010.01412); `relative`, of length eta times the norm of the moved weights.
        ascent_part: which weights are moved: `all`, `head`, `adapters` or `last:N`.
        second_order: differentiate through the plain ascent too (one device, no accumulation): for small models.
        difference_cap: differences beyond it are not rewarded; None for no cap.
        reward_penalty: weight in J of minus the mean square of the rewards, so that J does not grow by scale alone.
        agreed_only: whether only differences count whose sign all voters of the response data agree on.
        max_skipped: as in `PairwiseRM`; J counts too.
        contrast: from the size of a feature to a contrast, as in `ContrastiveRM`; None for none.
        beta: the contrast's weight.
        ranking_views: `both`, or `first` to rank by one view alone.
        dropout_at: where a dropout of ours is, beside the backbone's own: `embeddings`, `features` or None.
        dropout: its probability.
        distill: weight of the regression of margins on strengths; ranking has `1 - distill`.
        centering: weight of the mean of `(r_chosen + r_rejected)^2`.

    Raises:
        ValueError: if an option is out of its range; in training, if batches bring no responses, or `max_skipped`
            steps in a row were not finite.
    """

    reads_treatments = True
    reads_responses = True

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        ascent_lr: float = 5e-6,
        ascent_scale: StepScale = "sgd",
        ascent_part: str = "all",
        second_order: bool = False,
        difference_cap: float | None = None,
        reward_penalty: float = 0.0,
        agreed_only: bool = False,
        max_skipped: int = 10,
        contrast: ContrastFactory | None = None,
        beta: float = 1.0,
        ranking_views: RankingViews = "both",
        dropout_at: DropoutAt | None = None,
        dropout: float = 0.05,
        distill: float = 0.0,
        centering: float = 0.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped)
        if reward_penalty < 0:
            raise ValueError(f"reward_penalty={reward_penalty} cannot be negative")
        if ascent_scale not in get_args(StepScale):
            raise ValueError(f"ascent_scale={ascent_scale!r}; it must be one of {', '.join(get_args(StepScale))}")
        if difference_cap is not None and difference_cap <= 0:
            raise ValueError(f"difference_cap={difference_cap}: give a number above 0, or null for no cap")
        if second_order and ascent_scale != "sgd":
            raise ValueError(f"second_order=true is of the plain step: set ascent_scale=sgd, not {ascent_scale}")
        if contrast is not None and model.num_rewards > 1:
            raise ValueError(
                "a contrast is of one reward model's features: leave out the members (~members) or it (~contrast)"
            )
        if dropout_at is not None:
            add_dropout(model, dropout_at, dropout)
        choose_parameters(model, ascent_part)
        self.ascent_lr = ascent_lr
        self.ascent_scale: StepScale = ascent_scale
        self.ascent_part = ascent_part
        self.second_order = second_order
        self.difference_cap = difference_cap
        self.reward_penalty = reward_penalty
        self.agreed_only = agreed_only
        self.objective = Objective(model.hidden_size, contrast, beta, ranking_views, distill, centering)
        self._ascent: Ascent | None = None
        self._model_above: Forward | None = None
        self._stepped: tuple[list[nn.Parameter], list[Tensor]] | None = None  # of the exact step that is logged
        self._climbed: list[Tensor] = []  # of the step's ascent, what must be finite
        self._seen: dict[str, Tensor] = {}
        self.register_state_dict_pre_hook(_at_theta)

    def forward(self, batch: PreferenceBatch | ResponseBatch) -> RewardOutput:
        """Rewards (k, P) and features (k, P, H); of pairs in training with a contrast, both in two views."""
        return self.objective.output(self._model_above or self.model, batch)

    @property
    def needs_strengths(self) -> bool:
        """Whether strengths are distilled."""
        return self.objective.distill > 0

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """The loss of the pairs, as of the weights that `output` was computed with."""
        return self.objective(batch, output)

    def difference(self, responses: ResponseBatch, reward: Tensor) -> Tensor:
        """The difference loss J of a batch of groups, with the options that guard it: a float32 scalar.

        Args:
            responses: G groups.
            reward: their rewards, (k, G), or (k, M, G) of members.
        """
        agreed = responses.agreed if self.agreed_only else None
        return difference_loss(reward, responses.present, agreed, self.difference_cap)

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        """One micro-batch's loss at theta'; the first of an optimizer step finds theta' first.

        Raises:
            ValueError: if there are no responses to climb by, or none has votes that are asked for.
        """
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._check(batch.responses)
        reshard(self)  # a validation leaves weights whole that are not those which are trained
        ascent = self._started()
        try:
            if batch.responses:
                ascent.forget()
                self._climbed, self._seen = [], {}
                if not self.second_order:
                    self._climb(batch.responses)
            ascent.go()
            with self._differentiable_ascent(batch.responses):
                return super().training_step(batch, batch_idx)
        except BaseException:
            ascent.back()
            raise

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The gradient at theta'; whatever happens, the model is at theta afterwards."""
        try:
            super().backward(loss, *args, **kwargs)
        finally:
            self._started().back()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Step from theta by the gradient at theta', or not at all if anything was not finite."""
        self.objective.before_step(self.global_step, self.trainer.estimated_stepping_batches)
        ascent = self._started()
        if self._is_logged():
            compared = ascent.compared() or (self._stepped and length_and_cosine(*self._stepped))
            if compared:
                length, cosine = compared
                self._seen["ascent_length"] = length
                self._seen["gradient_cosine"] = math.copysign(1, self.ascent_lr) * cosine  # of J's, whichever way
                self._seen["ascent_relative"] = length / squared_norm(ascent.parameters).sqrt()
        self._stepped = None
        ascent.forget()
        self.end_step(optimizer, *self._climbed)

    def way_out(self) -> str:
        """What to do about steps that are not finite."""
        return f"{super().way_out()}, or lower ascent_lr={self.ascent_lr}"

    def diagnostics(self) -> dict[str, Tensor]:
        """Of the last step: J and the mean distance before the ascent, J after it, its length, the cosine."""
        return {**self._seen, **self.objective.geometry()}

    def on_fit_start(self) -> None:
        """Begin anew; say what does not go together before anything is trained."""
        self._ascent = None  # another strategy may have replaced the parameters
        self._stepped = None
        self.objective.start()
        if self.trainer.precision == "16-mixed":
            raise ValueError("MetaRM does not scale its ascent for float16: use precision=bf16-mixed or 32-true")
        if not self.second_order:
            return
        layers = [layer for layer in self.model.modules() if isinstance(layer, GradientCheckpointingLayer)]
        checkpointing = any(layer.gradient_checkpointing for layer in layers)
        several = self.trainer.world_size > 1 or self.trainer.accumulate_grad_batches > 1
        if several or checkpointing or is_compiled(self.model):
            raise ValueError(
                "second_order=true differentiates through the ascent, on one device, without gradient accumulation, "
                "gradient checkpointing and compiled layers; set second_order=false for all else"
            )

    def configure_callbacks(self) -> list[L.Callback]:
        """One that leaves the model at theta, whatever ends the run and wherever."""
        return [_BackToTheta()]

    def _check(self, responses: Sequence[ResponseBatch]) -> None:
        """Raise if a step has nothing to climb by."""
        if not responses:
            raise ValueError("MetaRM climbs the difference loss of response groups: give the data module responses=")
        # Where no voter was asked all responses are agreed, with themselves too.
        if self.agreed_only and any(bool(groups.agreed[0, 0].any()) for groups in responses):
            raise ValueError(
                "agreed_only=true needs the votes of voters on the responses, and some have none: sample them with "
                "voters='runs/vote/*', or set agreed_only=false"
            )

    def _started(self) -> Ascent:
        if self._ascent is None:  # not before the model is sharded, which replaces its parameters
            self._ascent = Ascent([parameter for _, parameter in choose_parameters(self.model, self.ascent_part)])
        return self._ascent

    def _climb(self, responses: Sequence[ResponseBatch]) -> None:
        """From theta to theta' by the gradient of J over all micro-batches of the step."""
        ascent = self._started()
        for parameter in self.parameters():
            parameter.grad = None  # of the step before: the trainer would forget it only after this
        heights: list[Tensor] = []
        with self._aside():
            for groups in responses:
                climbed, height = self._height(groups)
                heights.append(height)
                with torch.autocast(self.device.type, enabled=False):  # the float32 head's backward stays float32
                    sound = torch.where(height.isfinite(), 1.0, torch.nan)  # known from the gradient, on all ranks
                    (climbed * sound / len(responses)).backward()
        gradients = [gradient_of(parameter) for parameter in ascent.parameters]
        for parameter in self.parameters():
            parameter.grad = None
        average_over_ranks(gradients)
        square = squared_norm(gradients)
        self._climbed.append(square)
        self._seen["difference_loss"] = torch.stack(heights).mean()
        if not math.isfinite(square.item()):
            return
        ascent.start(gradients, self._rate(square.sqrt(), ascent.parameters))
        del gradients
        if self._is_logged():
            seen = self._seen.copy()
            with torch.no_grad(), self._aside():
                after = [self._height(groups)[1] for groups in responses]
            self._seen = {**seen, "difference_loss_after": torch.stack(after).mean()}

    def _height(self, responses: ResponseBatch) -> tuple[Tensor, Tensor]:
        """What is climbed, J less the penalty on rewards, and J alone without gradient; notes the mean |difference|."""
        reward = self.model(responses.tokens).reward
        height = self.difference(responses, reward)
        if self._is_logged():
            mean = reward.mean(1) if reward.ndim == 3 else reward
            statistics = group_statistics(mean, responses.present, responses.gold)
            self._seen["difference"] = statistics.difference.sum() / statistics.groups.sum()
        if not self.reward_penalty:
            return height, height.detach()
        present = responses.present.view(len(reward), *[1] * (reward.ndim - 2), -1).expand_as(reward)
        penalty = (reward.square() * present).sum() / present.sum()
        return height - self.reward_penalty * penalty, height.detach()

    def _rate(self, norm: Tensor, parameters: Sequence[Tensor]) -> Tensor | float:
        """What the gradient is multiplied by, for a gradient of this norm."""
        if self.ascent_scale == "sgd":
            return self.ascent_lr
        length = self.ascent_lr if self.ascent_scale == "norm" else self.ascent_lr * squared_norm(parameters).sqrt()
        return length / norm.clamp(min=torch.finfo(norm.dtype).tiny)

    @contextmanager
    def _differentiable_ascent(self, responses: Sequence[ResponseBatch]) -> Generator[None]:
        """The model at theta' as a function of theta, where the ascent is differentiated too."""
        if not self.second_order:
            yield
            return
        with sdpa_kernel(SDPBackend.MATH):  # the one whose gradient has a gradient
            with self._aside():
                climbed, height = self._height(responses[0])
            above = model_above(self.model, self.ascent_part, climbed, self.ascent_lr)
            self._climbed += [squared_norm(above.steps), height]
            self._seen["difference_loss"] = height
            if self._is_logged():
                with torch.no_grad(), self._aside():
                    reward = above.model(responses[0].tokens).reward
                self._seen["difference_loss_after"] = self.difference(responses[0], reward)
                self._stepped = above.parameters, above.steps
            self._model_above = above.model
            del above  # its steps
            try:
                yield
            finally:
                self._model_above = None

    def _is_logged(self) -> bool:
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]  # set, not declared
        return bool(every) and (self.global_step + 1) % every == 0  # 0 is never

    @contextmanager
    def _aside(self) -> Generator[None]:
        """Random numbers for dropout that are not missed afterwards."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            yield


class _BackToTheta(L.Callback):
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        _at_theta(pl_module)


def _at_theta(module: nn.Module, *_: Any) -> None:
    """What is saved is theta, also when a signal saves in the middle of a step; that step then ends in an error."""
    ascent = cast(MetaRM, module)._ascent  # pyright: ignore[reportPrivateUsage]  # its own
    if ascent is not None:
        ascent.back()
