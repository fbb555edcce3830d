"""`lightning-rm annotate`: voters' margins on every pair of a data set, written as its preference strengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from omegaconf import DictConfig

from lightning_rm.annotation.annotate import annotate, check_suffixes
from lightning_rm.annotation.files import VOTERS
from lightning_rm.commands._config import plain_console, require_all, say_files
from lightning_rm.commands._data import find_policy, find_source, find_voters
from lightning_rm.commands._engine import scoring_engine
from lightning_rm.commands._entry import command
from lightning_rm.commands._progress import Bar, resumable
from lightning_rm.commands._tables import report_table
from lightning_rm.counts import number_of
from lightning_rm.drafts import check_place
from lightning_rm.scoring.parts import parts_of, remove_left
from lightning_rm.strength import Strength
from lightning_rm.told import json_of


def annotate_data(cfg: DictConfig) -> Path:
    """Annotate a data set.

    Args:
        cfg: `conf/annotate.yaml`, composed.

    Returns:
        The file written.
    """
    require_all(cfg)
    out = Path(cfg.out)
    check_suffixes(out, cfg.also.fnlp, cfg.also.trl)
    also = {name: Path(path) for name, path in cfg.also.items() if path is not None}
    for path in (out, *also.values()):
        check_place(path)
    voters = find_voters(cfg.voters, cfg.weights)
    if out.exists() and not cfg.overwrite:
        remove_left(parts_of(out), out)
        raise ValueError(f"out={cfg.out!r} is there already, {_written_by(out)}; name another, or set overwrite=true")
    _check_also(also, cfg.overwrite)
    source = find_source(cfg)
    policy = find_policy(cfg)
    console = plain_console()
    with (
        resumable("scored"),
        scoring_engine(cfg) as (fabric, engine),
        Bar(console, shown=fabric.global_rank == 0) as bar,
    ):
        votes = annotate(
            source,
            voters,
            out,
            policy,
            fnlp=cfg.also.fnlp,
            trl=cfg.also.trl,
            fabric=fabric,
            cache_dir=cfg.data.cache_dir,
            layout=cfg.layout.layout,
            batch_tokens=cfg.batch_tokens,
            shard_size=cfg.shard_size,
            engine=engine,
            progress=bar.show,
        )
    if fabric.global_rank == 0:
        console.print(report_table({"annotated": votes.pairs.report}))
        for line in summary(votes.strength, votes.voters):
            console.print(line)
        say_files(console, out, *also.values())
    return out


def summary(strength: Strength, voters: Sequence[str]) -> list[str]:
    """Return what to say of strengths in two lines."""
    mean = strength.mean
    points = np.quantile(mean, [0, 0.25, 0.5, 0.75, 1])
    named = zip(("min", "25%", "median", "75%", "max"), points, strict=True)
    return [
        f"{number_of(len(mean), 'pair')}, {number_of(len(voters), 'voter')}; "
        f"{(mean < 0).mean():.1%} of the strengths are negative",
        "strength: " + ", ".join(f"{name} {value:.2f}" for name, value in named),
    ]


def _check_also(also: Mapping[str, Path], overwrite: bool) -> None:
    """Refuse a file of another layout that would be written over: it may be the data itself.

    Raises:
        ValueError: if there is such a file.
    """
    for name, path in also.items():
        if path.exists() and not overwrite:
            raise ValueError(f"also.{name}={str(path)!r} is there already; name another, or set overwrite=true")


def _written_by(out: Path) -> str:
    metadata = pq.read_schema(out).metadata or {}
    voters = json_of(metadata.get(VOTERS, b"[]"), out)
    return (
        f"written by {number_of(len(voters), 'voter')}" if voters and isinstance(voters, list) else "and no annotation"
    )


@command("annotate", alone=True)
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    annotate_data(cfg)


if __name__ == "__main__":
    main()
