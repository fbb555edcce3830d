"""MetaRM's climb: from theta, by the gradient of the difference loss J of response groups, to theta' (eq 10-11).

It knows a reward model, response groups and where theta' is; no pairs, no optimizer and no trainer. Equations are those
of arXiv 2401.06080.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_rm.batch import GroupBatch
from lightning_rm.counts import check_numbers, is_number, is_positive
from lightning_rm.losses import difference_loss
from lightning_rm.metrics.groups import group_statistics
from lightning_rm.models.dropout import without_dropout
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.ascent import (
    Ascent,
    StepScale,
    average_over_ranks,
    choose_parameters,
    gradient_of,
    length_and_cosine,
)
from lightning_rm.modules.gradients import squared_norm
from lightning_rm.modules.second_order import model_above
from lightning_rm.modules.views import Forward
from lightning_rm.options import check_words


class Climb:
    """Climbs J once an optimizer step, and goes back.

    Args:
        model: the reward model.
        ascent_lr: eta.
        ascent_scale: how long a step is, as in `ascent.StepScale`.
        ascent_part: which weights are moved: `all`, `head`, `adapters` or `last:N`.
        ascent_dropout: whether J is of the model in training mode, where masks of dropout tell responses apart too.
        difference_cap: differences beyond it are not rewarded; None for no cap.
        reward_penalty: weight in J of minus the mean square of a group's rewards.
        agreed_only: whether only differences count whose sign all voters of the responses agree on.

    Attributes:
        measure: gives J of a batch of groups and their rewards; `difference`, until a module puts its own here.
        seen: of the last step, to be logged: J and the mean distance before the climb, J after it, and so on.
        climbed: of the last step, scalars that must be finite, equal on all ranks.

    Raises:
        ValueError: if an option is out of its range.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        ascent_lr: float,
        ascent_scale: StepScale = "sgd",
        ascent_part: str = "all",
        ascent_dropout: bool = False,
        difference_cap: float | None = None,
        reward_penalty: float = 0.0,
        agreed_only: bool = False,
    ) -> None:
        check_numbers(0, reward_penalty=reward_penalty)
        if not is_number(ascent_lr):  # below 0 is a step down
            raise ValueError(f"ascent_lr={ascent_lr!r}; give a number")
        check_words(get_args(StepScale), ascent_scale=ascent_scale)
        if difference_cap is not None and not is_positive(difference_cap):
            raise ValueError(f"difference_cap={difference_cap}: give a number above 0, or null for no cap")
        choose_parameters(model, ascent_part)
        self.model = model
        self.ascent_lr = ascent_lr
        self.ascent_scale: StepScale = ascent_scale
        self.ascent_part = ascent_part
        self.ascent_dropout = ascent_dropout
        self.difference_cap = difference_cap
        self.reward_penalty = reward_penalty
        self.agreed_only = agreed_only
        self.measure: Callable[[GroupBatch, Tensor], Tensor] = self.difference
        self.seen: dict[str, Tensor] = {}
        self.climbed: list[Tensor] = []
        self._ascent: Ascent | None = None
        self._stepped: tuple[list[nn.Parameter], list[Tensor]] | None = None  # of the exact step that is logged

    @property
    def ascent(self) -> Ascent:
        """Theta and theta', from the first use on: not before the model is sharded, which replaces its parameters."""
        if self._ascent is None:
            self._ascent = Ascent([parameter for _, parameter in choose_parameters(self.model, self.ascent_part)])
        return self._ascent

    def start(self) -> None:
        """Begin a fit anew: another strategy may have replaced the parameters."""
        self._ascent, self._stepped = None, None

    def check(self, responses: Sequence[GroupBatch]) -> None:
        """Check that there is something to climb by.

        Raises:
            ValueError: if there are no groups, or none has the votes that are asked for.
        """
        if not responses:
            raise ValueError("MetaRM climbs the difference loss of response groups: give the data module responses=")
        # Where no voter was asked, `agreed` is True everywhere, also for a response and itself.
        if self.agreed_only and any(bool(groups.agreed[0, 0].any()) for groups in responses):
            raise ValueError(
                "agreed_only=true needs the votes of voters on the responses, and some have none: sample them with "
                "voters='runs/vote/*', or set agreed_only=false"
            )

    def begin_step(self) -> None:
        """Forget the climb of the step before; the model is at theta.

        What is moved is chosen anew, for layers may have been frozen or unfrozen since.
        """
        self.back()
        self._ascent = None
        self.climbed, self.seen = [], {}

    def up(self, responses: Sequence[GroupBatch], is_logged: bool) -> None:
        """Go from theta to theta' by the gradient of J over all micro-batches of the step; stay if it is not finite."""
        ascent = self.ascent
        for parameter in self.model.parameters():
            parameter.grad = None  # of the step before: the trainer would forget it only after this
        heights: list[Tensor] = []
        with self._aside():
            for groups in responses:
                climbed, height = self.height(groups, is_logged)
                heights.append(height)
                with torch.autocast(self.model.device.type, enabled=False):  # the float32 head's backward stays float32
                    sound = torch.where(height.isfinite(), 1.0, torch.nan)  # known from the gradient, on all ranks
                    (climbed * sound / len(responses)).backward()
        gradients = [gradient_of(parameter) for parameter in ascent.parameters]
        for parameter in self.model.parameters():
            parameter.grad = None
        average_over_ranks(gradients)
        square = squared_norm(gradients)
        self.climbed.append(square)
        self.seen["difference_loss"] = torch.stack(heights).mean()
        if not math.isfinite(square.item()):
            return
        ascent.start(gradients, self._rate(square.sqrt(), ascent.parameters))
        del gradients
        if is_logged:
            with torch.no_grad(), self._aside():
                after = [self.height(groups)[1] for groups in responses]
            self.seen["difference_loss_after"] = torch.stack(after).mean()

    @contextmanager
    def exact(self, responses: GroupBatch, is_logged: bool) -> Generator[Forward]:
        """Yield the model at theta' as a function of theta, so that the climb is differentiated too."""
        with sdpa_kernel(SDPBackend.MATH):  # the one whose gradient has a gradient
            with self._aside():
                climbed, height = self.height(responses, is_logged)
            above = model_above(self.model, self.ascent_part, climbed, self.ascent_lr)
            self.climbed += [squared_norm(above.steps), height]
            self.seen["difference_loss"] = height
            if is_logged:
                with torch.no_grad(), self._aside():
                    reward = above.model(responses.tokens).reward
                self.seen["difference_loss_after"] = self.measure(responses, reward)
                self._stepped = above.parameters, above.steps
            model = above.model
            del above  # its steps
            yield model

    def end_step(self, is_logged: bool) -> None:
        """Compare the climb with the gradient taken at theta', if that is logged; there is no theta' after it."""
        ascent = self.ascent
        if is_logged:
            compared = ascent.compared() or (self._stepped and length_and_cosine(*self._stepped))
            if compared:
                length, cosine = compared
                self.seen["ascent_length"] = length
                self.seen["gradient_cosine"] = math.copysign(1, self.ascent_lr) * cosine  # of J's, whichever way
                self.seen["ascent_relative"] = length / squared_norm(ascent.parameters).sqrt()
        self._stepped = None
        ascent.forget()

    def back(self) -> None:
        """Go to theta, from wherever the model is."""
        if self._ascent is not None:
            self._ascent.back()

    def difference(self, responses: GroupBatch, reward: Tensor) -> Tensor:
        """Return the difference loss J of a batch of groups, with the options that guard it: a float32 scalar.

        Args:
            responses: G groups.
            reward: their rewards, (k, G), or (k, M, G) of members.
        """
        agreed = responses.agreed if self.agreed_only else None
        return difference_loss(reward, responses.present, agreed, self.difference_cap)

    def height(self, responses: GroupBatch, is_logged: bool = False) -> tuple[Tensor, Tensor]:
        """Return what is climbed, J less the penalty on rewards, and J alone without gradient: scalars.

        Args:
            responses: G groups.
            is_logged: whether the mean |difference| is noted in `seen`.
        """
        reward = self.model(responses.tokens).reward
        height = self.measure(responses, reward)
        if is_logged:
            mean = reward.mean(1) if reward.ndim == 3 else reward
            statistics = group_statistics(mean, responses.present, responses.gold)
            self.seen["difference"] = statistics.difference.sum() / statistics.groups.sum()
        if not self.reward_penalty:
            return height, height.detach()
        present = responses.present.view(len(reward), *[1] * (reward.ndim - 2), -1)
        # A mean over groups, as J is: so it is the same over any number of ranks and micro-batches.
        penalty = ((reward.square() * present).sum(0) / present.sum(0)).mean()
        return height - self.reward_penalty * penalty, height.detach()

    def _rate(self, norm: Tensor, parameters: Sequence[Tensor]) -> Tensor | float:
        """Return what the gradient is multiplied by, for a gradient of this norm."""
        if self.ascent_scale == "sgd":
            return self.ascent_lr
        length = self.ascent_lr if self.ascent_scale == "norm" else self.ascent_lr * squared_norm(parameters).sqrt()
        return length / norm.clamp(min=torch.finfo(norm.dtype).tiny)

    @contextmanager
    def _aside(self) -> Generator[None]:
        """Have the model as J reads it: without dropout, or with random numbers that are not missed afterwards."""
        device = self.model.device
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            nullcontext() if self.ascent_dropout else without_dropout(self.model),
        ):
            yield
