"""Rows that repeat or contradict each other, on worked rows."""

from __future__ import annotations

from lightning_rm.curation.conflicts import find_conflicts
from lightning_rm.curation.facts import collect_facts
from lightning_rm.data.rows import BadRow, Message, PairRow


def said(role: str, content: str) -> tuple[Message, ...]:
    return ({"role": role, "content": content},)


def row(prompt: str, chosen: str, rejected: str) -> PairRow:
    return PairRow(said("user", prompt), said("assistant", chosen), said("assistant", rejected), "", prompt)


def test_duplicates_contradictions_and_cycles() -> None:
    rows = [
        row("q", "a", "b"),  # 0
        row("q", "a", "b"),  # 1: repeats 0
        row("Q?", "A.", " b"),  # 2: repeats 0 but for case, blanks, punctuation
        row("q", "b", "a"),  # 3: contradicts 0, 1 and 2
        BadRow("file:5", "broken JSON", "no"),
        row("r", "x", "y"),  # 5 to 7: a cycle
        row("r", "y", "z"),
        row("r", "z", "x"),
        row("r", "z", "w"),  # 8: leads out of it
        row("s", "x", "y"),  # another prompt
        BadRow("file:11", "broken JSON", "no"),
    ]
    facts = collect_facts(rows)
    found = find_conflicts(facts.exact, facts.keys)
    assert (found.duplicates, found.near_duplicates) == (1, 1)
    assert (found.contradictions, found.rows_contradicted) == (1, [0, 1, 2, 3])
    assert (found.cycles, found.rows_in_cycles) == (1, [5, 6, 7])


def test_a_long_chain_is_not_a_cycle_and_costs_no_recursion() -> None:
    rows = [row("q", f"response {number}", f"response {number + 1}") for number in range(3000)]
    facts = collect_facts(rows)
    assert find_conflicts(facts.exact, facts.keys).cycles == 0
    facts = collect_facts([*rows, row("q", "response 3000", "response 0")])
    assert len(find_conflicts(facts.exact, facts.keys).rows_in_cycles) == 3001
