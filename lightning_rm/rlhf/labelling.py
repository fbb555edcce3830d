"""Labels for a share of a policy's responses: pairs of them, for the reward model of its round.

It knows groups and a judge; no file and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from lightning_rm.data.rows import GroupRow, PairRow
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.digests import key_digest
from lightning_rm.rlhf.best_of import labelled_pairs, spoken
from lightning_rm.rlhf.judges import Comparison, Judge, judged


def label_pairs(
    groups: Sequence[GroupRow], judge: Judge, *, share: float, annotator: Annotator | None = None, seed: int = 0
) -> tuple[list[PairRow], int]:
    """Have two different responses to some prompts labelled. One without words is never of a pair.

    Args:
        groups: P prompts with a policy's responses.
        judge: who compares them.
        share: of the prompts, drawn by their ids.
        annotator: labels the first two responses whose gold differs, by the judge's gold and with errors; None takes
            the judge's verdict on the first two different responses.
        seed: of which prompts are drawn, and of errors.

    Returns:
        The pairs, in order, and how many of the drawn prompts have none because nothing tells their responses apart.

    Raises:
        ValueError: if an annotator is asked and the judge has no gold.
    """
    drawn = sorted(groups, key=lambda group: key_digest("label", seed, group.id))[: round(share * len(groups))]
    ids = {group.id for group in drawn}
    chosen = [group for group in groups if group.id in ids]
    if annotator is not None:
        pairs = list(labelled_pairs(_with_gold(chosen, judge), annotator, seed))
        found = [pair for pair in pairs if isinstance(pair, PairRow)]
        return found, len(chosen) - len(found)
    compared: list[tuple[GroupRow, int, int]] = []
    for group in chosen:
        different = (
            (first, second)
            for first, second in combinations(spoken(group), 2)
            if group.responses[first] != group.responses[second]
        )
        if (pair := next(different, None)) is not None:
            compared.append((group, *pair))
    judgements = judged(judge, [_comparison(*each) for each in compared])
    labelled: list[PairRow] = []
    for (group, first, second), judgement in zip(compared, judgements, strict=True):
        if judgement.verdict in ("win", "lose"):
            better, worse = (first, second) if judgement.verdict == "win" else (second, first)
            labelled.append(group.pair(better, worse))
    return labelled, len(chosen) - len(labelled)


def _comparison(group: GroupRow, first: int, second: int) -> Comparison:
    said, other = (group.responses[place][-1]["content"] for place in (first, second))
    return Comparison(group.prompt, said, other, group.chat_template_kwargs)


def _with_gold(groups: Sequence[GroupRow], judge: Judge) -> list[GroupRow]:
    """Return the groups with the judge's gold of every response; each is compared with the first."""
    judgements = iter(
        judged(judge, [_comparison(group, place, 0) for group in groups for place in range(len(group.responses))])
    )
    found: list[GroupRow] = []
    for group in groups:
        gold = [next(judgements).gold for _ in group.responses]
        known = tuple(value for value in gold if value is not None)
        if len(known) < len(gold):
            raise ValueError("labels.annotator labels by gold, and this judge has none; set labels.annotator=null")
        found.append(replace(group, gold=known))
    return found
