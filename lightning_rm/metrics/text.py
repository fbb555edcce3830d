"""Metrics of a language model on text: one mean over all tokens of all ranks. It knows losses and counts; no model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_rm.precision import widest


class TextMetrics(Metric):
    """How well text is predicted, exact over all tokens of all ranks.

    `compute` gives float64 scalars:

    - `loss`: mean next-token cross-entropy over the tokens, in nats.
    - `perplexity`: its exponential, between how many tokens the model is in doubt.
    - `num_tokens`: the tokens counted.

    Args:
        **kwargs: handed to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, loss: Tensor, num_tokens: Tensor) -> None:
        """Add text.

        Args:
            loss: a scalar, the mean over its tokens.
            num_tokens: a scalar; 0 for text that does not count.
        """
        wide = widest(loss.device)
        total = torch.where(num_tokens > 0, loss.detach().to(wide) * num_tokens, 0.0)
        self.sums = self.sums.to(wide) + torch.stack([total, num_tokens.to(wide)])

    def compute(self) -> dict[str, Tensor]:
        """Return every metric by name, as listed above."""
        total, num_tokens = self.sums
        return {"loss": total / num_tokens, "perplexity": (total / num_tokens).exp(), "num_tokens": num_tokens}


def text_metric_names() -> set[str]:
    """Return the names that `TextMetrics` gives."""
    return {"loss", "perplexity", "num_tokens"}
