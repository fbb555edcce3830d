"""Two contexts for whoever makes a model: transformers silent, random numbers seeded. They know no model."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from transformers.utils import logging


@contextmanager
def quiet() -> Generator[None]:
    """Transformers' progress bars and load reports off, and back as they were."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """The CPU's random numbers from a seed, and the global state as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
