"""A checkpoint of shards goes on with another number of processes, and is one Hugging Face folder in the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lightning_rm.callbacks.checkpoint_files import latest_checkpoint, read_checkpoint
from tests.distributed import sharded_worker
from tests.float64 import assert_same
from tests.processes import run_ranks


def test_shards_of_two_ranks_go_on_with_two_and_with_four(tmp_path: Path) -> None:
    """Two ranks train an epoch; two go on from its end and from the middle, four from its end: all are one process."""
    last, middle = "first/checkpoints/last.ckpt", "first/checkpoints/resume.ckpt"
    run_ranks(
        sharded_worker.run, 2, tmp_path, 2, {"first": (1, None), "two": (2, last), "from_the_middle": (2, middle)}
    )
    run_ranks(sharded_worker.run, 4, tmp_path, 4, {"four": (2, last)})
    sharded_worker.fit(tmp_path / "one", 1, 2)
    expected = load_file(tmp_path / "one" / "model" / "last" / "model.safetensors")
    for name in ("two", "from_the_middle", "four"):
        found = load_file(tmp_path / name / "model" / "last" / "model.safetensors")
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)

    folder = tmp_path / "first" / "checkpoints"
    steps = {name: read_checkpoint(folder / name)["global_step"] for name in ("last.ckpt", "resume.ckpt")}
    assert steps == {"last.ckpt": 3, "resume.ckpt": 2}
    shard = next((folder / "last.ckpt").glob("*.distcp"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"distcp has other bytes than were written.*beside it: resume.ckpt \(step 2\)"
    ):
        read_checkpoint(folder / "last.ckpt")
    with pytest.warns(UserWarning, match=r"passed over: .*distcp has other bytes"):
        assert latest_checkpoint(tmp_path / "first") == folder / "resume.ckpt"


def test_offloaded_shards_take_a_checkpoint_after_a_validation(tmp_path: Path) -> None:
    run_ranks(sharded_worker.measure_twice, 1, tmp_path)
    first, second = json.loads((tmp_path / "measured.json").read_text())
    assert first == second
    assert first[0]["val/num_pairs"] > 0
