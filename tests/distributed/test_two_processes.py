"""Two and four gloo processes on a CPU are one process: order of pairs, losses, weights, metrics, exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.distributed import worker
from tests.float64 import BOUND, LOOSE, assert_same, same
from tests.processes import run_ranks


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders of one process and of several under each strategy, each launched once."""
    launched: dict[str, Path] = {}
    cache = tmp_path_factory.mktemp("cache")

    def of(strategy: str) -> Path:
        if strategy not in launched:
            folder = tmp_path_factory.mktemp(strategy)
            run_ranks(worker.run_all, worker.RANKS[strategy], folder, cache, strategy)
            launched[strategy] = folder
        return launched[strategy]

    return of


def metrics(folder: Path, rank: int = 0) -> dict[str, float]:
    return json.loads((folder / f"metrics{rank}.json").read_text())


def alike(expected: dict[str, float]) -> dict[str, Any]:
    """What `==` takes for the same metrics, those of `LOOSE` as the same for fewer digits."""
    return {
        name: pytest.approx(value, rel=BOUND, abs=LOOSE.get(name.rpartition("/")[2], BOUND), nan_ok=True)
        for name, value in expected.items()
    }


CASES = [(strategy, method) for strategy in ("ddp", "fsdp2", "ddp4") for method in worker.methods_of(strategy)]


def rows(folder: Path, rank: int) -> list[list[int]]:
    return json.loads((folder / f"rows{rank}.json").read_text())


@pytest.mark.parametrize(("strategy", "method"), CASES)
def test_several_processes_equal_one(runs: Callable[[str], Path], strategy: str, method: str) -> None:
    """17 pairs, 8 a step (the last has 1: other ranks have a filler), 7 validation pairs: nothing divides evenly.

    Among the methods those that look over a batch: a contrast, ODIN's correlations, a batch's mean, ranked strengths.
    """
    one, several = (runs(name) / method for name in ("auto", strategy))
    expected = metrics(one)
    assert {"test/test_responses/difference", "test/test_responses/gold_correlation"} <= expected.keys()
    if method.startswith("meta"):
        assert expected["train/ascent_length"] > 0
        assert {"train/difference_loss", "train/gradient_cosine"} <= expected.keys()
    of_text = {"train_epoch/perplexity", "val/loss", "test/perplexity"}
    of_rewards = {"train_epoch/nll", "val/accuracy", "test/margin"}
    assert {"train/loss", *(of_text if method == "sft" else of_rewards)} <= expected.keys()
    assert expected.keys().isdisjoint(of_rewards if method == "sft" else of_text)
    ranks = range(worker.RANKS[strategy])
    if not worker.is_tested(strategy, method):
        expected = {name: value for name, value in expected.items() if not name.startswith("test/")}
    assert metrics(several) == alike(expected)
    assert metrics(several, rank=ranks[-1]) == same(metrics(several))
    of_ranks = zip(*(rows(several, rank) for rank in ranks), strict=True)
    assert [sorted(chain(*step)) for step in of_ranks] == [sorted(step) for step in rows(one, 0)]
    weights = [load_file(folder / "model" / "last" / "model.safetensors") for folder in (one, several)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert_same(weights[1][name], value)


def test_a_spike_has_the_pairs_of_all_ranks(runs: Callable[[str], Path]) -> None:
    """Ranks have pairs 0; 1 and 10; 2, 10 and 10; ...: as many as their number."""
    found = [json.loads((runs("ddp4") / f"spikes{rank}.json").read_text()) for rank in range(4)]
    assert found[0] == [[20, 30.0, 1.0, [0, 1, 10, 2, 10, 10, 3, 10, 10, 10]]]
    assert found[1:] == found[:1] * 3
