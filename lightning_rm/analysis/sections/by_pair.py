"""The same models, test pair by test pair: what can be told where a method has a run or two."""

from __future__ import annotations

from lightning_rm.analysis.by_pair import PairDifference, pair_difference
from lightning_rm.analysis.methods import Method
from lightning_rm.analysis.page.blocks import Block, Cell, Section, Table, Text
from lightning_rm.analysis.sections.results import signed_interval, tone
from lightning_rm.analysis.study import Study
from lightning_rm.counts import number_of

TITLE = "Pair by pair"


def by_pair_section(study: Study) -> Section:
    """Return each method's accuracy less the reference's on the test pairs that both have, with intervals over
    prompts; of validation sets where no run has a test set.
    """
    names = [name for name in study.recorded() if name.startswith("test")] or study.recorded()
    found = [
        (name, method, difference)
        for name in names
        for method in study.others
        if (difference := _difference(study, method, name)) is not None
    ]
    if not found:
        return Section(TITLE, [])
    reference = study.reference.name
    blocks: list[Block] = [
        Text(
            "Both models judge the same pairs, and the draws are of their prompts. So these intervals say whether the "
            "models that were trained differ, and not whether those of another seed would: that takes several runs a "
            "method, whose differences stand above."
        ),
        Table([_row(*one) for one in found], f"accuracy less that of {reference}, bootstrap over prompts"),
    ]
    told = [
        f"{method.name} is {difference.accuracy.verdict} on {name} by {signed_interval(difference.accuracy)}. "
        for name, method, difference in found
        if difference.accuracy.verdict != "cannot be told"
    ]
    rest = f"{'No other' if told else 'No'} difference can be told from zero."
    return Section(TITLE, blocks, f"Accuracy against {reference}: {''.join(told)}{rest}", compares=True)


def _difference(study: Study, method: Method, name: str) -> PairDifference | None:
    """Return the difference over the blocks of which both methods have finite rewards; None without any."""
    there, reference = study.of(method), study.of(study.reference)
    return pair_difference(
        [
            (one.records[name], reference[block].records[name])
            for block, one in there.items()
            if block in reference and one.is_finite(name) and reference[block].is_finite(name)
        ]
    )


def _row(name: str, method: Method, found: PairDifference) -> dict[str, Cell | str]:
    accuracy = found.accuracy
    left_out = f"{number_of(found.num_left_out, 'pair')} of one run alone" if found.num_left_out else ""
    return {
        "method": method.name,
        "set": name,
        "pairs": Cell(f"{accuracy.num:,}", left_out, is_number=True),
        "prompts": Cell(f"{found.num_prompts:,}", is_number=True),
        "difference": Cell(signed_interval(accuracy), is_number=True),
        "verdict": Cell(accuracy.verdict, tone=tone(accuracy, "accuracy")),
    }
