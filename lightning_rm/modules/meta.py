"""`MetaRM`: the ranking gradient is taken where the model tells responses of today's policy further apart.

How it gets there is `Climb`'s matter; this is the step around it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import lightning as L
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.modeling_layers import GradientCheckpointingLayer

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.models.backbone.kernels import is_compiled
from lightning_rm.models.dropout import DropoutAt, add_dropout
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.sharding import reshard
from lightning_rm.modules.ascent import StepScale
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.climb import Climb
from lightning_rm.modules.contrasted import ContrastFactory
from lightning_rm.modules.objective import Objective, RankingViews
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.requirements import RANKING_TARGETS, Target
from lightning_rm.modules.views import Forward


class MetaRM(PairwiseRM):
    """Minimise the ranking loss by its gradient at `theta' = theta + eta dJ/dtheta` (arXiv 2401.06080, eq 10-14).

    Every optimizer step first climbs, from theta, the difference loss J of a batch of response groups, which need no
    labels; takes the gradient of the pairs' loss at theta'; goes back to theta and has the optimizer step from there.
    A pair of margin z weighs sigma(-z'), where z' = z + eta <grad z, grad J>: one whose margin grows with J counts for
    less, one whose margin shrinks for more. This is the first-order method, as the authors ran it.

    With gradient accumulation J is summed over as many batches of groups as a step has batches of pairs, before the
    first of these. J is of the model without dropout, unless it is asked for, and its masks are drawn aside: with
    `ascent_lr=0` a step is the plain one, bit for bit.

    What is logged of the pairs under `train/` is at theta', where their gradient is taken; `val/` and `test/` are of
    theta.

    A step whose J, loss or gradient is not finite changes no weight and is counted as `train/skipped_steps`.

    Args:
        model, optimizer, scheduler, head_lr: as in `PairwiseRM`.
        ascent_lr: eta. 5e-6 is the paper's, for 7B parameters; a model of another size hardly moves at that rate:
            look at `train/ascent_length`. A negative rate goes down: the pairs' gradient is then taken where the
            policy's responses are harder to tell apart, as SAM takes it where the loss is higher.
        ascent_scale: `sgd`, the paper's plain step; `norm`, of length eta whatever the gradient, as in SAM (arXiv
            2010.01412); `relative`, of length eta times the norm of the moved weights.
        ascent_part: which weights are moved: `all`, `head`, `adapters` or `last:N`.
        ascent_dropout: whether J is of responses under dropout, each with masks of its own. At a probability of 0.1 the
            masks decide which of two responses is ahead in up to a third of pairs, and J then rewards the masks.
        second_order: differentiate through the plain ascent too (one device, no accumulation): for small models.
        difference_cap: differences beyond it are not rewarded; None for no cap.
        reward_penalty: weight in J of minus the mean square of a group's rewards: J is not to grow by scale alone.
        agreed_only: whether only differences count whose sign all voters of the response data agree on.
        max_skipped, spike_factor: as in `PairwiseRM`; a J that is not finite counts too.
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
        ascent_dropout: bool = False,
        second_order: bool = False,
        difference_cap: float | None = None,
        reward_penalty: float = 0.0,
        agreed_only: bool = False,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
        contrast: ContrastFactory | None = None,
        beta: float = 1.0,
        ranking_views: RankingViews = "both",
        dropout_at: DropoutAt | None = None,
        dropout: float = 0.05,
        distill: float = 0.0,
        centering: float = 0.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        if any(plain.router_loss for plain in model.plain_models):
            raise ValueError("MetaRM's step has no router loss; set backbone.model.router_loss=0")
        if second_order and ascent_scale != "sgd":
            raise ValueError(f"second_order=true needs the plain step: set ascent_scale=sgd, not {ascent_scale}")
        if contrast is not None and model.num_rewards > 1:
            raise ValueError(
                "a contrast is of one reward model's features: leave out the members (~members) or it (~contrast)"
            )
        if dropout_at is not None:
            add_dropout(model, dropout_at, dropout)
        self.second_order = second_order
        self.climb = Climb(
            model, ascent_lr, ascent_scale, ascent_part, ascent_dropout, difference_cap, reward_penalty, agreed_only
        )
        self.climb.measure = self.difference
        self.objective = Objective(model.hidden_size, contrast, beta, ranking_views, distill, centering)
        self._model_above: Forward | None = None
        self.register_state_dict_pre_hook(_at_theta)

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        """Return one micro-batch's loss at theta'; the first of an optimizer step finds theta' first.

        Raises:
            ValueError: if there are no responses to climb by, or none has votes that are asked for.
        """
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.climb.check(batch.responses)
        reshard(self)  # a validation leaves whole weights behind, which are not the shards that are trained
        try:
            if batch.responses:
                self.climb.begin_step()
                if not self.second_order:
                    self.climb.up(batch.responses, self._is_logged())
            self.climb.ascent.go()
            with self._exact_ascent(batch.responses):
                return super().training_step(batch, batch_idx)
        except BaseException:
            self.climb.back()
            raise

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Take the gradient at theta'; whatever happens, the model is at theta afterwards."""
        try:
            super().backward(loss, *args, **kwargs)
        finally:
            self.climb.back()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Step from theta by the gradient at theta', or not at all if anything was not finite."""
        self.objective.before_step(self.global_step, self.trainer.estimated_stepping_batches)
        self.climb.end_step(self._is_logged())
        self.end_step(optimizer, *self.climb.climbed)

    def forward(self, batch: PreferenceBatch | GroupBatch) -> RewardOutput:
        """Return rewards (k, P) and features (k, P, H); of pairs in training with a contrast, both in two views."""
        return self.objective.output(self._model_above or self.model, batch)

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the loss of the pairs, as of the weights that `output` was computed with."""
        return self.objective(batch, output)

    @property
    def reads(self) -> frozenset[Target]:
        """Labels, target margins and weights."""
        return RANKING_TARGETS

    @property
    def needs_strengths(self) -> bool:
        """Whether strengths are distilled."""
        return self.objective.distill > 0

    def difference(self, responses: GroupBatch, reward: Tensor) -> Tensor:
        """Return J of a batch of G groups and their rewards (k, G), or (k, M, G): a float32 scalar, which is climbed.

        It is the difference loss of `Climb.difference`; a class of one's own may return another.
        """
        return self.climb.difference(responses, reward)

    def way_out(self) -> str:
        """Return what to do about steps that are not finite."""
        return f"{super().way_out()}, or lower ascent_lr={self.climb.ascent_lr}"

    def diagnostics(self) -> dict[str, Tensor]:
        """Return, of the last step, J and the mean distance before the ascent, J after it, its length, the cosine."""
        return {**self.climb.seen, **self.objective.geometry()}

    def on_fit_start(self) -> None:
        """Begin anew; say what does not go together before anything is trained."""
        self.climb.start()
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
        """Return a callback that leaves the model at theta, whatever ends the run and wherever."""
        return [_BackToTheta()]

    @contextmanager
    def _exact_ascent(self, responses: Sequence[GroupBatch]) -> Generator[None]:
        """The model at theta' as a function of theta, where the ascent is differentiated too."""
        if not self.second_order:
            yield
            return
        with self.climb.exact(responses[0], self._is_logged()) as self._model_above:
            try:
                yield
            finally:
                self._model_above = None


class _BackToTheta(L.Callback):
    """It stays with a trainer that goes on with another module."""

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(pl_module, MetaRM):
            pl_module.climb.back()


def _at_theta(module: nn.Module, *_: Any) -> None:
    """Go back to theta, which is what is saved, also when a signal saves in the middle of a step; that step then ends
    in an error.
    """
    cast(MetaRM, module).climb.back()
