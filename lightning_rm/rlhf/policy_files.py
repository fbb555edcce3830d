"""Best-of-n policies as files: their responses for MetaRM and for measuring, labelled pairs of them for training.

They are read back by `responses=jsonl` and `data=jsonl`. It knows rows and rewards; no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_rm.data.rows import GroupRow, PairRow
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.drafts import draft_of
from lightning_rm.evaluation.items import Floats
from lightning_rm.rlhf.best_of import best_of_groups, labelled_pairs
from lightning_rm.scoring.rows import json_line


@dataclass(frozen=True)
class PolicyFiles:
    """Which best-of-n policies are written as files, to train and to measure on.

    Args:
        n: which n, one policy each; empty for none.
        k: responses a group.
        annotator: who labels a pair of each group; None writes no pairs.
        seed: of the labels.
    """

    n: Sequence[int] = ()
    k: int = 5
    annotator: Annotator | None = None
    seed: int = 0


def write_policies(
    folder: Path, rows: Sequence[GroupRow], rewards: Floats, policy: PolicyFiles
) -> tuple[list[Path], list[str]]:
    """Write the responses of best-of-n policies, `responses_n16.jsonl`, and labelled pairs of them, `pairs_n16.jsonl`.

    Args:
        folder: of one model.
        rows: P groups of N samples.
        rewards: (P, N), the model's.
        policy: which ones.

    Returns:
        The files, and what is to be said of them.
    """
    files: list[Path] = []
    notes: list[str] = []
    for n in policy.n:
        groups = best_of_groups(rows, rewards, n, policy.k)
        files.append(write_groups(folder / f"responses_n{n}.jsonl", groups))
        if policy.annotator is None:
            continue
        labelled = list(labelled_pairs(groups, policy.annotator, policy.seed))
        pairs = [pair for pair in labelled if isinstance(pair, PairRow)]
        files.append(_lines(folder / f"pairs_n{n}.jsonl", pairs, _pair_line))
        notes.append(
            f"{files[-1]}: {len(pairs):,} pairs; of {len(labelled) - len(pairs):,} groups there is none, "
            "since all their responses have equal gold rewards"
        )
    return files, notes


def write_groups(path: Path, groups: Iterable[GroupRow]) -> Path:
    """Write groups of responses as JSONL that `responses=jsonl` reads, whole or not at all."""
    return _lines(path, groups, _group_line)


def _lines(path: Path, rows: Iterable[Any], line: Callable[[Any], dict[str, Any]]) -> Path:
    with draft_of(path) as draft, draft.open("wb") as file:
        file.writelines(json_line(line(row)) + b"\n" for row in rows)
    return path


def _group_line(row: GroupRow) -> dict[str, Any]:
    told = {"prompt": row.prompt, "responses": row.responses, "id": row.id, "prompt_id": row.prompt_id}
    return told | ({"gold": row.gold} if row.gold else {}) | _template(row)


def _pair_line(row: PairRow) -> dict[str, Any]:
    names = ("prompt", "chosen", "rejected", "id", "prompt_id", "gold_margin", "clean")
    return {name: getattr(row, name) for name in names} | _template(row)


def _template(row: GroupRow | PairRow) -> dict[str, Any]:
    """Return a row's tools and arguments for the chat template, if it has any."""
    told = {"tools": row.tools, "chat_template_kwargs": dict(row.chat_template_kwargs)}
    return {name: value for name, value in told.items() if value}
