"""`score_file`: a file of prompts and responses in, the same file with rewards out, whatever its size.

The file is read as a stream, twice: once to score the conversations that are new in it (`stream`), once to write its
rows with their rewards (`rows`). What is scored lies beside the output until that is written (`parts`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import lightning as L

from lightning_rm.counts import check_counts, tightest
from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.formats.responses import Prefill, check_prefill
from lightning_rm.data.formats.scorable import check_scorable_options, parse_scorable
from lightning_rm.data.sources.readers import count_rows, find_files
from lightning_rm.digests import check_unchanged, files_digest, fingerprint
from lightning_rm.drafts import check_place, clear_drafts
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.load import LoadedModel, load_model
from lightning_rm.scoring.new_fields import NewFields, Scored
from lightning_rm.scoring.parts import Parts, check_parts, parts_of, remove_left, remove_parts
from lightning_rm.scoring.rows import check_suffixes, write_rows
from lightning_rm.scoring.shards import Engine, Shard, score_shards
from lightning_rm.scoring.stream import SHARD_ROWS, RowStream

VERSION = 1
"""Part of every fingerprint: raise it when a change of the code gives the same file other shards."""

NUM_EXAMPLES = 10
"""The most rows without a reward that a report names."""


@dataclass(frozen=True)
class FileReport:
    """What became of a file.

    Args:
        path: of the file written.
        num_rows: its rows.
        num_responses: responses that could be read in them.
        num_scored: distinct conversations among these.
        refused: how many rows, by reason, have a response without a reward.
        examples: the first ten of them: `answers.jsonl:17: overlong: 700 tokens, and 512 are read`.
        remarks: what is worth saying of conversations that are scored as they stand -> of how many.
    """

    path: Path
    num_rows: int
    num_responses: int
    num_scored: int
    refused: Mapping[str, int]
    examples: Sequence[str]
    remarks: Mapping[str, int]


def score_file(
    model: str | Path | LoadedModel,
    path: str | Path,
    out: str | Path,
    *,
    weights: str = "best",
    format: str = "auto",
    columns: Mapping[str, str | None] | None = None,
    prefill: Prefill = "error",
    best: bool = False,
    each_member: bool = False,
    prefix: str = "",
    max_tokens: int | None = None,
    overwrite: bool = False,
    dtype: str = "float32",
    fabric: L.Fabric | None = None,
    layout: LayoutSetting = "auto",
    batch_tokens: int | None = None,
    shard_rows: int = SHARD_ROWS,
    engine: Engine = score_shards,
    progress: Callable[[int, int | None], None] | None = None,
) -> FileReport:
    """Score every response of a file.

    Rows come out in their order, with all their fields and `reward` for one response, or `rewards` and `best`, the
    place of the highest, for several. What cannot be scored has null for a reward and a `reason`. What is scored lies
    in `OUT.parts` until the file is written: call again after an interruption, and it goes on.

    Args:
        model: whatever `load_model` reads, or what it gave.
        path: JSONL, a JSON array, both also as `.gz`, or Parquet, as `parse_scorable` reads rows.
        out: a file of the same kind.
        weights: `best` or `last`, where the model is a run.
        format: of pairs, one of `published.FORMATS`, or `auto`.
        columns: field -> its name in the file, or a dotted path to it; None hides a field of that name.
        prefill: what to do with a prompt that ends with the assistant's turn: `error`, or `continue` it by each
            response.
        best: write the best response alone: `response` and `reward` in place of the list.
        each_member: also write the rewards of each member, as `members`. `reward` is their mean, of an ensemble its own
            aggregate.
        prefix: in front of the names of the fields that are added.
        max_tokens: refuse conversations of more tokens; None for those that the model cannot read.
        overwrite: write over a file that is there.
        dtype: of the backbone, where the model is loaded here.
        fabric: device, precision and processes; None for this process and the CPU. Every process calls this alike.
        layout: how conversations are laid out; rewards are the same.
        batch_tokens: the most grid tokens of a forward; a longer conversation goes alone. None for what suits the
            device.
        shard_rows: rows that are scored and written together, the most that a killed process does again.
        engine: what scores the shards: this process and Fabric's, or `on_ray.RayWorkers`; the file is the same.
        progress: called with the number of rows done and of all rows; the latter is None for a JSON array, which is
            not counted.

    Returns:
        What became of the rows; the first process alone knows.

    Raises:
        ValueError: if there is no such file or model, a field that would be added is there already, a file cannot be
            read to its end, or a reward is not finite.
    """
    check_counts(1, shard_rows=shard_rows)
    source, *others = find_files(path)
    if others:
        raise ValueError(f"{path} names {1 + len(others):,} files, and one is scored at a time; name it")
    out = Path(out)
    root = parts_of(out)
    fields = NewFields(prefix, best, each_member)
    check_suffixes(source, out)
    check_scorable_options(format, columns or {})
    check_prefill(prefill)
    if source.resolve() == out.resolve():
        raise ValueError(f"out={str(out)!r} is the file that is read; name another")
    check_place(out)
    if out.exists() and not overwrite:
        remove_left(root, out)
        raise ValueError(f"out={str(out)!r} is there already; name another file, or set overwrite=true")
    fabric = fabric or L.Fabric(accelerator="cpu", devices=1)
    loaded = model if isinstance(model, LoadedModel) else load_model(model, weights=weights, dtype=dtype)
    limit = tightest(max_tokens, loaded.model.max_tokens)
    parse = partial(parse_scorable, format=format, columns=columns, prefill=prefill)
    stream = RowStream(source, parse, fields.names, loaded.tokenizer, limit, shard_rows)
    before = files_digest([source])
    settings = fingerprint(
        version=VERSION,
        file=before,
        suffix=source.suffixes[-2:],
        model=loaded.digest(),
        format=format,
        columns=dict(columns or {}),
        prefill=prefill,
        max_tokens=max_tokens,
        members=each_member,
        layout=layout,
        batch_tokens=batch_tokens,
        shard_rows=shard_rows,
        precision=str(fabric.strategy.precision.precision),
    )
    check_parts(root)
    clear_drafts(out.parent)
    parts = Parts(root / settings[:16])
    total = None if progress is None else count_rows(source)

    def tell(shard: Shard, num_conversations: int) -> None:
        rows_done = stream.rows_done(shard, num_conversations)
        if progress is not None:
            progress(rows_done, total)

    def on_device() -> AnyRewardModel:
        fabric.to_device(loaded.model)
        return loaded.model

    engine(
        on_device,
        stream.shards(),
        parts,
        fabric=fabric,
        layout=layout,
        batch_tokens=batch_tokens,
        each_member=each_member,
        progress=tell,
    )
    if progress is not None:
        progress(stream.num_rows, total)
    report = FileReport(out, stream.num_rows, stream.num_responses, stream.num_distinct, {}, (), dict(stream.remarks))
    if fabric.global_rank == 0:
        check_unchanged(source, files_digest([source]), before)
        refused, examples = _write(stream, parts, loaded.model, out, fields)
        report = replace(report, refused=refused, examples=examples)
        remove_parts(root)
    fabric.barrier()
    return report


def _write(
    stream: RowStream, parts: Parts, model: AnyRewardModel, out: Path, fields: NewFields
) -> tuple[Mapping[str, int], Sequence[str]]:
    """Write the rows, and return how many have no reward, by reason, and the first of them."""
    refused: Counter[str] = Counter()
    examples: list[str] = []

    def counted() -> Iterator[Scored]:
        for scored in stream.scored(parts, model.combine):
            if scored.refusal is not None:
                refused[scored.refusal.reason] += 1
                if len(examples) < NUM_EXAMPLES:
                    examples.append(f"{scored.origin}: {scored.refusal}")
            yield scored

    kinds = stream.kinds(parts)
    if not kinds.scored:
        first = "; ".join(f"{scored.origin}: {scored.refusal}" for scored in islice(counted(), 3))
        remove_parts(parts.folder.parent)  # there is nothing to go on from
        raise ValueError(f"no row of {stream.source} can be scored{': ' if first else ', it is empty'}{first}")
    write_rows(stream.source, out, counted(), fields, kinds)
    return refused, examples
