"""Best-of-n policies as files: their responses for MetaRM and for measuring, labelled pairs of them for training.

They are read back by `responses=jsonl` and `data=jsonl`. It knows rows and rewards; no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_rm.data.rows import GroupRow, PairRow
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.evaluation.items import Floats
from lightning_rm.rlhf.best_of import best_of_groups, labelled_pairs
from lightning_rm.rlhf.row_files import write_groups, write_pairs


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
        files.append(write_pairs(folder / f"pairs_n{n}.jsonl", pairs, "gold_margin", "clean"))
        notes.append(
            f"{files[-1]}: {len(pairs):,} pairs; of {len(labelled) - len(pairs):,} groups there is none, "
            "since all their responses have equal gold rewards"
        )
    return files, notes
