"""Two gloo processes on a CPU are one process: losses, weights after a step, metrics and the exported folder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.distributed.worker import METHODS
from tests.float64 import assert_same, same

WORKER = Path(__file__).parent / "worker.py"


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
    assert {"train/loss", "train_epoch/nll", "val/accuracy", "test/margin"} <= expected.keys()
    assert metrics(two) == same(expected)
    assert metrics(two, rank=1) == same(metrics(two))
    weights = [load_file(folder / "model" / "last" / "model.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert_same(weights[1][name], value)
