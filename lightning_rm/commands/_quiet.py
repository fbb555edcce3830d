"""A training without what Lightning warns of and a user can do nothing about."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager

QUIET = (
    ".*does not have many workers.*",
    "The number of training batches .* is smaller than the logging interval.*",  # a short run logs every step
    "Checkpoint directory .* exists and is not empty.*",  # of a run that goes on
    ".*dataloader is not resumable.*",  # ours can be resumed
    ".*nn.functional.all_gather is deprecated.*",  # Lightning's call
    ".*torch.distributed.* is deprecated. Please use.*",  # DeepSpeed's calls
    ".*callbacks used to create the checkpoint need to be provided.*",  # of other settings, which are said in one line
    ".*could not find the monitored key.*",  # of a run that ends before a validation; it is said in one line
)
"""Patterns of these warnings."""


@contextmanager
def quiet() -> Generator[None]:
    """Leave those warnings out."""
    with warnings.catch_warnings():
        for message in QUIET:
            warnings.filterwarnings("ignore", message=message)
        yield
