"""The contrasts: SimCSE and SwAV on two views of the features of P pairs (arXiv 2401.06080, 3.1).

They know samples (`contrasted`) and the other ranks; not how views come about.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor, nn

from lightning_rm.counts import check_counts, check_numbers, check_positive
from lightning_rm.losses import simcse_loss, sinkhorn, swav_loss
from lightning_rm.modules.contrasted import (
    Contrast,
    Contrasted,
    Samples,
    counted_of,
    names_of,
    of_samples,
    projection_head,
    samples_of,
    unit,
)
from lightning_rm.modules.gather import gather_rows
from lightning_rm.options import check_words
from lightning_rm.precision import wide


class SimCSE(Contrast):
    """Every sample is to find its other view among those of all samples of all ranks (arXiv 2401.06080, eq 9).

    A response that stands in several pairs, of whatever ranks, is not a negative of itself.

    Args:
        feature_size: H.
        samples: `responses` or `difference`.
        temperature: of the cosines; SimCSE's 0.05, the paper names none.
        other_weight: how often the pair's other sample counts among the negatives. 1 is the paper's; more makes a hard
            negative of what a reward model must tell apart; 0 leaves it out, as one may in `difference`, where its
            cosine is -1 whatever is learned.
        projection: the size that a projection head of two layers maps features to; None for the features themselves.
        seed: of the projection's weights.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(
        self,
        feature_size: int,
        samples: Samples = "responses",
        temperature: float = 0.05,
        other_weight: float = 1.0,
        projection: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_words(get_args(Samples), samples=samples)
        check_positive(temperature=temperature)
        check_numbers(0, other_weight=other_weight)
        self.samples: Samples = samples
        self.temperature = temperature
        self.other_weight = other_weight
        self.projection = projection_head(feature_size, projection, seed)

    def forward(self, first: Tensor, second: Tensor, index: Tensor, weight: Tensor | None = None) -> Contrasted:
        """Return the loss over this rank's samples, the second views of every rank among the negatives."""
        first, second = (self.projection(samples_of(view, self.samples)) for view in (first, second))
        names = names_of(index, self.samples)
        every, start = gather_rows(second)
        every_name, _ = gather_rows(names)
        if len(first) == 0:  # in the loss all the same: the other ranks wait for it, in the backward pass too
            return Contrasted(0.0 * (first.sum() + every.sum()), first.detach(), second.detach())
        row = torch.arange(len(first), device=first.device)
        other = start + (row + len(first) // 2) % len(first)
        log_weight = first.new_zeros(len(first), len(every))
        log_weight[row, other] = math.log(self.other_weight) if self.other_weight else -math.inf
        no_negative = (names[:, None] == every_name).all(-1) | ~counted_of(every_name)
        no_negative[row, start + row] = False
        log_weight.masked_fill_(no_negative, -math.inf)
        counted = counted_of(names)
        loss = simcse_loss(first, every, self.temperature, start + row, log_weight, of_samples(weight, first) * counted)
        return Contrasted(loss, unit(first).detach(), unit(second).detach(), counted=counted)


class SwAV(Contrast):
    """Each view is to predict the prototypes that the other is assigned to (arXiv 2401.06080, eq 7-8).

    SwAV is arXiv 2006.09882. Codes are made by Sinkhorn-Knopp over the samples of all ranks and of the queue, without
    gradient. Prototypes and features are normalised.

    Args:
        feature_size: H.
        samples: `responses` or `difference`.
        num_prototypes: K; the paper's 50, and 20 for differences.
        temperature: of the predictions; SwAV's 0.1.
        epsilon: of the codes; SwAV's 0.05.
        iterations: of Sinkhorn-Knopp; SwAV's 3.
        queue: past samples that the codes are also made of, for batches that are small beside K; 0 for none.
        frozen: how long the prototypes are not trained: below 1 a share of the run, from 1 on optimizer steps. SwAV
            freezes them for its first epoch.
        projection: the size that a projection head of two layers maps features to; None for the features themselves.
        seed: of prototypes and projection.

    Raises:
        ValueError: if a value is out of its range.
    """

    queued: Tensor
    queue: Tensor

    def __init__(
        self,
        feature_size: int,
        samples: Samples = "responses",
        num_prototypes: int = 50,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue: int = 0,
        frozen: float = 0.0,
        projection: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_words(get_args(Samples), samples=samples)
        check_positive(temperature=temperature, epsilon=epsilon)
        check_counts(2, num_prototypes=num_prototypes)
        check_counts(1, iterations=iterations)
        check_counts(0, queue=queue)
        check_numbers(0, frozen=frozen)
        self.samples: Samples = samples
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.frozen = frozen
        self.projection = projection_head(feature_size, projection, seed)
        size = projection or feature_size
        generator = torch.Generator().manual_seed(seed)
        self.prototypes = nn.Parameter(unit(torch.randn(num_prototypes, size, generator=generator)))
        self.register_buffer("queue", torch.zeros(2, queue, size))
        self.register_buffer("queued", torch.zeros((), dtype=torch.long))

    def forward(self, first: Tensor, second: Tensor, index: Tensor, weight: Tensor | None = None) -> Contrasted:
        """Return the loss over this rank's samples; the samples of all ranks enter the queue in training."""
        counted = counted_of(names_of(index, self.samples))
        views = [unit(self.projection(samples_of(view, self.samples))) * counted[:, None] for view in (first, second)]
        prototypes = unit(wide(self.prototypes))
        scores = [view @ prototypes.T for view in views]
        codes = self._codes(torch.stack(views).detach(), prototypes.detach())
        detached = [view.detach() for view in views]
        share = (scores[0].detach() / self.temperature).softmax(-1)
        if codes.shape[1] == 0:
            return Contrasted(0.0 * (scores[0].sum() + scores[1].sum()), detached[0], detached[1], share, counted)
        loss = swav_loss(scores[0], scores[1], codes[0], codes[1], self.temperature, of_samples(weight, scores[0]))
        return Contrasted(loss, detached[0], detached[1], share, counted)

    def before_step(self, step: int, num_steps: float) -> None:
        """Forget the prototypes' gradient while they are frozen.

        Args:
            step: optimizer steps taken.
            num_steps: of the whole run; infinite where it has no planned end.

        Raises:
            ValueError: if `frozen` is a share of a run without an end.
        """
        if 0 < self.frozen < 1 and math.isinf(num_steps):
            raise ValueError(f"frozen={self.frozen} is a share of a run, and this one has no planned end: give steps")
        if step < (self.frozen * num_steps if self.frozen < 1 else self.frozen):
            self.prototypes.grad = None

    def _codes(self, views: Tensor, prototypes: Tensor) -> Tensor:
        """Return (2, n, K): codes of this rank's samples in both views (2, n, D); a row of 0 is none, and has none."""
        num_pairs = views.shape[1] // 2
        # A row for both samples of a pair: the queue is in the order of pairs, however ranks divide them.
        pairs = views.unflatten(1, (2, num_pairs)).permute(2, 0, 1, 3)
        gathered, start = gather_rows(pairs)
        pool = gathered = gathered.transpose(0, 1).flatten(1, 2)
        if self.queue.shape[1]:
            pool = torch.cat([gathered, self.queue[:, : int(self.queued)]], dim=1)
            if self.training:
                self._enqueue(gathered)
        codes = torch.stack(
            [sinkhorn(view @ prototypes.T, self.epsilon, self.iterations, view.any(-1)) for view in pool]
        )
        own = codes[:, 2 * start : 2 * (start + num_pairs)]
        return own.unflatten(1, (num_pairs, 2)).transpose(1, 2).flatten(1, 2)

    @torch.no_grad()
    def _enqueue(self, views: Tensor) -> None:
        """Put samples at the front of the queue; the oldest drop out."""
        if not views.isfinite().all():
            return  # they would spoil the codes of every later step
        size = self.queue.shape[1]
        self.queue.copy_(torch.cat([views, self.queue], dim=1)[:, :size])
        self.queued.copy_((self.queued + views.shape[1]).clamp(max=size))
