"""Benchmarks of reward models, one file each, with a reader of its rows and pure scoring functions of rewards."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_rm.evaluation.benchmarks.benchmark import Benchmark
from lightning_rm.evaluation.benchmarks.hhh import HHH
from lightning_rm.evaluation.benchmarks.judgebench import JUDGEBENCH
from lightning_rm.evaluation.benchmarks.llmbar import LLMBAR
from lightning_rm.evaluation.benchmarks.m_rewardbench import M_REWARDBENCH
from lightning_rm.evaluation.benchmarks.ppe_correctness import PPE_CORRECTNESS
from lightning_rm.evaluation.benchmarks.ppe_human import PPE_HUMAN
from lightning_rm.evaluation.benchmarks.rewardbench import REWARDBENCH
from lightning_rm.evaluation.benchmarks.rewardbench2 import REWARDBENCH2
from lightning_rm.evaluation.benchmarks.rm_bench import RM_BENCH
from lightning_rm.evaluation.benchmarks.rmb import RMB

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        REWARDBENCH,
        REWARDBENCH2,
        RM_BENCH,
        RMB,
        PPE_CORRECTNESS,
        PPE_HUMAN,
        JUDGEBENCH,
        LLMBAR,
        HHH,
        M_REWARDBENCH,
    )
}
"""Name -> benchmark."""


def find_benchmarks(names: str | Sequence[str]) -> list[Benchmark]:
    """Return the benchmarks for a name, several names or `all`.

    Raises:
        ValueError: for a name that is not one of them.
    """
    asked = [names] if isinstance(names, str) else list(names)
    if asked == ["all"]:
        return list(BENCHMARKS.values())
    if unknown := [name for name in asked if name not in list(BENCHMARKS)]:  # rows have no hash
        raise ValueError(
            f"benchmark={unknown[0]!r:.60}: there are {', '.join(BENCHMARKS)}, or all; "
            "pairs of one's own are given as data"
        )
    return [BENCHMARKS[name] for name in dict.fromkeys(asked)]
