"""Two gloo processes on a CPU are one process: losses, weights after a step, metrics and the exported folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.distributed import worker
from tests.float64 import assert_same, same
from tests.processes import run_ranks


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders of one process and of two under each strategy, each launched once."""
    launched: dict[str, Path] = {}

    def of(strategy: str) -> Path:
        if strategy not in launched:
            folder = tmp_path_factory.mktemp(strategy)
            run_ranks(worker.run_all, 1 if strategy == "auto" else 2, folder, strategy)
            launched[strategy] = folder
        return launched[strategy]

    return of


def metrics(folder: Path, rank: int = 0) -> dict[str, float]:
    return json.loads((folder / f"metrics{rank}.json").read_text())


@pytest.mark.parametrize("method", worker.METHODS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_equal_one(runs: Callable[[str], Path], strategy: str, method: str) -> None:
    """25 pairs, 8 a step (the last has 1, so a rank has a filler), 7 validation pairs: nothing divides evenly.

    Among the methods those that look over a batch: a contrast, ODIN's correlations, a batch's mean, ranked strengths.
    """
    one, two = (runs(name) / method for name in ("auto", strategy))
    expected = metrics(one)
    assert {"test/test_responses/difference", "test/test_responses/gold_correlation"} <= expected.keys()
    if method.startswith("meta"):
        assert expected["train/ascent_length"] > 0
        assert {"train/difference_loss", "train/gradient_cosine"} <= expected.keys()
    assert {"train/loss", "train_epoch/nll", "val/accuracy", "test/margin"} <= expected.keys()
    assert metrics(two) == same(expected)
    assert metrics(two, rank=1) == same(metrics(two))
    weights = [load_file(folder / "model" / "last" / "model.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert_same(weights[1][name], value)
