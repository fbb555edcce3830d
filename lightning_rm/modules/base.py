"""`PairwiseRM`: how every reward model on pairs is trained and goes on. A method adds one function, `losses`.

What a method may say besides is in `method`, how it is measured in `evaluated`. It knows batches and rewards; not
layouts, files or configurations.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.counts import check_numbers, given, number_of
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.checkpoints import check_weights, describe
from lightning_rm.modules.clipping import clip_gradients
from lightning_rm.modules.counted import OF_EPOCH, counted, mean_losses
from lightning_rm.modules.finite import DivergedError, FiniteSteps
from lightning_rm.modules.finite_weights import check_weights_finite
from lightning_rm.modules.measured import EvaluationStage, metric_prefix
from lightning_rm.modules.method import Method, check_losses
from lightning_rm.modules.optimization import (
    OptimizerFactory,
    SchedulerFactory,
    groups_of,
    make_optimizer,
    make_schedule,
)
from lightning_rm.modules.prepared import Frozen, shard_for
from lightning_rm.modules.progress import AcrossRanks, Progress
from lightning_rm.modules.requirements import KnowsPairs, check_strengths, check_together
from lightning_rm.modules.restored import RestoredOptimizer
from lightning_rm.modules.routing import with_routing
from lightning_rm.modules.shares import check_training_share
from lightning_rm.modules.spikes import GradientSpikes, Spike
from lightning_rm.modules.surroundings import check_batch, check_pieces, check_reading, check_trainer
from lightning_rm.modules.tips import leave_out_tips
from lightning_rm.modules.unfrozen import check_unfrozen, trained

__all__ = ["EvaluationStage", "PairwiseRM", "metric_prefix"]

leave_out_tips()


class PairwiseRM(Method):
    """A LightningModule that trains a `RewardModel` on preference pairs.

    Args:
        model: the reward model.
        optimizer: from parameter groups to an optimizer: `functools.partial(torch.optim.AdamW, lr=1e-5)`.
        scheduler: from (optimizer, number of steps) to a schedule, such as a partial of `warmup_schedule`, or to
            Lightning's dict of one; the number is None where the run has no planned end. Or a schedule of torch's with
            its options, `partial(StepLR, step_size=100)`. It is stepped once an optimizer step unless a dict says
            otherwise. None keeps the learning rate.
        head_lr: the head's learning rate; None takes the optimizer's.
        max_skipped: optimizer steps in a row whose loss or gradient is not finite that end the run; they change no
            weight, and are named and counted as `train/skipped_steps`. A resumed run counts on; after an end by them
            it begins anew.
        spike_factor: a step whose gradient's norm is above so many times the median of up to 100 before it is counted
            as `train/gradient_spikes`, and kept with its pairs; it is taken all the same. None counts none.

    Attributes:
        num_not_finite: `<stage>/<set>` -> pairs or groups whose reward was not finite in the latest evaluation.
        last_epoch: metrics of the pairs of the latest epoch of training, as the weights moved; a checkpoint has them.

    Raises:
        ValueError: if model, optimizer or scheduler is of another kind, `head_lr` is below 0, `max_skipped` is below 1,
            or `spike_factor` is not above it.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        check_pieces(model, optimizer, scheduler)
        check_numbers(0, **given(head_lr=head_lr))
        super().__init__(model)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.head_lr = head_lr
        self._step_before_batch = 0
        self.finite = FiniteSteps(max_skipped, GradientSpikes(spike_factor))
        self._gradient_norm: Tensor | None = None  # of the step that is being taken
        self._progress = Progress()  # sums of `counted`
        self._restored = RestoredOptimizer()
        self.last_epoch: dict[str, float] = {}
        self._frozen = Frozen()
        self._trained_at_first: set[int] = set()

    @property
    def lr(self) -> float | None:
        """The optimizer's learning rate, where `optimizer` is a partial of one: what Lightning's
        `Tuner(trainer).lr_find(module, data)` sets. The head's own, `head_lr`, stays.
        """
        options: dict[str, Any] = getattr(self.optimizer, "keywords", {})
        return options.get("lr")

    @lr.setter
    def lr(self, rate: float) -> None:
        of_any_options: Any = self.optimizer
        self.optimizer = partial(of_any_options, lr=rate)

    # Before a run and after it

    def setup(self, stage: str) -> None:
        """Check what does not go together before anything is read or trained.

        Raises:
            ValueError: if the data module reads rewards at another token than the model, training pairs lack the
                strengths that the method needs, a callback changes how many micro-batches make a step, of which the
                data module plans an epoch, or the precision is not one of those that leave head, rewards and losses in
                float32.
        """
        if stage == "fit":
            # Nothing of an earlier fit, nor of a checkpoint that it read and did not go on from.
            self._progress, self._restored = Progress(), RestoredOptimizer()
            if self.global_step == 0:  # another trainer's run, not more of that one
                self.finite = self.finite.anew()
        callbacks: list[L.Callback] = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]  # set, not declared
        check_trainer(self.trainer.precision, callbacks)
        if (pairs := self._known_pairs()) is not None:
            check_reading(pairs.read_at, self.model.read_at)
            train = pairs.train_pairs() if stage == "fit" else None
            if train is not None:
                self.check_pairs(train)

    def configure_model(self) -> None:
        """Freeze what gets no gradient, and shard the model where the strategy asks for it (FSDP2).

        Without a trainer, where a module is loaded from a checkpoint, there is nothing to do.
        """
        if self._trainer is None:
            return
        self._frozen.add(self.idle_parameters())
        shard_for(self.trainer.strategy, self.trainer.precision, self.model, self)

    def teardown(self, stage: str) -> None:
        """Unfreeze what the run has frozen, for whatever trains the model next."""
        self._frozen.release()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer over `groups_of` the model, and its schedule over all steps of the run."""
        groups = groups_of(self, self.model, self.head_lr)
        clips_scaled = self.trainer.precision == "16-mixed" and bool(self.trainer.gradient_clip_val)
        optimizer = make_optimizer(self.optimizer, groups, clips_scaled)
        self._restored.check(optimizer)
        if self.scheduler is None:
            return optimizer
        num_steps = self.trainer.estimated_stepping_batches
        planned = None if num_steps == math.inf else int(num_steps)
        return {"optimizer": optimizer, "lr_scheduler": make_schedule(self.scheduler, optimizer, planned)}

    # Training

    def on_train_start(self) -> None:
        """Go on with the sums and the random numbers of the checkpoint, if training goes on from one; or anew.

        Raises:
            ValueError: if the batches were made for another trainer.
        """
        check_training_share(self.trainer)
        self._trained_at_first = trained(self)
        self._progress.start(self.device)
        self.finite.start()
        scheduler = self.lr_schedulers()
        self._restored.take(self._optimizer, scheduler if isinstance(scheduler, LRScheduler) else None)

    def on_train_batch_start(self, batch: PreferenceBatch, batch_idx: int) -> None:
        """Remember what the batch will change, for Ctrl-C may come in the middle of it.

        Raises:
            ValueError: if it is no batch of pairs; at the start of an epoch, if the method needs strengths and a pair
                has none; there and in steps that are logged, if something was unfrozen that no optimizer steps.
        """
        check_batch(batch)
        if batch_idx == 0 or self._is_logged():
            check_unfrozen(self, self._trained_at_first, self._optimizer, self.trainer.strategy)
        self._progress.start_batch(self.device)
        self._step_before_batch = self.global_step
        # Later batches are not looked at: the host would wait for the device in every step.
        if batch_idx == 0 and self.needs_strengths:
            check_strengths(batch.strength)
        if self.global_step == 0 and batch_idx == 0:
            check_together(self.looks_over, batch.num_pairs * self.trainer.world_size, type(self).__name__)

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        """Give one micro-batch's loss, scaled so that the optimizer steps on the mean over the global batch's pairs."""
        output: RewardOutput = self(batch)
        found = self.losses(batch, output)
        check_losses(found, type(self).__name__)
        losses = with_routing(found, output.routing)
        guard = self.finite.guard(losses["loss"], batch.row.where(batch.valid.bool(), -1))
        if batch_idx == 0:
            self._progress.start_epoch()
        sums = counted(batch, output, losses, guard.isfinite())
        self._progress.add(sums, of_epoch={name: sums[name] for name in OF_EPOCH})
        return losses["loss"] * batch.scale * guard

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the step out if its gradient is not finite."""
        self.end_step(optimizer)

    def end_step(self, optimizer: Optimizer, *others: Tensor) -> None:
        """Leave the step out if its gradient, or another number that it came from, is not finite.

        Args:
            optimizer: about to step.
            *others: scalars, equal on all ranks.
        """
        scaled = self.trainer.precision == "16-mixed"
        self._gradient_norm = self.finite.end_step(self.global_step, optimizer, *others, scaled=scaled)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer says, by the norm that is known already; see `clipping`."""
        plugin, norm = self.trainer.precision_plugin, self._gradient_norm
        if not clip_gradients(plugin, optimizer, gradient_clip_val, gradient_clip_algorithm, norm):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_end(self, outputs: object, batch: PreferenceBatch, batch_idx: int) -> None:
        """Log losses and metrics, exact over all pairs since the last log, on the steps that Lightning writes out."""
        stepped = self.global_step > self._step_before_batch  # also by an epoch's last batch, short of micro-batches
        if stepped:
            self.finite.took_step(self._step_before_batch, self._optimizer)
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]  # set, not declared
        if stepped and self.finite.due(self.global_step, every):
            self._name_skipped_steps()
        if stepped and every and self.global_step % every == 0:  # 0 is never
            self._log_steps()

    def on_train_epoch_end(self) -> None:
        """Log the exact metrics of all pairs of the epoch, as the weights moved, under `train_epoch/`."""
        self._name_skipped_steps()
        self._log_epoch("train_epoch/", self._end_epoch())

    def on_fit_end(self) -> None:
        """Measure an epoch that was resumed at its very end: it has no end of its own."""
        if self._restored.goes_on:  # nothing was left to train
            self._progress.start(self.device)
        self._end_epoch()

    def spikes(self) -> list[Spike]:
        """Return the largest gradient spikes of the run, with the rows of all ranks, which call this alike."""
        self._read_steps()
        return self.finite.spikes.whole(self.device)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums, and every rank's random states, so that a resumed run logs what an uninterrupted one does, and
        draws its dropout masks.

        Raises:
            DivergedError: if a weight is not finite: the checkpoint of before stays.
        """
        self.check_finite()
        self._read_steps()
        checkpoint.update(self.finite.state(self.device))
        checkpoint["last_epoch"] = self.last_epoch
        checkpoint["backbone"] = describe(self.model)
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current
        within = batches.processed < batches.started  # pyright: ignore[reportAttributeAccessIssue]  # as its base class
        gather = cast(AcrossRanks, self.all_gather)
        checkpoint.update(self._progress.state(self.device, within, self._sum_over_ranks, gather))

    def check_finite(self) -> None:
        """Check every weight; all ranks call this alike, and wait for their devices.

        Raises:
            DivergedError: if a weight is not finite.
        """
        check_weights_finite(self.state_dict(keep_vars=True).items(), self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sums up, on the first rank, and this rank's random states; they are set when training starts.

        Raises:
            ValueError: if the checkpoint is of another model.
        """
        if "state_dict" in checkpoint:  # else ranks have read their parts of it already
            check_weights(checkpoint["state_dict"], self.state_dict(keep_vars=True))
        if self._is_fitted:
            self._progress.load(checkpoint, self.device, self.global_rank)
            self.finite.load(checkpoint, self.global_rank)
            self.last_epoch = checkpoint.get("last_epoch", {})
            self._restored.load(checkpoint)

    # Behind the hooks

    def _log_steps(self) -> None:
        """Log losses, metrics and diagnostics of the steps since the last log."""
        totals = self._progress.take_since_log(self._sum_over_ranks)
        losses = mean_losses(totals)
        for name, value in losses.items():
            self.log(f"train/{name}", value, batch_size=1, prog_bar=name == "loss")
        for name, value in self.diagnostics().items():
            self.log(f"train/{name}", value, batch_size=1, sync_dist=True)
        of_all_ranks = {**self.training_metrics(totals), **self.finite.logged()}
        others = {f"train/{name}": value for name, value in of_all_ranks.items() if name not in losses}
        self.log_dict(others, batch_size=1)

    def _name_skipped_steps(self) -> None:
        """Say which steps were left out since the last call; end the run after too many in a row."""
        self._read_steps()
        if self.finite.in_a_row >= self.finite.max_skipped:
            self.check_finite()
            raise DivergedError(
                f"{number_of(self.finite.in_a_row, 'optimizer step')} in a row had a loss or a gradient that is "
                f"not finite; none of them changed a weight. {self.way_out()}"
            )

    def _read_steps(self) -> None:
        """Count the steps since the last call, and say which of them were left out; waits for the device."""
        pairs = self._known_pairs()
        self.finite.warn_of_skipped(pairs.name_of_pair if pairs else "row {}".format)

    def _end_epoch(self) -> dict[str, Tensor]:
        """Return the metrics of the epoch's pairs, which are `last_epoch` from here on.

        It is empty where none were trained.
        """
        if not (totals := self._progress.since_epoch(self._sum_over_ranks)):
            return {}
        metrics = self.training_metrics(totals)
        self.last_epoch = {name: float(value) for name, value in metrics.items()}
        return metrics

    def _known_pairs(self) -> KnowsPairs | None:
        """Return the data module, if it knows the pairs that it hands out; any iterable of batches trains too."""
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, KnowsPairs) else None

    def _is_logged(self) -> bool:
        """Tell whether the step that is being taken is one of those that Lightning writes out."""
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]  # set, not declared
        return bool(every) and (self.global_step + 1) % every == 0  # 0 is never

    @property
    def _optimizer(self) -> Optimizer:
        return cast(Optimizer, self.optimizers(use_pl_optimizer=False))

    @property
    def _is_fitted(self) -> bool:
        return self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
