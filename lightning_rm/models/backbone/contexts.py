"""Contexts around models: transformers silent, random numbers seeded, evaluation mode. They know no model's inside."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn
from transformers.utils import logging


@contextmanager
def quiet() -> Generator[None]:
    """Turn transformers' progress bars and load reports off, and back as they were."""
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
    """Draw the CPU's random numbers from a seed, and leave the global state afterwards as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class HasModules(Protocol):
    """A module, as far as its modes go."""

    def modules(self) -> Iterator[nn.Module]:
        """Return all modules inside it, itself first."""
        ...


@contextmanager
def evaluating(module: HasModules) -> Generator[None]:
    """Put a module and all inside it into evaluation mode, and each of them back as it was, errors or not."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, training in modes:
            part.training = training
