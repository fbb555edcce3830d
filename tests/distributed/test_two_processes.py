"""Two gloo processes on a CPU are one process: losses, weights after a step, metrics and the exported folder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = Path(__file__).parent / "worker.py"


def launch(folder: Path, strategy: str, world_size: int) -> dict[str, float]:
    folder.mkdir()
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
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * world_size, "\n".join(outputs)
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("alone") / "run"
    return folder, launch(folder, "auto", 1)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_equal_one(alone: tuple[Path, dict[str, float]], tmp_path: Path, strategy: str) -> None:
    """26 pairs, 8 a step (the last step has 2), 7 validation pairs: nothing divides evenly."""
    expected_folder, expected = alone
    found = launch(tmp_path / "run", strategy, 2)
    assert {"train/loss", "train/centering", "train_epoch/nll", "val/accuracy", "test/margin"} <= expected.keys()
    # A subset's correlation divides by the spread of a few rewards, which magnifies their last float32 digit.
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True)
    one = load_file(expected_folder / "model" / "last" / "model.safetensors")
    two = load_file(tmp_path / "run" / "model" / "last" / "model.safetensors")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-5)
