"""`annotate`: from a source and voters to an annotated file, in one call. The command and the notebook call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from lightning_rm.annotation.files import check_columns, write_parquet
from lightning_rm.annotation.layouts import check_fnlp, check_trl, write_fnlp, write_trl
from lightning_rm.annotation.voters import Voter
from lightning_rm.annotation.votes import Votes, collect_votes
from lightning_rm.data.sets import AnySource, as_source
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.tokenize.pairs import TokenizePolicy
from lightning_rm.scoring.parts import remove_parts


def annotate(
    source: AnySource,
    voters: Sequence[Voter],
    out: str | Path,
    policy: TokenizePolicy | None = None,
    *,
    fnlp: str | Path | None = None,
    trl: str | Path | None = None,
    fabric: L.Fabric | None = None,
    **options: Any,
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
        **options: of `votes.collect_votes`.

    Returns:
        The votes; `votes.strength` are the strengths.

    Raises:
        ValueError: if voters do not belong together, a pair cannot be scored, a field of the data has the name of a
            column that is written, or one of the other layouts cannot hold a pair; the last two are found before any
            is scored.

    Warns:
        UserWarning: of pairs of which another layout leaves something out, with their number.
    """
    pairs = as_source(source)
    out = Path(out)
    parts = out.with_name(f"{out.name}.parts")

    def accept(kept: PairDataset) -> None:
        check_columns(pairs, kept)
        for check, path in ((check_fnlp, fnlp), (check_trl, trl)):
            if path is not None:
                check(pairs, kept)

    votes = collect_votes(pairs, voters, parts, policy or TokenizePolicy(), fabric=fabric, accept=accept, **options)
    if fabric is None or fabric.global_rank == 0:
        for write, path in ((write_fnlp, fnlp), (write_trl, trl), (write_parquet, out)):  # `out` says that all is done
            if path is not None:
                write(pairs, votes, Path(path))
        remove_parts(parts)
    if fabric is not None:
        fabric.barrier()
    return votes
