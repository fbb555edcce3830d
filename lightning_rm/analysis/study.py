"""Runs put side by side: methods, what each has measured, and which of them the others are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_rm.analysis.evidence import Evidence, evidence_of
from lightning_rm.analysis.methods import Block, Method, methods_of
from lightning_rm.analysis.plots.style import Key, line_of
from lightning_rm.analysis.runs import Run, nearest

LOWER_IS_BETTER = frozenset({"nll", "brier", "calibration_error", "loss", "perplexity"})
"""Metrics of which less is better."""

NEITHER_IS_BETTER = frozenset(
    {"length_accuracy", "length_correlation", "margin", "margin_std", "reward_mean", "reward_std", "spread", "tie_rate"}
)
"""Metrics that describe rewards, and are no merit or fault of theirs; of all others, more is better."""


@dataclass(frozen=True)
class Study:
    """Methods with what their runs have left.

    Args:
        methods: in the order of the runs.
        reference: the one that the others are compared with.
        evidence: folder of a run -> what it has left.
        repeated: runs that repeat another one, with the one that counts.
    """

    methods: Sequence[Method]
    reference: Method
    evidence: Mapping[Path, Evidence]
    repeated: Sequence[tuple[Run, Run]]

    @property
    def others(self) -> list[Method]:
        """Every method but the reference."""
        return [method for method in self.methods if method is not self.reference]

    def of(self, method: Method) -> dict[Block, Evidence]:
        """Return block -> what the method's run of that block has left."""
        return {block: self.evidence[run.folder] for block, run in method.runs.items()}

    def values(self, method: Method, data_set: str, metric: str) -> dict[Block, float]:
        """Return block -> the metric, of the runs that have a number for it; a diverged run's is NaN or infinite."""
        found = {block: one.results.get(data_set, {}).get(metric, math.nan) for block, one in self.of(method).items()}
        return {block: value for block, value in found.items() if math.isfinite(value)}

    def sets(self, metric: str, stage: str = "test") -> list[str]:
        """Return the stage's data sets for which a run has the metric, in the order of the results."""
        return list(
            dict.fromkeys(
                name
                for method in self.methods
                for one in self.of(method).values()
                for name, metrics in one.results.items()
                if name.partition("/")[0] == stage and metric in metrics
            )
        )

    def recorded(self) -> list[str]:
        """Return the data sets for whose pairs a run has kept the rewards, in the order of the results."""
        kept = dict.fromkeys(name for one in self.evidence.values() for name in one.records)
        order = list(dict.fromkeys(name for one in self.evidence.values() for name in one.results))
        return sorted(kept, key=lambda name: order.index(name) if name in order else len(order))

    def key(self, method: Method) -> Key:
        """Return the method's colour and line, the same in every figure."""
        color, line = line_of([other.name for other in self.methods].index(method.name))
        return Key(method.name, color, line)


def study_of(runs: Sequence[Run], reference: str | None = None) -> Study:
    """Read what runs have left and sort them by method.

    Args:
        runs: at least one.
        reference: name of the method to compare with; by default `baseline` where there is one, else the first.

    Raises:
        ValueError: if no method has that name.
    """
    methods, repeated = methods_of(runs)
    by_name = {method.name: method for method in methods}
    if reference is not None and reference not in by_name:
        split = ", ".join(name for name in by_name if name.startswith(f"{reference} "))  # by settings that differ
        told = split or nearest(reference, by_name)
        raise ValueError(f"reference={reference!r} is not a method of these; among them are {told}")
    first = by_name.get("baseline", methods[0]) if reference is None else by_name[reference]
    counted = [run for method in methods for run in method.runs.values()]
    return Study(methods, first, {run.folder: evidence_of(run) for run in counted}, repeated)
