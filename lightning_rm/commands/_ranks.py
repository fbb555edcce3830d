"""When a run began, for ranks that were started apart: by torchrun or srun each composes its configuration by itself.

A dated folder would be another one for a rank whose clock has gone on by a second, and a checkpoint of shards would lie
in two places. So rank 0 says what time it is. Ranks that Lightning starts are handed rank 0's folder and do not ask. It
knows what torchrun and Slurm tell a process; no configuration.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

WAIT = timedelta(minutes=5)
"""How long a rank waits for the others."""

FOLDER = "hydra.run.dir="
"""How the word begins that names a run's folder."""

NEXT_PORT = 1
"""From the port at which Lightning will join the ranks under Slurm to the one that they meet at before."""


def with_date(words: Sequence[str], usual: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return a command line whose folder has the date that rank 0 gives it, where several ranks were started apart.

        hydra.run.dir=runs/a/${now:%Y-%m-%d}  ->  hydra.run.dir=runs/a/2026-11-29    of one process: as it is

    Args:
        words: the command line.
        usual: the folder where none is named.
        environment: of this process.

    Raises:
        ValueError: if the ranks do not find each other.
    """
    named = [word for word in words if word.lstrip("+").startswith(FOLDER)]
    folder = named[-1].lstrip("+") if named else f"{FOLDER}{usual}"
    began = _began(environment) if "${now:" in folder else None
    if began is None:
        return list(words)
    at = time.localtime(began)
    dated = re.sub(r"\$\{now:([^}]*)\}", lambda found: time.strftime(found[1], at), folder)
    return [*(word for word in words if word not in named), dated]


def _began(environment: Mapping[str, str]) -> float | None:
    """Return the time at which rank 0 asks; None where this process is the only one, or was told its folder."""
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        rank, num_ranks = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        place = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        key = environment.get("TORCHELASTIC_RESTART_COUNT", "0")  # the store is torchrun's, and outlives a start
        return None if num_ranks == 1 else _told(rank, num_ranks, place, key, is_ours=False)
    if "SLURM_STEP_ID" in environment and int(environment.get("SLURM_NTASKS", 1)) > 1:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        slurm = SLURMEnvironment()
        place = slurm.main_address, slurm.main_port + NEXT_PORT
        return _told(slurm.global_rank(), slurm.world_size(), place, "0", is_ours=True)
    return None


def _told(rank: int, num_ranks: int, place: tuple[str, int], key: str, *, is_ours: bool) -> float:
    """Return the time that rank 0 puts into a store that all ranks reach.

    Args:
        rank: of this process.
        num_ranks: of the run.
        place: host and port of the store.
        key: of this start of the ranks.
        is_ours: whether rank 0 opens the store, and closes it when all have read.
    """
    from torch.distributed import (
        DistNetworkError,
        DistStoreError,
        TCPStore,  # pyright: ignore[reportPrivateImportUsage]  # torch's own name of it
    )

    try:
        store = TCPStore(*place, is_master=is_ours and rank == 0, timeout=WAIT, wait_for_workers=False)
        if rank == 0:
            store.set(f"began {key}", str(time.time()))
        began = float(store.get(f"began {key}"))
        if store.add(f"read {key}", 1) == num_ranks:
            store.set(f"all read {key}", "")
        if is_ours and rank == 0:
            store.get(f"all read {key}")
    except (DistNetworkError, DistStoreError) as error:
        raise ValueError(
            f"the ranks of this run do not find each other at {place[0]}:{place[1]} ({str(error).splitlines()[0]}); "
            "name a folder without a date, hydra.run.dir=runs/NAME"
        ) from error
    return began
