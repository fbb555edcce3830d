"""`lightning-rm analyze`: tables and figures of preference strength, of runs side by side, and of features."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from lightning_rm.analysis.features import check_projection
from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.analysis.reports.features import feature_report
from lightning_rm.analysis.reports.recipes import decile_report, prefix_report, recipe_report
from lightning_rm.analysis.reports.shifts import shift_report
from lightning_rm.analysis.reports.strength import read_strength, strength_report
from lightning_rm.analysis.reports.sweeps import sweep_report
from lightning_rm.analysis.runs import Run, varied
from lightning_rm.commands._config import plain, plain_console, say_files
from lightning_rm.commands._entry import command
from lightning_rm.commands._features import read_features
from lightning_rm.commands._tables import words_table
from lightning_rm.drafts import check_place, write_json
from lightning_rm.told import finite

INPUTS = ("strength", "deciles", "prefixes", "recipes", "sweep", "shift", "features")
"""What a report can be made of, by the key that names it."""


def analyze(cfg: DictConfig) -> list[Path]:
    """Write every report that its inputs are named for.

    Args:
        cfg: `conf/analyze.yaml`, composed.

    Returns:
        The files written.
    """
    out = Path(cfg.out)
    console = plain_console()
    written: list[Path] = []  # of strengths and features, which are not shown whole
    tables: list[Path] = []
    check_place(out, folder=True)
    if all(cfg[key] is None for key in INPUTS):
        raise ValueError(f"there is nothing to analyze; name {', '.join(f'{key}=' for key in INPUTS)}")
    if cfg.strength is not None:
        numbers, files = strength_report(read_strength(cfg.strength), out)
        write_json(out / "strength.json", finite(numbers))
        for name, value in numbers.items():
            console.print(f"{name:>24}  {value:,.4g}")
        written += [*files, out / "strength.json"]
    if cfg.deciles is not None:
        tables += decile_report(find_runs("deciles", plain(cfg.deciles)), cfg.metric, _reference_value(cfg), out)
    if cfg.prefixes is not None:
        tables += prefix_report(find_runs("prefixes", plain(cfg.prefixes)), cfg.metric, out)
    if cfg.recipes is not None:
        tables += recipe_report(find_runs("recipes", plain(cfg.recipes)), plain(cfg.metrics), out)
    if cfg.sweep is not None:
        runs = find_runs("sweep", plain(cfg.sweep))
        if cfg.x is None:
            raise ValueError(
                f"sweep= needs x=KEY, a setting to draw by; the runs differ in {', '.join(varied([runs]))}"
            )
        tables += sweep_report(runs, cfg.x, cfg.series, plain(cfg.metrics), _reference_runs(cfg), out)
    if cfg.shift is not None:
        tables += shift_report(find_runs("shift", plain(cfg.shift)), out)
    if cfg.features is not None:
        check_projection(cfg.projection)
        features = read_features(cfg, console)
        written += feature_report(features, out, cfg.projection, differences=cfg.differences, join=cfg.join)
    for path in (path for path in tables if path.suffix == ".csv"):
        with path.open(newline="", encoding="utf-8") as file:
            console.print(words_table(list(csv.DictReader(file))))
    written += tables
    say_files(console, *written)
    return written


def _reference_runs(cfg: DictConfig) -> list[Run]:
    """Return the runs that `reference` names, none where it is null.

    Raises:
        ValueError: if it is a number.
    """
    if isinstance(cfg.reference, int | float):
        raise ValueError(f"reference={cfg.reference}: a sweep is compared with runs; name them by a glob or a list")
    return [] if cfg.reference is None else find_runs("reference", plain(cfg.reference))


def _reference_value(cfg: DictConfig) -> float | None:
    """Return the number that `reference` is, or the mean of the metric over the runs that it names."""
    if cfg.reference is None or isinstance(cfg.reference, int | float):
        return cfg.reference
    return float(np.mean([run.value(cfg.metric) for run in _reference_runs(cfg)]))


@command("analyze")
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    analyze(cfg)


if __name__ == "__main__":
    main()
