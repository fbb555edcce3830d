"""`MetaRM`: the ranking gradient is taken where the model tells responses of today's policy further apart."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast, get_args

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from transformers.modeling_layers import GradientCheckpointingLayer

from lightning_rm.batch import PreferenceBatch, ResponseBatch, RewardOutput
from lightning_rm.losses import difference_loss
from lightning_rm.models.dropout import DropoutAt, add_dropout
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.ascent import (
    Ascent,
    StepScale,
    average_over_ranks,
    choose_parameters,
    inner_product,
    squared_norm,
)
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.contrast import ContrastFactory
from lightning_rm.modules.gather import world_size
from lightning_rm.modules.objective import Objective, RankingViews
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.second_order import model_above
from lightning_rm.modules.views import Forward


class MetaRM(PairwiseRM):
    """Minimise the ranking loss by its gradient at `theta' = theta + eta dJ/dtheta` (arXiv 2401.06080, eq 10-14).

    Every optimizer step first climbs, from theta, the difference loss J of a batch of response groups, which need no
    labels; takes the gradient of the pairs' loss at theta'; goes back to theta and has the optimizer step from there.
    Where the two losses agree, a pair counts for more. This is the first-order method, as the authors ran it.

    With gradient accumulation J is summed over as many batches of groups as a step has batches of pairs, before the
    first of these. The response groups' dropout masks are drawn aside: with `ascent_lr=0` a step is the plain one, bit
    for bit.

    A step whose J, loss or gradient is not finite changes no weight and is counted as `train/skipped_steps`.

    Args:
        model: the reward model.
        optimizer: from parameter groups to an optimizer.
        scheduler: from (optimizer, number of steps) to a schedule; None keeps the learning rate.
        head_lr: the head's learning rate; None takes the optimizer's.
        ascent_lr: eta. 5e-6 is the paper's, for 7B parameters; a model of another size hardly moves at that rate:
            look at `train/ascent_length`.
        ascent_scale: `sgd`, the paper's plain step; `norm`, of length eta whatever the gradient, as in SAM (arXiv
            2010.01412); `relative`, of length eta times the norm of the moved weights.
        ascent_part: which weights are moved: `all`, `head`, `adapters` or `last:N`.
        second_order: differentiate through the ascent too (one device, no accumulation): for small models.
        difference_cap: differences beyond it are not rewarded; None for no cap.
        reward_penalty: weight in J of minus the mean square of the rewards, so that J does not grow by scale alone.
        agreed_only: whether only differences count whose sign all voters of the response data agree on.
        max_skipped: skipped steps in a row that end the run.
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
        model: RewardModel,
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
        super().__init__(model, optimizer, scheduler, head_lr)
        if ascent_lr < 0 or reward_penalty < 0:
            raise ValueError(f"ascent_lr={ascent_lr} and reward_penalty={reward_penalty} cannot be negative")
        if ascent_scale not in get_args(StepScale):
            raise ValueError(f"ascent_scale={ascent_scale!r}; it must be one of {', '.join(get_args(StepScale))}")
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
        self.max_skipped = max_skipped
        self.objective = Objective(model.hidden_size, contrast, beta, ranking_views, distill, centering)
        self.num_skipped = 0
        self._skipped_in_a_row = 0
        self._ascent: Ascent | None = None
        self._model_here: Forward = model.__call__
        self._finite: list[Tensor] = []
        self._seen: dict[str, Tensor] = {}

    def forward(self, batch: PreferenceBatch | ResponseBatch) -> RewardOutput:
        """Rewards (k, P) and features (k, P, H); of pairs in training with a contrast, both in two views."""
        return self.objective.output(self._model_here, batch)

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """The loss of the pairs, as of the weights that `output` was computed with."""
        return self.objective(batch, output)

    def difference(self, responses: ResponseBatch) -> Tensor:
        """What the ascent climbs, a float32 scalar: J, less the penalty on rewards if there is one.

        Args:
            responses: G groups.
        """
        reward = self.model(responses.tokens).reward
        agreed = responses.agreed if self.agreed_only else None
        climbed = difference_loss(reward, responses.present, agreed, self.difference_cap)
        if self.reward_penalty:
            present = responses.present.view(len(reward), *[1] * (reward.ndim - 2), -1).expand_as(reward)
            climbed = climbed - self.reward_penalty * (reward.square() * present).sum() / present.sum()
        return climbed

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        """One micro-batch's loss at theta'; the first of an optimizer step finds theta' first.

        Raises:
            ValueError: if there are no responses to climb by.
        """
        ascent = self._started()
        if not batch.responses and batch_idx % self.trainer.accumulate_grad_batches == 0:
            raise ValueError("MetaRM climbs the difference loss of response groups: give the data module responses=")
        try:
            if batch.responses:
                ascent.forget()
                self._finite, self._seen = [], {}
                if not self.second_order:
                    self._climb(batch.responses)
            ascent.go()
            with self._differentiable_ascent(batch.responses):
                loss = super().training_step(batch, batch_idx)
        except BaseException:
            ascent.back()
            raise
        self._finite.append(loss.detach())
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The gradient at theta'; whatever happens, the model is at theta afterwards."""
        try:
            super().backward(loss, *args, **kwargs)
        finally:
            self._started().back()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Step from theta by the gradient at theta', or not at all if anything was not finite."""
        self.objective.before_step(self.global_step, int(self.trainer.estimated_stepping_batches))
        ascent = self._started()
        parameters = [parameter for parameter in self.parameters() if parameter.grad is not None]
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        self._finite.append(squared_norm(gradients))
        if self._is_logged():
            self._compare(ascent)
        ascent.forget()
        if self._all_finite():
            self._skipped_in_a_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        self.num_skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= self.max_skipped:
            raise ValueError(
                f"{self._skipped_in_a_row} optimizer steps in a row had a loss or a gradient that is not finite; none "
                "of them changed a weight, and the last checkpoint is whole. Lower the learning rate, or "
                f"ascent_lr={self.ascent_lr}"
            )

    def diagnostics(self) -> dict[str, Tensor]:
        """Of the last step: J before and after the ascent, how far it went, and how the two gradients lie."""
        skipped = torch.tensor(float(self.num_skipped), device=self.device)
        return {**self._seen, **self.objective.geometry(), "skipped_steps": skipped}

    def on_fit_start(self) -> None:
        """Say what does not go together before anything is trained."""
        self._ascent = None  # another strategy may have replaced the parameters
        if self.trainer.precision == "16-mixed":
            raise ValueError("MetaRM does not scale its ascent for float16: use precision=bf16-mixed or 32-true")
        if not self.second_order:
            return
        layers = [layer for layer in self.model.modules() if isinstance(layer, GradientCheckpointingLayer)]
        checkpointing = any(layer.gradient_checkpointing for layer in layers)
        if self.trainer.world_size > 1 or self.trainer.accumulate_grad_batches > 1 or checkpointing:
            raise ValueError(
                "second_order=true differentiates through the ascent, on one device, without gradient accumulation and "
                "without gradient checkpointing; set second_order=false for all else"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the number of skipped steps too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["skipped_steps"] = self.num_skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the number of skipped steps up."""
        super().on_load_checkpoint(checkpoint)
        self.num_skipped = checkpoint.get("skipped_steps", 0)

    def _started(self) -> Ascent:
        if self._ascent is None:  # not before the model is sharded, which replaces its parameters
            self._ascent = Ascent([parameter for _, parameter in choose_parameters(self.model, self.ascent_part)])
        return self._ascent

    def _climb(self, responses: Sequence[ResponseBatch]) -> None:
        """From theta to theta' by the gradient of J over all micro-batches of the step."""
        ascent = self._started()
        for parameter in self.parameters():
            parameter.grad = None  # of the step before: the trainer would forget it only after this
        before = []
        with self._aside():
            for groups in responses:
                climbed = self.difference(groups)
                (climbed / len(responses)).backward()
                before.append(climbed.detach())
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in ascent.parameters
        ]
        for parameter in self.parameters():
            parameter.grad = None
        average_over_ranks(gradients)
        square = squared_norm(gradients)
        self._finite += [square, torch.stack(before).mean()]
        self._seen["difference_loss"] = self._finite[-1]
        if not math.isfinite(square.item()):
            return
        ascent.start(gradients, self._rate(square.sqrt(), ascent.parameters))
        del gradients
        if self._is_logged():
            with torch.no_grad(), self._aside():
                after = [self.difference(groups) for groups in responses]
            self._seen["difference_loss_after"] = torch.stack(after).mean()

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

        def climb() -> Tensor:
            with self._aside():
                return self.difference(responses[0])

        with sdpa_kernel(SDPBackend.MATH):  # the one whose gradient has a gradient
            above = model_above(self.model, self.ascent_part, climb, self._rate)
            self._finite += [above.norm, above.climbed]
            self._seen["difference_loss"] = above.climbed
            self._model_here = above.model
            try:
                yield
            finally:
                self._model_here = self.model.__call__

    def _compare(self, ascent: Ascent) -> None:
        """Note how far theta' lies from theta, and the angle between the ascent and the pairs' gradient there."""
        displacement = ascent.displacement()
        if not displacement:
            return
        length = squared_norm(displacement).sqrt()
        self._seen["ascent_length"] = length
        self._seen["ascent_relative"] = length / squared_norm(ascent.parameters).sqrt()
        reached = [place for place, parameter in enumerate(ascent.parameters) if parameter.grad is not None]
        if reached and length > 0:
            moved = [displacement[place] for place in reached]
            gradients = [cast(Tensor, ascent.parameters[place].grad) for place in reached]
            self._seen["gradient_cosine"] = inner_product(moved, gradients) / (length * squared_norm(gradients).sqrt())

    def _all_finite(self) -> bool:
        """Whether every number of this step is finite, on every rank."""
        finite = torch.stack([value.float() for value in self._finite]).isfinite().all().float()
        if world_size() > 1:
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        return bool(finite)

    def _is_logged(self) -> bool:
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]  # set, not declared
        return (self.global_step + 1) % every == 0

    @contextmanager
    def _aside(self) -> Generator[None]:
        """Random numbers for dropout that are not missed afterwards."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            yield
