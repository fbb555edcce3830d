"""What every test shares: no network, one thread, a cache of its own, float64 that stays so, nothing done twice."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import pytest
import torch

from tests.composing import compose_once
from tests.float64 import keep_float64
from tests.thrift import be_thrifty

keep_float64()
be_thrifty()
compose_once()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_RM_CACHE", str(tmp_path / "cache"))
