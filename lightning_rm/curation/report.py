"""The report of a curation: what became of the rows, how many labels are wrong and where, and what contradicts what.

It knows what was decided and writes tables, figures and words; nothing is decided here.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.analysis.plots.groups import doubted_by_group
from lightning_rm.analysis.plots.style import save_figure
from lightning_rm.analysis.reports.strength import read_strength, strength_report
from lightning_rm.analysis.table_files import write_table
from lightning_rm.counts import number_of
from lightning_rm.curation.groups import group_rows, length_groups
from lightning_rm.curation.result import Curated, Rules
from lightning_rm.curation.reviewed import flip_rows
from lightning_rm.drafts import write_text
from lightning_rm.markup import markdown_table
from lightning_rm.told import finite

MAX_LISTED = 20
"""The most rows of each kind that the report names."""


def write_report(curated: Curated, rules: Rules, out: Path) -> list[Path]:
    """Write `report.md`, `report.json`, and tables and figures into `report/`.

    Returns:
        The files, `report.md` first.
    """
    folder = out / "report"
    row = curated.votes.pairs.source_row
    mean = curated.votes.strength.mean
    groupings = {
        **curated.facts.groups,
        "length": length_groups(curated.facts.words),
        "topic": curated.facts.topics.clusters(),
    }
    written: list[Path] = []
    told: list[str] = []
    for name, groups in groupings.items():
        rows = group_rows([groups[one] for one in row.tolist()], mean, curated.is_new)
        if len(rows) < 2:
            continue
        title = f"Doubted labels by {name}"
        tables = write_table(rows, folder / f"by_{_file_name(name)}", title)
        figure = doubted_by_group(rows, title, float((mean[~np.isnan(mean)] < 0).mean()))
        written += [*tables, *save_figure(figure, folder / f"by_{_file_name(name)}")]
        told.append(tables[1].read_text(encoding="utf-8").replace("# ", "### ", 1))
    flips, _ = reviewed_flips(curated)
    if flips:
        written += write_table(flips, folder / "flips", "How often a flip is right, by decile of strength")
    numbers, files = strength_report(read_strength(out / "strength.parquet"), folder)
    written += files
    found = summary(curated, rules) | {"strength": numbers}
    if unsaid := no_groups(curated):
        told += [unsaid]
    text = "\n".join([*lines(curated, rules), "", "## Where the doubted labels are", "", *told])
    contents = {"report.json": json.dumps(finite(found), indent=2) + "\n", "report.md": text.rstrip("\n") + "\n"}
    for name, content in contents.items():
        write_text(out / name, content)
    return [out / "report.md", out / "report.json", *written]


def no_groups(curated: Curated) -> str:
    """Return which fields to group by no row has, in a sentence; empty if all are there."""
    names = curated.facts.ungrouped
    return f"No row has a field {' or '.join(map(repr, names))} to group by." if names else ""


def summary(curated: Curated, rules: Rules) -> dict[str, Any]:
    """Return the numbers of a curation, for programs."""
    conflicts = curated.conflicts
    contaminated = Counter(name for name in curated.facts.contaminated if name)
    return {
        "rows": len(curated.facts),
        "decisions": dict(curated.counts),
        "policy": rules.policy,
        "share": curated.share,
        "wrong_labels": curated.wrong._asdict(),
        "agree_seen": curated.by_heart.seen,
        "agree_new": curated.by_heart.new,
        "cross_fit_is_due": curated.by_heart.is_due,
        "reviews": dict(Counter(curated.verdicts.values())),
        "duplicates": conflicts.duplicates,
        "near_duplicates": conflicts.near_duplicates,
        "contradictions": conflicts.contradictions,
        "cycles": conflicts.cycles,
        "contaminated": dict(contaminated),
    }


def lines(curated: Curated, rules: Rules) -> list[str]:
    """Return what there is to say, as Markdown."""
    facts, conflicts = curated.facts, curated.conflicts
    told = [
        "# Curation",
        "",
        f"{number_of(len(facts), 'row')}, {number_of(len(curated.votes.voters), 'vote')} a pair, "
        f"policy `{rules.policy}`.",
    ]
    decisions = [["decision", "rows"], *([name, f"{count:,}"] for name, count in curated.counts.items())]
    told += ["", markdown_table(decisions, right=[1])]
    told += ["", "## Wrong labels", "", wrong_line(curated), "", curated.by_heart.advice()]
    if rules.policy in ("flip_weakest", "drop"):
        told += ["", f"The policy looks at the weakest {curated.share:.1%} of the pairs."]
    if curated.verdicts:
        count = ", ".join(f"{name} {num:,}" for name, num in sorted(Counter(curated.verdicts.values()).items()))
        told += ["", f"Reviewed: {number_of(len(curated.verdicts), 'pair')} ({count}); what people say counts."]
        rows, sentence = reviewed_flips(curated)
        told += ["", sentence]
        if rows:
            table = [["decile", "reviewed", "label wrong", "a flip is right, 95 %"]]
            for row in rows:
                counts = (str(row[name]) for name in table[0][:3])
                table.append([*counts, f"{row['low']:.0%} to {row['high']:.0%}"])
            told += ["", markdown_table(table, right=[1, 2, 3])]
    told += ["", "## Rows against each other", ""]
    both_ways = _named(curated, conflicts.rows_contradicted)
    told += [
        f"- {conflicts.duplicates:,} rows repeat one before them, {conflicts.near_duplicates:,} more but for case, "
        "blanks and punctuation.",
        f"- {conflicts.contradictions:,} pairs of responses are preferred both ways{both_ways}.",
        f"- {conflicts.cycles:,} cycles among the responses of a prompt{_named(curated, conflicts.rows_in_cycles)}.",
    ]
    contaminated = [place for place, name in enumerate(facts.contaminated) if name]
    if contaminated:
        names = Counter(facts.contaminated[place] for place in contaminated)
        count = ", ".join(f"{name} {num:,}" for name, num in sorted(names.items()))
        told += [f"- {len(contaminated):,} prompts share 13 words in a row with a benchmark's ({count})"]
        told[-1] += f"{_named(curated, contaminated)}."
    return told


def reviewed_flips(curated: Curated) -> tuple[list[dict[str, object]], str]:
    """Return what reviews say about the other pairs: rows by decile, none before there are enough, and a sentence."""
    ids = [curated.facts.id[row] for row in curated.votes.pairs.source_row.tolist()]
    return flip_rows(curated.votes.strength.quantile, ids, curated.verdicts)


def wrong_line(curated: Curated) -> str:
    """Return the estimate in one sentence."""
    wrong = curated.wrong
    pairs = f"{wrong.num_pairs:,} pairs that the voters were not trained on"
    if not wrong.is_told:
        return f"How many labels are wrong cannot be told from {pairs} ({wrong.low:.0%} to {wrong.high:.0%})."
    return f"Of the labels {wrong.share:.1%} are wrong ({wrong.low:.1%} to {wrong.high:.1%}, 95 %), by {pairs}."


def _named(curated: Curated, places: list[int]) -> str:
    ids = [curated.facts.id[place] for place in places[:MAX_LISTED]]
    more = f" and {len(places) - len(ids):,} more" if len(places) > len(ids) else ""
    return f" (rows {', '.join(ids)}{more})" if ids else ""


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
