"""A sweep by Ray trains tiny runs and names one that dies; Ray's workers give the bytes and the errors of the plain
engine, and one that dies is started again, or named.

All that needs Ray is here, for one cluster.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

from lightning_rm.annotation.annotate import annotate
from lightning_rm.annotation.voters import Voter
from lightning_rm.commands._engine import scoring_engine
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.scoring import on_ray
from lightning_rm.scoring.files import score_file
from lightning_rm.scoring.load import LoadedModel
from lightning_rm.scoring.on_ray import RayWorkers
from tests.commands.conftest import Cli
from tests.commands.test_launchers import DIES, SMALL, check_that_one_died
from tests.processes import FORKS
from tests.ray_forks import forks
from tests.toy import toy_model

TOKENIZER = world_tokenizer()
ROWS = [{"prompt": "a cat " * n, "responses": ["a dog", "a red dog" * n], "id": n} for n in range(1, 12)]
ROWS.insert(3, {"prompt": "a cat", "responses": ["a dog", "a blue dog"], "id": 0})
BAD = {"prompt": "a cat", "id": -1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, with room for two workers."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install -e '.[test]'")
    is_new = "ray" not in sys.modules  # which reads the environment of its process once, when it is imported
    with forks() if FORKS and is_new else nullcontext(sys.executable) as python:
        ray = import_module("ray")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "disabled")  # its token would be left in the home folder
            patch.setattr(sys, "executable", python)
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def workers(cluster: None) -> Iterator[RayWorkers]:
    """Two workers on this machine, which score a shard twice at most."""
    with pytest.MonkeyPatch.context() as patch, RayWorkers(2) as started:
        patch.setattr(on_ray, "RETRIES", 1)
        yield started


class Deadly:
    """Kills the process that a model is called in, as often as it is told to."""

    def __init__(self, noted: Path, times: int) -> None:
        self.noted = noted
        self.times = times

    def __call__(self, *_: Any) -> None:
        with self.noted.open("a") as file:
            file.write("x")
        if self.noted.stat().st_size <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)


def deadly(noted: Path, times: int) -> LoadedModel:
    model = toy_model()
    model.register_forward_pre_hook(Deadly(noted, times))
    return LoadedModel(model, TOKENIZER)


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"answers{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, BAD]))
    return path


@pytest.mark.usefixtures("allowed", "cluster")
def test_ray_runs_jobs_and_one_that_dies_is_named(cli: Cli, tmp_path: Path) -> None:
    """Before the workers below, which leave no room."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs lightning-rm[ray]")
    words = ["allow_targets=true", "launcher=ray", "hydra.launcher.ray.remote.max_retries=0"]
    said = cli("train", "-m", *SMALL, DIES, *words, f"hydra.sweep.dir={tmp_path}/sweep")
    check_that_one_died(tmp_path, said.code, said.err)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_has_the_bytes_of_the_plain_engine(suffix: str, workers: RayWorkers, tmp_path: Path) -> None:
    """Though the plain engine has begun it, and a worker is killed where it is JSONL."""
    path = written(tmp_path, suffix)
    plain, out = tmp_path / f"plain{suffix}", tmp_path / f"ray{suffix}"
    expected = score_file(LoadedModel(toy_model(), TOKENIZER), path, plain, shard_rows=3)

    def stop(done: int, _: int | None) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    times = 1 if suffix == ".jsonl" else 0
    model = deadly(tmp_path / "noted", times)
    with pytest.raises(KeyboardInterrupt):
        score_file(LoadedModel(toy_model(), TOKENIZER), path, out, shard_rows=3, progress=stop)
    assert list(tmp_path.glob("ray*.parts/*/000000.npz"))
    done: list[int] = []
    report = score_file(model, path, out, shard_rows=3, engine=workers, progress=lambda rows, _: done.append(rows))
    assert out.read_bytes() == plain.read_bytes()
    assert (report.num_scored, report.refused) == (expected.num_scored, expected.refused)
    assert done[-1] == report.num_rows
    assert (tmp_path / "noted").stat().st_size > times  # so often it has died
    assert not list(tmp_path.glob("*.parts"))


