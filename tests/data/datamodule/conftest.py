"""Silence what Lightning advises on workers and checkpoint folders, which is not what these tests are about."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_advice() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(does not have many workers|Checkpoint directory|when using `ckpt_path`).*"
        )
        yield
