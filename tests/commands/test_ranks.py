"""Ranks that were started apart write into one folder, whatever their clocks say."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  # torch's own name of it

from lightning_rm.commands._keys import check_keys
from lightning_rm.commands._ranks import (
    _told,  # pyright: ignore[reportPrivateUsage]  # what differs from torchrun is who opens the store
    with_date,
)

USUAL = "runs/${name}/${now:%Y-%m-%d_%H-%M-%S}"


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is a minute after the one before."""
    looks = iter(range(0, 10**6, 60))
    monkeypatch.setattr(time, "time", lambda: float(next(looks)))


def test_one_process_names_its_folder_itself() -> None:
    assert with_date(["seed=1"], USUAL, {}) == ["seed=1"]
    alone = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1"}
    assert with_date(["hydra.run.dir=a/${now:%Y}"], USUAL, alone) == ["hydra.run.dir=a/${now:%Y}"]
    for word in ("hydra.run.dir=a", "++hydra.run.dir=a"):
        assert with_date([word], USUAL, {"TORCHELASTIC_USE_AGENT_STORE": "True"}) == [word]


def test_an_experiment_may_name_a_folder_of_its_own() -> None:
    """In which another looks for what it leaves: no date comes in its place."""
    assert check_keys("train", []).run_dir == USUAL
    assert check_keys("train", ["experiment=nemotron_regression"]).run_dir == "runs/${name}"


def test_ranks_of_torchrun_take_the_date_of_the_first(clocks: None) -> None:
    """Also of a second start by the same torchrun, which is another run."""
    agent = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=20))
    told = {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    found = [
        [
            with_date(["seed=1"], USUAL, told | {"MASTER_PORT": str(agent.port), "RANK": rank, **start})
            for rank in ("0", "1")
        ]
        for start in ({}, {"TORCHELASTIC_RESTART_COUNT": "1"})
    ]
    for first, second in found:
        assert first == second
        assert first[0] == "seed=1"
        assert first[1].startswith("hydra.run.dir=runs/${name}/19")
    assert found[0] != found[1]


def test_ranks_of_srun_meet_at_a_store_of_their_own(clocks: None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with ThreadPoolExecutor(2) as both:
        asked = [both.submit(_told, rank, 2, ("127.0.0.1", port), "0", is_ours=True) for rank in (0, 1)]
        first, second = (each.result() for each in asked)
    assert first == second
