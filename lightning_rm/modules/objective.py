"""What pairs are trained towards, as one part that modules share: the ranking loss on their targets, and a contrast.

`ContrastiveRM` minimises it, `MetaRM` takes its gradient at other weights. It knows rewards, features and targets; not
how its gradient is used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.counts import check_numbers, is_number
from lightning_rm.losses import centering_loss, distillation_loss, list_shares, ranking_loss
from lightning_rm.losses.geometry import alignment, effective_rank, uniformity, usage_entropy
from lightning_rm.modules.contrasted import Contrast, Contrasted, ContrastFactory
from lightning_rm.modules.gather import gather_rows, rank, world_size
from lightning_rm.modules.views import Forward, two_views
from lightning_rm.options import check_words
from lightning_rm.tokens import TokenBatch

RankingViews = Literal["both", "first"]


def target_losses(batch: PreferenceBatch, output: RewardOutput, distill: float, centering: float) -> dict[str, Tensor]:
    """Return the ranking loss on the pairs' labels, target margins and weights, and what is added to it.

    Args:
        batch: P pairs with their targets.
        output: rewards (2, P), or (2, V, P) of V views, over which the mean is taken.
        distill: weight of the regression of margins on the strengths, whose counterweight `1 - distill` ranking takes.
        centering: weight of the mean of `(r_chosen + r_rejected)^2`.

    Returns:
        `loss`, and its parts: `ranking`, `margin_accuracy` (the share of pairs on the right side of the margin-shifted
        logit, the paper's training accuracy), `distillation` and `centering` where they are on.
    """
    chosen, rejected = output.chosen, output.rejected
    loss = ranking_loss(chosen, rejected, batch.label, batch.margin, batch.weight)
    shares = list_shares(batch.group).to(chosen.dtype)
    prefers = (chosen - rejected - batch.margin).sign() * (batch.label - 0.5).sign()
    parts = {"ranking": loss, "margin_accuracy": ((0.5 + 0.5 * prefers) * shares).mean()}
    if distill:
        parts["distillation"] = distillation_loss(chosen, rejected, batch.strength, batch.weight)
        loss = (1 - distill) * loss + distill * parts["distillation"]
    if centering:
        parts["centering"] = centering_loss(chosen, rejected, shares)
        loss = loss + centering * parts["centering"]
    return {"loss": loss, **parts}


class Objective(nn.Module):
    """The ranking loss of a batch of pairs, and `beta` times a contrast of its features (arXiv 2401.06080, 3.1).

    With a contrast, a training batch is seen twice, with two dropout masks; the ranking loss is over both views, "all
    original samples and their augmentations".

    Args:
        feature_size: H.
        contrast: from the size of a feature to a contrast; None for none.
        beta: the contrast's weight.
        ranking_views: `both`, or `first` to rank by one view alone.
        distill: weight of the regression of margins on strengths; ranking has `1 - distill`.
        centering: weight of the mean of `(r_chosen + r_rejected)^2`.

    Raises:
        ValueError: if an option is out of its range.
    """

    def __init__(
        self,
        feature_size: int,
        contrast: ContrastFactory | None = None,
        beta: float = 1.0,
        ranking_views: RankingViews = "both",
        distill: float = 0.0,
        centering: float = 0.0,
    ) -> None:
        super().__init__()
        check_words(get_args(RankingViews), ranking_views=ranking_views)
        check_distill(distill)
        check_numbers(0, beta=beta, centering=centering)
        self.contrast = None if contrast is None else made_contrast(contrast, feature_size)
        self.beta = beta
        self.ranking_views: RankingViews = ranking_views
        self.distill = distill
        self.centering = centering
        self.last: Contrasted | None = None

    def output(self, model: Forward, batch: PreferenceBatch | GroupBatch) -> RewardOutput:
        """Return rewards (2, P), features (2, P, H).

        In training with a contrast (2, 2, P), (2, 2, P, H) of two views.
        """
        if self.contrast is None or not self.training:
            return model(batch.tokens)
        return two_views(model, batch.tokens)

    def forward(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the loss to minimise under `loss`, and its parts.

        Args:
            batch: P pairs.
            output: what `output` gave of them.

        Raises:
            ValueError: if the first two views of a run are equal.
        """
        if self.contrast is None or output.feature.ndim == 3:
            return target_losses(batch, output, self.distill, self.centering)
        if self.last is None:
            check_views(output.feature)
        ranked = output if self.ranking_views == "both" else replace(output, reward=output.reward[:, 0])
        losses = target_losses(batch, ranked, self.distill, self.centering)
        with torch.autocast(output.feature.device.type, enabled=False):
            kept = 0 if batch.is_filler else batch.num_pairs
            first, second = output.feature[:, :, :kept].unbind(1)
            index, shares = responses_of(batch.tokens)[:, :kept], list_shares(batch.group[:kept])
            contrasted = self.contrast(first, second, index, shares)
        if not isinstance(contrasted, Contrasted):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's class
            raise ValueError(
                f"{type(self.contrast).__name__}.forward has returned a {type(contrasted).__name__}; it has to return "
                "Contrasted(loss, first, second), the views as they were compared"
            )
        self.last = contrasted._replace(loss=contrasted.loss.detach())
        losses["contrast"] = contrasted.loss
        losses["loss"] = losses["loss"] + self.beta * contrasted.loss
        return losses

    @torch.no_grad()
    def geometry(self) -> dict[str, Tensor]:
        """Say how the last samples of all ranks lie in space, by name; see `losses.geometry`. Every rank must call it.

        With a projection head, it is the projected samples that are measured: those that the contrast compares.
        """
        if self.last is None:
            return {}
        kept = slice(None) if self.last.counted is None else self.last.counted
        first, second = (gather_rows(view[kept])[0] for view in (self.last.first, self.last.second))
        values = {
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "effective_rank": effective_rank(first),
        }
        if self.last.share is not None:
            values["prototype_entropy"] = usage_entropy(gather_rows(self.last.share[kept])[0])
        return values

    def start(self) -> None:
        """Forget what was seen before a fit, so that its first views are checked."""
        self.last = None

    def before_step(self, step: int, num_steps: float) -> None:
        """Do what the contrast has due before an optimizer step, such as forgetting the gradient of frozen prototypes.

        Args:
            step: optimizer steps taken.
            num_steps: of the whole run.
        """
        if self.contrast is not None:
            self.contrast.before_step(step, num_steps)


def responses_of(tokens: TokenBatch) -> Tensor:
    """Return (k, P), a number for each response, equal where they are one, on whatever rank.

    A grid made by hand has no keys: its cells tell its responses apart, and all those of another rank are others.
    """
    if tokens.response_key is not None:
        return tokens.response_key
    return tokens.reward_index * world_size() + rank()


def made_contrast(contrast: ContrastFactory, feature_size: int) -> Contrast:
    """Return the contrast that a user's function makes of the size of a feature.

    Raises:
        ValueError: if it is a contrast that is made already, or makes none.
    """
    told = "contrast= takes what makes a contrast of the size of a feature, as partial(SimCSE, temperature=0.1) does"
    if isinstance(contrast, nn.Module):
        raise ValueError(f"{told}; it is a {type(contrast).__name__} that is made already")
    try:
        made: Any = contrast(feature_size)
    except TypeError as error:
        raise ValueError(f"{told}; called with {feature_size} alone: {error}") from error
    if not isinstance(made, Contrast):
        raise ValueError(
            f"{told}; it made a {type(made).__name__}: inherit from lightning_rm.modules.contrasted.Contrast"
        )
    return made


def check_distill(distill: float) -> None:
    """Raise ValueError unless `distill` is a share."""
    if not (is_number(distill) and 0 <= distill <= 1):
        raise ValueError(f"distill={distill} is the share of the regression in the loss; give a number from 0 to 1")


def check_views(feature: Tensor) -> None:
    """Raise if two views are equal: then a contrast learns nothing, and gives no sign of it.

    Args:
        feature: (2, 2, P, H) of chosen and rejected in two views.

    Raises:
        ValueError: if they are.
    """
    if torch.equal(feature[:, 0], feature[:, 1]):
        raise ValueError(
            "the two views of a batch are equal, for nothing is dropped in training and there is nothing to contrast: "
            "set dropout_at='embeddings' or 'features' with dropout above 0, or give the backbone a dropout of its own"
        )
