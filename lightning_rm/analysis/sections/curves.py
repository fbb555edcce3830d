"""Learning curves of methods: what was logged over training, the mean of each method's runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lightning_rm.analysis.history import History, keys_of, smoothed, within_training
from lightning_rm.analysis.page.blocks import Drawing, Drawings, Section, Text
from lightning_rm.analysis.plots.comparison import curves_of_methods
from lightning_rm.analysis.plots.style import Key
from lightning_rm.analysis.sections.results import file_name
from lightning_rm.analysis.study import Study

CURVES = {
    "train/loss": ("training loss", None),
    "train/accuracy": ("training accuracy", 0.5),
    "val/nll": ("validation NLL", float(np.log(2))),
    "val/accuracy": ("validation accuracy", 0.5),
    "val/clean_accuracy": ("validation accuracy against the truth", 0.5),
    "val/score_rank_correlation": ("validation rank correlation with scores", None),
    "val/loss": ("validation loss", None),
    "train/perplexity": ("training perplexity", None),
    "val/perplexity": ("validation perplexity", None),
}
"""Metric -> what its panel is called, and what guessing gets."""


def curves_section(study: Study) -> Section:
    """Return a panel a metric, as far as it was logged."""
    with_curves = [one for one in study.evidence.values() if one.curves]
    if not with_curves:
        return Section("Learning curves", [], "No run has logged a curve (logger=none?); logger=csv does.")
    drawings: list[Drawing] = []
    drawn: dict[Key, None] = {}
    for key, name, chance in _panels([one.curves for one in with_curves]):
        curves = {
            study.key(method): [
                smoothed(within_training(one.curves[key], one.curves))
                for one in study.of(method).values()
                if key in one.curves
            ]
            for method in study.methods
        }
        known = {method: runs for method, runs in curves.items() if runs}
        drawn |= dict.fromkeys(known)
        if known:
            figure = curves_of_methods(known, name, chance)
            drawings.append(Drawing(file_name("curves", key), figure, f"{name[0].upper()}{name[1:]}"))
    if not drawings:
        return Section("Learning curves", [], f"The runs have logged none of {', '.join(CURVES)}.")
    few = len(study.evidence) - len(with_curves)
    note = f" {few} of {len(study.evidence)} runs have no curves." if few else ""
    return Section(
        "Learning curves",
        [
            Drawings(drawings, list(drawn)),
            Text(
                "Lines are means over runs, bands one standard deviation; runs of a method without a step in common "
                f"are drawn each by itself; dotted is what guessing gets.{note}"
            ),
        ],
    )


def _panels(histories: Sequence[History]) -> Iterator[tuple[str, str, float | None]]:
    """Yield the key of every panel, its name and what guessing gets; of several validation sets each has its own."""
    for place, (name, chance) in CURVES.items():
        stage, _, metric = place.partition("/")
        for key in dict.fromkeys(key for history in histories for key in keys_of(history, stage, metric)):
            yield key, name if key == place else f"{name} on {key.removesuffix(f'/{metric}')}", chance
