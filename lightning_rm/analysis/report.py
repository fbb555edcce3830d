"""`report`: what runs came to, on one page that needs nothing else, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.analysis.page.blocks import Page
from lightning_rm.analysis.page.html import render_html
from lightning_rm.analysis.page.markdown import render_markdown
from lightning_rm.analysis.plots.style import write_png
from lightning_rm.analysis.sections.benchmarks import benchmarks_section
from lightning_rm.analysis.sections.by_pair import by_pair_section
from lightning_rm.analysis.sections.calibration import calibration_section
from lightning_rm.analysis.sections.curves import curves_section
from lightning_rm.analysis.sections.results import results_section
from lightning_rm.analysis.sections.settings import runs_section, settings_section
from lightning_rm.analysis.sections.strength import strength_section
from lightning_rm.analysis.sections.worst import worst_section
from lightning_rm.analysis.study import Study, study_of
from lightning_rm.drafts import check_place, write_text
from lightning_rm.globs import named_paths

Patterns = str | Path | Sequence[str | Path]
"""A path, a glob, or several."""

EVALUATION = "evaluation.json"


def report(
    runs: Patterns,
    out: str | Path = "report.html",
    *,
    reference: str | None = None,
    metrics: Sequence[str] | None = None,
    strength: str | Path | None = None,
    benchmarks: Patterns | None = None,
    num_worst: int = 5,
) -> list[Path]:
    """Put runs side by side: results with paired intervals, calibration, curves, benchmarks, pairs to read, settings.

    Runs of one name are one method. Those of one seed and world are compared with each other, run by run and test pair
    by test pair. What a run lacks is said, and the rest is used: without `results.json` it has not ended, without
    `csv/metrics.csv` it has no curves.

        >>> report("runs/*", "report.html")  # doctest: +SKIP

    Args:
        runs: globs of run folders.
        out: the page, a `.html` file; the Markdown and a folder of its figures are written beside it.
        reference: the method that others are compared with; by default `baseline`, or the first.
        metrics: to compare by; by default accuracy, for groups of responses correlation with gold and difference, for
            scored responses rank correlation, for text loss and perplexity.
        strength: an annotated Parquet file; by default the one that the runs were trained on, where they were.
        benchmarks: files or folders that `lightning-rm evaluate` wrote; those in the runs' folders are found.
        num_worst: the worst pairs to show of each test set.

    Returns:
        The page, the Markdown and its figures.

    Raises:
        ValueError: if no run is found, there is no such method or metric, or a Markdown file of somebody else's has the
            page's name.
    """
    target = checked_page(out)
    return write_page(
        report_page(
            runs,
            reference=reference,
            metrics=metrics,
            strength=strength,
            benchmarks=benchmarks,
            num_worst=num_worst,
        ),
        target,
    )


def checked_page(out: str | Path) -> Path:
    """Return where a page is written, once it is known that it may be.

    Raises:
        ValueError: if it is no page, or a Markdown file of somebody else's has its name.
    """
    target = Path(out)
    if target.suffix != ".html":
        raise ValueError(f"out={str(out)!r} is not a page: name a file that ends in .html")
    markdown = target.with_suffix(".md")
    if markdown.exists() and not target.exists():  # somebody's text: ours lies beside its page
        raise ValueError(
            f"out={str(out)!r} would replace {str(markdown)!r}, which is not of a report: name another page"
        )
    check_place(target)
    return target


def report_page(
    runs: Patterns,
    *,
    reference: str | None = None,
    metrics: Sequence[str] | None = None,
    strength: str | Path | None = None,
    benchmarks: Patterns | None = None,
    num_worst: int = 5,
) -> Page:
    """Return the page of `report`, results first; its arguments are those of `report`.

    Raises:
        ValueError: if no run is found, or there is no such method or metric.
    """
    if num_worst < 0:
        raise ValueError(f"num_worst={num_worst}: give a number of pairs, 0 for none")
    study = study_of(find_runs("runs", runs), reference)
    sections = [
        results_section(study, metrics),
        by_pair_section(study),
        calibration_section(study),
        curves_section(study),
        benchmarks_section(_evaluations(benchmarks, study)),
        strength_section(study, strength),
        worst_section(study, num_worst),
        settings_section(study),
        runs_section(study),
    ]
    num_sets = len({name for one in study.evidence.values() for name in one.results if name.startswith("test")})
    num_pairs = max((len(method.runs) for method in study.methods), default=0)
    return Page(
        f"{len(study.methods)} methods side by side" if len(study.methods) > 1 else study.methods[0].name,
        ", ".join(method.name for method in study.methods),
        sections,
        {"runs": str(len(study.evidence)), "methods": str(len(study.methods)), "test sets": str(num_sets),
         "runs a method, at most": str(num_pairs)},
    )  # fmt: skip


def write_page(page: Page, out: Path) -> list[Path]:
    """Write a page as HTML, and as Markdown with its figures in a folder of the same name."""
    html = render_html(page)
    markdown, figures = render_markdown(page, f"{out.stem}_figures")
    folder = out.with_name(f"{out.stem}_figures")
    written = [write_text(out, html), write_text(out.with_suffix(".md"), markdown)]
    return written + [write_png(figure, folder / name) for name, figure in figures.items()]


def _evaluations(patterns: Patterns | None, study: Study) -> list[Path]:
    """Return the evaluations' files that are named, or lie in the runs' folders.

    Raises:
        ValueError: if a pattern names none.
    """
    if patterns is None:
        folders = [one.run.folder for one in study.evidence.values()]
        places = (EVALUATION, f"*/{EVALUATION}")
        return [path for folder in folders for place in places for path in sorted(folder.glob(place))]
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str | Path) else patterns:
        files = [path / EVALUATION if path.is_dir() else path for path in named_paths(pattern)]
        files = [path for path in files if path.is_file()]
        if not files:
            raise ValueError(
                f"benchmarks={str(pattern)!r} names no evaluation, a folder with {EVALUATION} or that file"
            )
        found |= dict.fromkeys(files)
    return list(found)
