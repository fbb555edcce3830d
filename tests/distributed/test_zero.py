"""Two and four gloo processes under DeepSpeed's ZeRO are one process, in float32, which is all that it steps in.

`python -m tests.matrix zero2 zero3` has every module and layout, `python -m tests.faults zero2 zero3` every fault.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests import faults, matrix
from tests.distributed import zero_worker
from tests.processes import run_ranks

pytest.importorskip("deepspeed", reason="needs lightning-rm[deepspeed]")

FIRST = "first/checkpoints/last.ckpt"
RUNS: dict[str, dict[str, Any]] = {
    "first": {"stage": 3, "epochs": 1},
    "stage3": {"stage": 3, "epochs": 2, "resume": FIRST},
    "stage2": {"stage": 2, "epochs": 2, "resume": FIRST},
    "stage1": {"stage": 1, "epochs": 2},
    "offload": {"stage": 3, "offload": True, "epochs": 2},
}


@pytest.mark.parametrize("trainer", ["zero2", "zero3", "zero3x4"])
def test_several_processes_equal_one(tmp_path: Path, trainer: str) -> None:
    modules = ["baseline", "baseline_lora"]
    for name in ("one_float32", trainer):
        run_ranks(matrix.run_all, matrix.TRAINERS[name].ranks, tmp_path, name, modules)
    found = [matrix.compare(tmp_path, trainer, module, layout) for module in modules for layout in matrix.LAYOUTS]
    assert [wrong for _, wrong in found] == [[]] * len(found)


def test_a_checkpoint_goes_on_with_any_number_of_ranks_and_without_deepspeed(tmp_path: Path) -> None:
    """AdamW with decay of matrices, a schedule, steps of two micro-batches and a last one of a single pair: an epoch
    under stage 3 on two ranks, then the next under stages 3 and 2, on four, and on one process without DeepSpeed.
    """
    expected = zero_worker.fit(tmp_path / "one", 1, 2)
    run_ranks(zero_worker.run, 2, tmp_path, 2, RUNS)
    run_ranks(zero_worker.run, 4, tmp_path, 4, {"four": {"stage": 3, "epochs": 2, "resume": FIRST}})
    zero_worker.fit(tmp_path / "without", 1, 2, tmp_path / FIRST)
    weights = exported(tmp_path / "one")
    for name in (*RUNS, "four", "without"):
        if name != "first":
            found = exported(tmp_path / name)
            assert found.keys() == weights.keys()
            assert max(float((found[key] - value).abs().max()) for key, value in weights.items()) < 1e-5
    for name in (*RUNS, "four"):
        if name != "first":
            ranks = [json.loads(path.read_text()) for path in sorted((tmp_path / name).glob("metrics*.json"))]
            assert all(rank == pytest.approx(ranks[0], nan_ok=True) for rank in ranks)
            assert ranks[0] == pytest.approx(expected, rel=1e-3, abs=1e-3, nan_ok=True)
    checkpoint = torch.load(tmp_path / FIRST, weights_only=True)
    assert all(one["step"] == 4 for one in checkpoint["optimizer_states"][0]["state"].values())


def exported(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "last" / "model.safetensors")


@pytest.mark.parametrize("trainer", ["zero2", "zero3"])
def test_a_step_that_is_not_finite_changes_no_weight(tmp_path: Path, trainer: str) -> None:
    run_ranks(faults.run_all, 2, tmp_path, trainer, ["baseline"])
    seen = [json.loads((tmp_path / f"{trainer} baseline {rank}").read_text()) for rank in range(2)]
    assert [one["wrong"] for one in seen] == [[], []]
    assert seen[0]["kept"] == [[faults.SPIKE, sorted(seen[0]["rows"] + seen[1]["rows"])]]