def test_a_full_disk_and_data_that_goes_cost_what_was_not_written(
    workers: RayWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = written(tmp_path, ".jsonl"), LoadedModel(toy_model(), TOKENIZER)
    plain, out = tmp_path / "plain.jsonl", tmp_path / "ray.jsonl"
    score_file(model, path, plain, shard_rows=3)
    whole, save = path.read_bytes(), np.savez

    def full(file: Any, **arrays: Any) -> None:
        if list(out.with_name("ray.jsonl.parts").glob("*/*.npz")):
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"No space left on device: .*\.npz"):
        score_file(model, path, out, shard_rows=3, engine=workers)
    monkeypatch.setattr(np, "savez", save)
    assert len(list(tmp_path.glob("ray.jsonl.parts/*/*"))) == 1  # whole, and no draft

    def remove(done: int, _: int | None) -> None:
        path.unlink(missing_ok=True)

    with pytest.raises((ValueError, OSError), match=r"answers\.jsonl"):
        score_file(model, path, out, shard_rows=3, engine=workers, progress=remove)
    assert not out.exists()
    path.write_bytes(whole)
    score_file(model, path, out, shard_rows=3, engine=workers)
    assert out.read_bytes() == plain.read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_pairs_are_annotated_with_the_same_bytes(workers: RayWorkers, tmp_path: Path) -> None:
    voters: list[Voter] = []
    for seed in (0, 1):
        folder = tmp_path / f"voter{seed}"
        toy_model(seed).save_pretrained(folder, TOKENIZER)
        voters.append(Voter(str(seed), folder))
    source = SyntheticSource(12, split="train")
    plain, out = tmp_path / "plain.parquet", tmp_path / "ray.parquet"
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache", "shard_size": 5}
    annotate(source, voters, plain, trl=tmp_path / "plain.jsonl", **options)
    annotate(source, voters, out, trl=tmp_path / "ray.jsonl", engine=workers, **options)
    assert out.read_bytes() == plain.read_bytes()
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_an_error_names_the_row_that_the_plain_engine_names(workers: RayWorkers, tmp_path: Path) -> None:
    path, model = written(tmp_path, ".jsonl"), toy_model()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    told: list[str] = []
    for engine in ({}, {"engine": workers}):
        with pytest.raises(ValueError, match=r"answers.jsonl:1 has a reward that is not finite") as error:
            score_file(LoadedModel(model, TOKENIZER), path, tmp_path / "out.jsonl", shard_rows=3, **engine)
        told.append(str(error.value))
    assert told[0] == told[1]


def test_a_shard_that_loses_every_worker_is_named_and_the_others_are_kept(workers: RayWorkers, tmp_path: Path) -> None:
    path, out = written(tmp_path, ".jsonl"), tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match=r"answers.jsonl:\d+ and the \d+ conversations after it: .* lost 2 times"):
        score_file(deadly(tmp_path / "noted", 1000), path, out, shard_rows=6, engine=workers)
    assert not out.exists()


def test_workers_that_there_is_no_room_for_are_refused(workers: RayWorkers, tmp_path: Path) -> None:
    path = written(tmp_path, ".jsonl")
    with RayWorkers(3) as three, pytest.raises(ValueError, match="devices=3: the Ray cluster has room for 2 workers"):
        score_file(LoadedModel(toy_model(), TOKENIZER), path, tmp_path / "out.jsonl", engine=three)
    with RayWorkers(1, "gpu") as one, pytest.raises(ValueError, match="accelerator=gpu: the Ray cluster has no GPU"):
        score_file(LoadedModel(toy_model(), TOKENIZER), path, tmp_path / "out.jsonl", engine=one)


@pytest.mark.parametrize(
    ("engine", "devices", "message"),
    [
        ("spark", 1, "engine='spark': there are 'local' and 'ray'"),
        ("ray", 0, "devices=0: engine=ray takes a number of workers"),
        ("ray", 2, r"engine='ray' needs Ray: pip install 'lightning-rm\[ray\]'"),
    ],
)
def test_an_engine_that_is_not_there_is_a_sentence(
    engine: str, devices: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    cfg = OmegaConf.create({"engine": engine, "devices": devices, "accelerator": "cpu", "precision": "32-true"})
    with pytest.raises(ValueError, match=message), scoring_engine(cfg):
        pass
