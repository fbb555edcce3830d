"""`EvaluatedRM`: a reward model as Lightning evaluates it, from batches to metrics and predictions.

It knows batches, rewards and metrics; not how the model is trained. Metric keys are `<stage>/<metric>` for the set that
is named after its stage and `<stage>/<set>/<metric>` for every other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

import lightning as L
from torch import Tensor

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.checkpoints import arguments_for
from lightning_rm.modules.measured import EvaluationStage, Measured, warn_not_finite
from lightning_rm.modules.shares import check_evaluation_share
from lightning_rm.modules.surroundings import check_batch


class EvaluatedRM(L.LightningModule):
    """A LightningModule that measures the rewards of preference pairs and of groups of responses, and predicts them.

    Args:
        model: the reward model.

    Attributes:
        num_not_finite: `<stage>/<set>` -> pairs or groups whose reward was not finite in the latest evaluation.
    """

    def __init__(self, model: AnyRewardModel) -> None:
        super().__init__()
        self.model = model
        self._measured = Measured()
        self.num_not_finite: dict[str, int] = {}

    def forward(self, batch: PreferenceBatch | GroupBatch) -> RewardOutput:
        """Return rewards (k, P), or (k, M, P) of members, and features (k, P, H): k is 2 for pairs."""
        return self.model(batch.tokens)

    def measured_model(self) -> AnyRewardModel:
        """Return the reward model that gives the rewards which are measured, for whoever asks it and not the module.

        Every rank calls it alike.
        """
        return self.model

    def measure(self, batch: PreferenceBatch | GroupBatch) -> dict[str, Tensor]:
        """Count a batch of an evaluation in the metrics of its data set; its rewards go on to the callbacks."""
        return self._measured.update(batch, self(batch), self.scores(batch))

    def scores(self, batch: PreferenceBatch | GroupBatch) -> Tensor | None:
        """Return scores that rewards are compared with beside labels, (2, P), NaN where unknown; None without any."""
        return None

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **arguments: Any,
    ) -> Self:
        """Return the module as a checkpoint has it, ready to predict; to go on training, give the trainer a
        `ckpt_path` instead.

        Args:
            checkpoint_path: a `.ckpt` of a run.
            map_location: as in torch.load.
            hparams_file: as in Lightning, except for arguments that the constructor cannot do without.
            strict: whether all weights must be there.
            weights_only: as in torch.load; None for True.
            **arguments: of the constructor. Without `model` one is made from the backbone's configuration, which the
                checkpoint has; an `optimizer` is only needed to train.

        Raises:
            ValueError: if the model cannot be made from the checkpoint alone, or an argument of the constructor is
                missing.
        """
        only = True if weights_only is None else weights_only
        told = arguments_for(cls, checkpoint_path, arguments, only)
        return super().load_from_checkpoint(checkpoint_path, map_location, hparams_file, strict, only, **told)

    def on_validation_start(self) -> None:
        """Forget what an interrupted evaluation has counted.

        Raises:
            ValueError: if the batches were made for another number of processes.
        """
        check_evaluation_share(self.trainer, self.trainer.val_dataloaders, "validate")
        self._measured, self.num_not_finite = Measured(), {}

    def validation_step(
        self, batch: PreferenceBatch | GroupBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Count a validation batch."""
        check_batch(batch)
        return self.measure(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the exact metrics of every validation set."""
        self._log_evaluation("val")

    def on_test_start(self) -> None:
        """Forget what an interrupted evaluation has counted.

        Raises:
            ValueError: if the batches were made for another number of processes.
        """
        check_evaluation_share(self.trainer, self.trainer.test_dataloaders, "test")
        self._measured, self.num_not_finite = Measured(), {}

    def test_step(
        self, batch: PreferenceBatch | GroupBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Count a test batch."""
        check_batch(batch)
        return self.measure(batch)

    def on_test_epoch_end(self) -> None:
        """Log the exact metrics of every test set."""
        self._log_evaluation("test")

    def predict_step(
        self, batch: PreferenceBatch | GroupBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Return the rewards of a batch, by the rows of its data set.

        Returns:
            `row` (P,), and of pairs `chosen` and `rejected` (P,), of groups `reward` (k, P): of P that are not fillers.
            Of members their mean.
        """
        check_batch(batch)
        output: RewardOutput = self(batch).averaged()
        kept = batch.valid
        if isinstance(batch, GroupBatch):
            return {"row": batch.row[kept], "reward": output.reward[:, kept]}
        return {"row": batch.row[kept], "chosen": output.chosen[kept], "rejected": output.rejected[kept]}

    def _log_evaluation(self, stage: EvaluationStage) -> None:
        """Log the metrics of every set that was evaluated, and warn of rewards that are not finite."""
        self.num_not_finite = self._measured.not_finite(stage, self._sum_over_ranks)
        warn_not_finite(self.num_not_finite, self.global_step)
        for prefix, values in self._measured.values(stage):
            self._log_epoch(f"{prefix}/", values)

    def _log_epoch(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        """Log values of all ranks: they are equal, but Lightning warns of those of an epoch that it does not reduce."""
        self.log_dict({f"{prefix}{name}": value for name, value in values.items()}, batch_size=1, sync_dist=True)

    def _sum_over_ranks(self, total: Tensor) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(total, reduce_op="sum"))
