"""One page of all that was measured: each claim with what the paper says, what came out here, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.analysis.page.blocks import Block, Cell, Drawings, Page, Section, Table, Text, Tone
from lightning_rm.analysis.paired import paired_difference
from lightning_rm.analysis.report import write_page
from lightning_rm.counts import number_of
from lightning_rm.drafts import draft_of
from paper_parts.claims import CLAIMS, World, Worlds
from paper_parts.figures import figures_of, told
from paper_parts.stages import CONTRASTS, DISTILLED, RECIPES, Figures
from paper_parts.verdicts import State, Verdict

TONES: dict[State, Tone] = {"holds": "better", "does not hold": "worse", "cannot be told": "muted"}
Figure = Callable[[World], float]
EVERY_PAIR = "mean"
"""The one figure of a stage that is as long as the data, for Fig 1."""

TEMPERED = "NLL after a temperature fitted on validation"


def read(folder: Path) -> list[dict[str, Figures]]:
    """The worlds of a run: stage -> figures, of the stages that are done; without those of which none is."""
    worlds = (sorted(one.glob("*.json")) for one in sorted((folder / "worlds").glob("*/stages")))
    return [{path.stem: json.loads(path.read_text(encoding="utf-8")) for path in stages} for stages in worlds if stages]


def page_of(worlds: Worlds, size: str, settings: Mapping[str, Any]) -> Page:
    verdicts = [claim(worlds) for claim in CLAIMS]
    states = [verdict.state for verdict in verdicts]
    counts = {"worlds": str(len(worlds)), **{state: str(states.count(state)) for state in TONES}}
    whole = sum(len(world) == max(map(len, worlds)) for world in worlds)
    begun = f" and those of {len(worlds) - whole} more that are begun" if whole < len(worlds) else ""
    subtitle = (
        "arXiv 2401.06080 and 2405.00438 on made preferences whose truth is known, size "
        f"{size}: means over {number_of(whole, 'world')}{begun} with Student's 95 % interval. Models of 0.1M weights: "
        "what is compared is shape."
    )
    sections = [glance(verdicts), *(of_claim(verdict, worlds) for verdict in verdicts), beyond(worlds)]
    sections.append(Section("Settings", [Table([{k: Cell(str(v)) for k, v in settings.items()}])]))
    return Page("Secrets of RLHF, Part II: what holds here", subtitle, sections, counts)


def glance(verdicts: list[Verdict]) -> Section:
    rows = [
        {
            "claim": Cell(verdict.letter),
            "": Cell(verdict.title),
            "the paper": Cell(verdict.paper),
            "here": Cell(verdict.state, tone=TONES[verdict.state]),
        }
        for verdict in verdicts
    ]
    lead = "A claim holds where every part of it does, and does not where one part does not."
    return Section("The claims", [Table(rows)], lead)


def of_claim(verdict: Verdict, worlds: Worlds) -> Section:
    rows = [
        {
            "part": Cell(part.says),
            "here": Cell(part.found, is_number=True),
            "": Cell(part.state, tone=TONES[part.state]),
        }
        for part in verdict.parts
    ]
    blocks: list[Block] = [Text(f"The paper: {verdict.paper}."), Table(rows)]
    if drawings := figures_of(verdict.letter, worlds):
        blocks.append(Drawings(drawings))
    if table := MORE.get(verdict.letter):
        blocks += table(worlds)
    return Section(f"{verdict.letter}. {verdict.title}", blocks, verdict.state.capitalize() + ".")


def recipe_table(worlds: Worlds) -> list[Block]:
    """The recipes, and beside them what distilling the voters gives."""

    def last(name: str) -> Figure:
        return lambda world: world[f"recipe_{name}"]["after_epoch"][-1]

    def nll(name: str) -> Figure:
        return lambda world: world[f"recipe_{name}"]["nll"]

    names = [*RECIPES, *DISTILLED]
    return [
        compared(worlds, {name: last(name) for name in names}, "recipe", "accuracy on clean pairs, last epoch"),
        compared(worlds, {name: nll(name) for name in names}, "recipe", TEMPERED, lower_is_better=True),
    ]


def contrast_table(worlds: Worlds) -> list[Block]:
    def of(name: str, what: str) -> Figure:
        return lambda world: world[f"contrast_{name}"][what]

    names = ["baseline", *CONTRASTS]
    return [
        compared(worlds, {name: of(name, "accuracy") for name in names}, "contrast", "accuracy on clean pairs"),
        compared(worlds, {name: of(name, "nll") for name in names}, "contrast", TEMPERED, lower_is_better=True),
        compared(worlds, {name: of(name, "separation") for name in names}, "contrast", "separation of features"),
    ]


MORE: dict[str, Callable[[Worlds], list[Block]]] = {"g": recipe_table, "i": contrast_table}


def beyond(worlds: Worlds) -> Section:
    """The shift that a reward model makes itself, which the paper does not have."""
    rows = {name.removeprefix("policy_"): name for world in worlds for name in world if name.startswith("policy_")}

    def of(stage: str, figure: Callable[[Figures], float]) -> Figure:
        return lambda world: figure(world[stage])

    figures: dict[str, Callable[[Figures], float]] = {
        "rank correlation with gold, policy of 64": lambda row: row["policy_64"]["gold_correlation"],
        "gold of its own best of 64": lambda row: row["gold"]["64"],
        "accuracy on clean pairs": lambda row: row["clean"],
    }
    order = sorted(rows, key=lambda name: (name != "baseline", name))
    tables: list[Block] = [
        compared(worlds, {told(name): of(rows[name], figure) for name in order}, "model", what)
        for what, figure in figures.items()
        if "baseline" in rows
    ]
    lead = "Beyond the paper: the policy is the best of n by a first model; others are held against it retrained."
    return Section("The shift that a reward model makes", tables, lead if tables else "")


def compared(
    worlds: Worlds, figures: Mapping[str, Figure], kind: str, what: str, lower_is_better: bool = False
) -> Table:
    """Mean and spread of each row, and its difference from the first, over the worlds that have both."""
    values = {name: by_world(worlds, figure) for name, figure in figures.items()}
    first = next(iter(values))
    is_partial = len({len(found) for found in values.values() if found}) > 1
    rows: list[dict[str, Cell | str]] = []
    for name, found in values.items():
        if not found:
            continue
        numbers = list(found.values())
        spread = f" ± {np.std(numbers, ddof=1):.3f}" if len(numbers) > 1 else ""
        row: dict[str, Cell | str] = {kind: told(name).replace("_", " ")}
        row |= {"worlds": str(len(found))} if is_partial else {}
        row[what] = f"{np.mean(numbers):.3f}{spread}"
        less = paired_difference(found, values[first]) if name != first else None
        if less is not None:
            row[f"less {first}"] = Cell(less.text, is_number=True)
            better, worse = ("lower", "higher") if lower_is_better else ("higher", "lower")
            tones: dict[str, Tone] = {better: "better", worse: "worse"}
            row[""] = Cell(less.verdict, tone=tones.get(less.verdict, "muted"))
        rows.append(row)
    return Table(rows)


def by_world(worlds: Worlds, figure: Figure) -> dict[int, float]:
    found: dict[int, float] = {}
    for number, world in enumerate(worlds):
        try:
            found[number] = figure(world)
        except KeyError:
            continue
    return found


def write(folder: Path, size: str, settings: Mapping[str, Any]) -> list[Path]:
    """Write `paper.html` and `paper.md` of what is done in a folder, and the numbers as `paper.json`."""
    worlds = read(folder)
    kept = [
        {stage: {what: value for what, value in found.items() if what != EVERY_PAIR} for stage, found in world.items()}
        for world in worlds
    ]
    with draft_of(folder / "paper.json") as draft:
        draft.write_text(json.dumps({"size": size, **settings, "worlds": kept}, indent=1) + "\n", encoding="utf-8")
    return write_page(page_of(worlds, size, settings), folder / "paper.html")
