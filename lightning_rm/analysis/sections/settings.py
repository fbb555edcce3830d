"""What the methods' configurations differ in, and the runs one by one with what each lacks."""

from __future__ import annotations

from collections import Counter

from lightning_rm.analysis.methods import differing
from lightning_rm.analysis.page.blocks import Cell, Folded, Section, Table
from lightning_rm.analysis.study import Study
from lightning_rm.analysis.words import unlike
from lightning_rm.counts import number_of


def settings_section(study: Study) -> Section:
    """Return a row a setting, a column a method."""
    rows: list[dict[str, Cell | str]] = []
    heading = unlike("setting", [method.name for method in study.methods])
    for key, num_same, values in differing(study.methods):
        row: dict[str, Cell | str] = {heading: Cell(key, f"and {num_same} that follow it" if num_same else "")}
        rows.append(row | values)
    if not rows:
        return Section("What differs", [], "The configurations differ in seeds and places alone.")
    return Section("What differs", [Table(rows, "Settings in which the runs differ, seeds and places apart")])


def runs_section(study: Study) -> Section:
    """Return every run with its folder and what it lacks; a lack that all of them have is said once."""
    common = _common(study)
    rows: list[dict[str, Cell | str]] = []
    num_faulty = 0
    for method in study.methods:
        for block, one in study.of(method).items():
            lacks = [lack for lack in one.lacks if lack not in common]
            num_faulty += bool(lacks)
            rows.append(
                {
                    "run": str(one.run.folder),
                    "method": method.name,
                    "seed": Cell(", ".join(block), is_number=True),
                    "lacks": Cell("; ".join(lacks), tone="worse"),
                }
            )
    rows += [
        {
            "run": str(earlier.folder),
            "method": earlier.name,
            "seed": Cell(str(earlier.seed), is_number=True),
            "lacks": Cell(f"left out: {later.folder} has the same settings and counts", tone="worse"),
        }
        for earlier, later in study.repeated
    ]
    said = [f"All {len(study.evidence)} runs: {lack}." for lack in common]
    if num_faulty:
        lack = "lacks" if num_faulty == 1 else "lack"
        said.append(f"{num_faulty} of {number_of(len(study.evidence), 'run')} {lack} something.")
    if study.repeated:
        num = len(study.repeated)
        said.append("One repeats another and is left out." if num == 1 else f"{num} repeat others and are left out.")
    table = Table(rows)
    return Section("Runs", [Folded(number_of(len(rows), "run"), [table])], " ".join(said))


def _common(study: Study) -> list[str]:
    """Return what every run lacks; nothing where there is one run, whose row says it."""
    counts = Counter(lack for one in study.evidence.values() for lack in one.lacks)
    return [lack for lack, num in counts.items() if num == len(study.evidence) > 1]
