"""`Method`: what a way to train a reward model says of itself. The training loop, `PairwiseRM`, asks it.

A method has to say its losses; every other answer has a default.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.modules.counted import metrics_of
from lightning_rm.modules.evaluated import EvaluatedRM
from lightning_rm.modules.progress import Totals
from lightning_rm.modules.requirements import (
    LABELS_AND_WEIGHTS,
    Target,
    TrainPairs,
    check_strengths,
    check_targets,
    check_two_responses,
    check_weighed,
)


class Method(EvaluatedRM):
    """What a method of training says of itself: its losses, and what of the pairs they read."""

    reads_responses: ClassVar[bool] = False
    """Whether the method trains on response groups beside the pairs."""
    reads_single_responses: ClassVar[bool] = False
    """Whether the method trains on a response that has a score and no other beside it."""
    measures_text: ClassVar[bool] = False
    """Whether the text of chosen responses is measured in place of rewards: the method trains none."""

    @abstractmethod
    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the method: the loss to minimise under `loss`, and each of its parts under a name of its own.

        Args:
            batch: P pairs.
            output: their rewards (2, P) and features (2, P, H).

        Returns:
            Float32 scalars, logged as `train/<name>`. Means over the batch's lists (`losses.list_shares`; a plain pair
            is one) add up exactly over ranks and micro-batches of any size; a mean over anything else does where these
            are of one size.
        """

    @property
    def reads(self) -> frozenset[Target]:
        """What of a pair's targets the loss reads. A treatment that makes other targets is refused."""
        return LABELS_AND_WEIGHTS

    @property
    def needs_strengths(self) -> bool:
        """Whether the method can only train on pairs that all have a strength."""
        return False

    @property
    def looks_over(self) -> int:
        """How many pairs of a micro-batch, over all ranks, the loss looks at together; 1 where each is by itself."""
        return 1

    def training_metrics(self, totals: Totals) -> dict[str, Tensor]:
        """Return what is logged of training pairs beside the losses, by the sums over them (`counted`)."""
        return metrics_of(totals)

    def check_pairs(self, pairs: TrainPairs) -> None:
        """Check before training that the method can train on these pairs.

        Raises:
            ValueError: if it needs strengths that are missing, no row has two responses to tell apart, all pairs have
                the weight 0, or a treatment makes targets that it does not read.

        Warns:
            UserWarning: if the data brings targets that it does not read.
        """
        targets = pairs.targets()
        check_weighed(targets)
        check_targets(targets, pairs.changed, self.reads, type(self).__name__)
        if self.needs_strengths:
            check_strengths(torch.tensor(pairs.strength.mean))
        if not self.reads_single_responses:
            check_two_responses(pairs.single)

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        """Return the model's parameters that the loss does not reach: frozen in a run, where DDP waits for all
        gradients.

        Here those of a kept LM head that are not the backbone's too: a method with a loss of text leaves them out.
        """
        return self.model.lm_head_parameters()

    def diagnostics(self) -> dict[str, Tensor]:
        """Return numbers of the last micro-batch that are worth a look and not worth a computation every step.

        Returns:
            Scalars by name, logged as `train/<name>` on the steps that are logged, as means over ranks.
        """
        return {}

    def way_out(self) -> str:
        """Return what a user can do about steps that are not finite, in a sentence."""
        return "Lower the learning rate, or look at the pairs that are named above"

    def export(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write what was trained as a Hugging Face folder: the reward model."""
        self.model.save_pretrained(folder, tokenizer)


def check_losses(found: object, method: str) -> None:
    """Check what a method's `losses` has returned. No value is looked at, so that no step waits for the device.

    Args:
        found: what it has returned.
        method: the class.

    Raises:
        ValueError: if it is no dict, has no `loss`, or a part is no scalar tensor.
    """
    told = f"{method}.losses has to return the loss to minimise under 'loss', and its parts beside it"
    if not isinstance(found, dict):
        raise ValueError(f"{told}, as a dict; it returned an object of the type {type(found).__name__}")
    parts = cast("dict[str, object]", found)
    if "loss" not in parts:
        raise ValueError(f"{told}; it returned {', '.join(map(repr, parts)) or 'an empty dict'}")
    for name, part in parts.items():
        if not isinstance(part, Tensor) or part.ndim:
            what = f"has the shape {tuple(part.shape)}" if isinstance(part, Tensor) else f"is {part!r}"
            raise ValueError(f"{told}, each a scalar tensor, such as a mean over the pairs; {name!r} {what}")
