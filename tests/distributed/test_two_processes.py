"""Two gloo processes on a CPU are one process: losses, weights after a step, metrics and the exported folder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.worker import METHODS

WORKER = Path(__file__).parent / "worker.py"
# Correlations and effective ranks divide by the spread of a few numbers, which magnifies their last float32 digit. The
# level of rewards hangs loose, for pairs hold differences alone, and MetaRM's ascent magnifies its last digit.
MAGNIFIED = ("correlation", "effective_rank", "reward_mean", "_std", "centering")


def launch(folder: Path, strategy: str, world_size: int) -> Path:
    """Every method's run, in folders of their names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.distributed.worker",
                str(folder),
                strategy,
                str(rank),
                str(world_size),
                str(port),
            ],
            cwd=WORKER.parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * world_size, "\n".join(outputs)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders of one process and of two under each strategy, each launched once."""
    launched: dict[str, Path] = {}

    def of(strategy: str) -> Path:
        if strategy not in launched:
            folder = tmp_path_factory.mktemp(strategy)
            launched[strategy] = launch(folder, strategy, world_size=1 if strategy == "auto" else 2)
        return launched[strategy]

    return of


def metrics(folder: Path, rank: int = 0) -> dict[str, float]:
    return json.loads((folder / f"metrics{rank}.json").read_text())


@pytest.mark.xdist_group("two_processes")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_equal_one(runs: Callable[[str], Path], strategy: str, method: str) -> None:
    """25 pairs, 8 a step (the last has 1, so a rank has a filler), 7 validation pairs: nothing divides evenly."""
    one, two = (runs(name) / method for name in ("auto", strategy))
    expected = metrics(one)
    assert {"test/test_responses/difference", "test/test_responses/gold_correlation"} <= expected.keys()
    if method.startswith("meta"):
        assert expected["train/ascent_length"] > 0
        assert {"train/difference_loss", "train/gradient_cosine"} <= expected.keys()
    exact = {name: value for name, value in expected.items() if not name.endswith(MAGNIFIED)}
    assert {"train/loss", "train_epoch/nll", "val/accuracy", "test/margin"} <= exact.keys()
    assert metrics(two) == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True)
    assert {name: metrics(two)[name] for name in exact} == pytest.approx(exact, rel=3e-6, abs=3e-6, nan_ok=True)
    assert metrics(two, rank=1) == pytest.approx(metrics(two), rel=1e-12, abs=1e-12, nan_ok=True)
    weights = [load_file(folder / "model" / "last" / "model.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-6, rtol=1e-6)
