"""Metrics of text: hand-made numbers."""

from __future__ import annotations

import math

import torch

from lightning_rm.metrics.text import TextMetrics, text_metric_names
from tests.float64 import same


def test_loss_and_perplexity_are_of_all_tokens_and_fillers_count_nothing() -> None:
    """A mean of 2 over three tokens and of 1 over one: 7/4, where the mean of means is 3/2."""
    metric = TextMetrics()
    for loss, num_tokens in ((2.0, 3), (math.nan, 0), (1.0, 1)):
        metric.update(torch.tensor(loss), torch.tensor(num_tokens))
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == same({"loss": 1.75, "perplexity": math.exp(1.75), "num_tokens": 4})
    assert found.keys() == text_metric_names()
