"""`annotate`: from a source and voters to an annotated file, in one call. The command and the notebook call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L

from lightning_rm.annotation.files import check_columns, write_parquet
from lightning_rm.annotation.layouts import check_fnlp, check_trl, write_fnlp, write_trl
from lightning_rm.annotation.voters import Voter
from lightning_rm.annotation.votes import Progress, Votes, collect_votes
from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.sets import AnySource, as_source
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.tokenize.pairs import TokenizePolicy
from lightning_rm.options import check_options
from lightning_rm.scoring.parts import parts_of, remove_parts
from lightning_rm.scoring.shards import Engine, score_shards


def check_suffixes(out: str | Path, fnlp: str | Path | None = None, trl: str | Path | None = None) -> None:
    """Raise ValueError for a file whose name says that it is of another kind than `annotate` writes there."""
    for name, path, suffix, kind in (
        ("out", out, ".parquet", "the annotated data is a Parquet file"),
        ("also.fnlp", fnlp, ".json", "the layout of the published data is one JSON array"),
        ("also.trl", trl, ".jsonl", "TRL's rows are JSON, one a line"),
    ):
        if path is not None and Path(path).suffix != suffix:
            raise ValueError(f"{name}={str(path)!r}: {kind}; give a name that ends in {suffix}")


def annotate(
    source: AnySource,
    voters: Sequence[Voter],
    out: str | Path,
    policy: TokenizePolicy | None = None,
    *,
    fnlp: str | Path | None = None,
    trl: str | Path | None = None,
    fabric: L.Fabric | None = None,
    cache_dir: str | Path | None = None,
    layout: LayoutSetting = "auto",
    batch_tokens: int | None = None,
    shard_size: int = 2000,
    engine: Engine = score_shards,
    progress: Progress | None = None,
) -> Votes:
    """Have voters score every pair of a source and write the strengths.

    Args:
        source: the pairs, given as `PreferenceDataModule` takes them: a source, a file or files, or rows in memory.
        voters: models that belong together.
        out: a `.parquet` file. What is scored lies in `OUT.parts` until the file is written: call again after an
            interruption, and it goes on.
        policy: what to do with rows that are bad or long; None for the default.
        fnlp: also write this `.json` file, in the layout of the paper's published data.
        trl: also write this `.jsonl` file, with a margin that TRL reads.
        fabric: device and processes; every process calls this alike and the first one writes.
        cache_dir: where tokenised pairs are kept; None for the default.
        layout: how conversations are laid out, or `auto`; rewards are the same.
        batch_tokens: the most grid tokens of a forward; a longer conversation goes alone. None for what suits the
            device.
        shard_size: conversations of a shard, the most that a killed process does again.
        engine: what scores the shards: this process and Fabric's, or `on_ray.RayWorkers`; the votes are the same.
        progress: called after every batch, or every shard on Ray.

    Returns:
        The votes; `votes.strength` are the strengths.

    Raises:
        ValueError: if a file's name says that it is of another kind, voters do not belong together, a pair cannot be
            scored, a field of the data has the name of a column that is written, or one of the other layouts cannot
            hold a pair; the last two are found before any is scored.

    Warns:
        UserWarning: of pairs of which another layout leaves something out, with their number.
    """
    check_suffixes(out, fnlp, trl)
    check_options(TokenizePolicy, policy=policy)
    pairs = as_source(source)
    out = Path(out)
    parts = parts_of(out)

    def accept(kept: PairDataset) -> None:
        check_columns(pairs, kept)
        for check, path in ((check_fnlp, fnlp), (check_trl, trl)):
            if path is not None:
                check(pairs, kept)

    votes = collect_votes(
        pairs,
        voters,
        parts,
        policy or TokenizePolicy(),
        fabric=fabric,
        cache_dir=cache_dir,
        layout=layout,
        batch_tokens=batch_tokens,
        shard_size=shard_size,
        engine=engine,
        progress=progress,
        accept=accept,
    )
    if fabric is None or fabric.global_rank == 0:
        for write, path in ((write_fnlp, fnlp), (write_trl, trl), (write_parquet, out)):  # `out` says that all is done
            if path is not None:
                write(pairs, votes, Path(path))
        remove_parts(parts)
    if fabric is not None:
        fabric.barrier()
    return votes
