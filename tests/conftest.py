"""What every test shares: no network, one thread, a cache of its own, float64 that stays so, nothing done twice."""

from __future__ import annotations

import gc
import os
from itertools import count

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Prepare a process that runs tests; one that hands them out to others imports nothing heavy (6 s)."""
    if config.getoption("numprocesses", None):
        return
    gc.disable()  # till all tests are found: what is imported stays, and to look for garbage in it took 5 s of 17
    import torch
    from hypothesis import HealthCheck, settings

    from tests.composing import compose_once
    from tests.float64 import keep_float64
    from tests.thrift import be_thrifty

    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")  # a busy machine fails no test
    torch.set_num_threads(1)
    keep_float64()
    be_thrifty()
    compose_once()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: object) -> None:
    """Import what processes that run tests warn of, while they collect.

    The one that hands tests out imports the module of a warning in a thread for each of them, and two threads that
    import Lightning at a time were seen to wait for each other, which ends the whole run.
    """
    import lightning.pytorch  # noqa: F401  # for its modules alone


def pytest_collection_finish() -> None:
    """What is imported by now is not garbage: looking through it took a third of a second, at every `gc.collect()`.

    What tests leave behind is small: it may lie a while.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 50)
    gc.enable()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place of its own, made by whoever writes there: most tests write nothing, and a folder takes half a ms."""
    monkeypatch.setenv("LIGHTNING_RM_CACHE", str(tmp_path_factory.getbasetemp() / f"cache{next(_tests)}"))


_tests = count()
