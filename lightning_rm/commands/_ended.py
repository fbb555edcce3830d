"""What a run leaves in its folder at its end: counts, figures, results, and the table of them that a user sees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lightning_rm.analysis.run import write_figures
from lightning_rm.checksums import write_checksums_below
from lightning_rm.commands._checks import BENCHMARK
from lightning_rm.commands._config import plain_console
from lightning_rm.commands._found import STOPPED
from lightning_rm.commands._resume import RESULTS
from lightning_rm.commands._tables import results_table
from lightning_rm.data.store.report import DataReport
from lightning_rm.drafts import draft_of, write_json

PLACES = {
    "best weights": "model/best",
    "last weights": "model/last",
    "results": RESULTS,
    "per-pair rewards": "pairs",
    "metrics": "csv/metrics.csv",
    "W&B run": "wandb",
    "config": "config.yaml",
    "data counts": "data.json",
    "checkpoints": "checkpoints",
}
"""What a run leaves -> where in its folder, the models first."""

CHECKED = ("csv/metrics.csv", "data.json", "trained_on.json", "pairs/*.*")
"""What other commands read of a run that has ended, and compare with its checksums."""


def write_counts(run: Path, reports: dict[str, DataReport]) -> None:
    """Write what became of every row."""
    rows = [asdict(report) | {"name": name} for name, report in reports.items()]
    write_json(run / "data.json", rows)


def report(run: Path, results: dict[str, dict[str, float]], urls: Sequence[str] = ()) -> None:
    """Write figures and results, print the table and where everything is.

    `results.json` is written last, even if a figure fails, but not where the run is stopped meanwhile: its presence
    means that the run is complete.

    Args:
        run: the folder.
        results: set -> metric -> value.
        urls: where the run can be looked at.
    """
    out = plain_console()
    figures: list[Path] = []
    undrawn: str | None = None
    failed: Exception | None = None
    try:
        figures = write_figures(run)
    except ValueError as error:  # a diverged run has a table, and no rewards to draw
        undrawn = f"no figures: {error}"
    except Exception as error:
        failed = error
    content = (json.dumps(results, indent=2) + "\n").encode()
    write_checksums_below(run, CHECKED, {RESULTS: content})
    with draft_of(run / RESULTS) as draft:
        draft.write_bytes(content)
    if failed is not None:
        raise failed
    out.print(results_table({name: values for name, values in results.items() if not name.startswith(BENCHMARK)}))
    for name, values in results.items():
        if name.startswith(BENCHMARK):
            told = ", ".join(f"{section} {value:.3f}" for section, value in values.items())
            out.print(f"{name}: {told}")
    if undrawn:
        out.print(undrawn)
    out.print(f"everything is in {_from_here(run)}", soft_wrap=True)
    for name, place in PLACES.items():
        if (run / place).exists():
            out.print(f"{name:>18}  {place}", soft_wrap=True)
    if figures:
        drawn = ", ".join(sorted({path.stem for path in figures}))
        out.print(f"{'figures':>18}  figures: {drawn}", soft_wrap=True)
    for url in urls:
        out.print(f"{'W&B':>18}  {url}", soft_wrap=True)


def draw_missing(run: Path) -> None:
    """Draw the figures of a run that has ended which are not there: results are kept where a full disk has no room for
    figures.
    """
    try:
        write_figures(run, missing=True)
    except ValueError as error:
        plain_console().print(f"{run}: no figures: {error}", soft_wrap=True)


def clear_stopped(run: Path) -> None:
    """Remove the checkpoint that a stop has left in a run which has gone on to its end: one that nobody stopped has
    none.
    """
    left = run / STOPPED
    if left.is_dir():  # of shards
        shutil.rmtree(left)
    else:
        left.unlink(missing_ok=True)


def _from_here(path: Path) -> Path:
    """Return a path as a user would type it: from the working directory, if it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
