"""What is known of every row before any vote: names, groups, and digests of the texts, in one pass over the source.

It keeps numbers and short names, no texts: a million rows fit in memory. It knows rows; no votes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightning_rm.curation.topics import WORDS, TopicSketch
from lightning_rm.data.rows import BadRow, Message, PairRow
from lightning_rm.data.sources.contamination import Benchmarks
from lightning_rm.digests import short_key

NOT_WORDS = re.compile(r"\W+")


@dataclass
class Facts:
    """What is known of the R rows of a source, in their order.

    Attributes:
        id: the name of each row; the place of one that cannot be read.
        prompt_id: of the prompt; empty for a row that cannot be read.
        bad: why a row cannot be read, empty for one that can.
        keys: (prompt, chosen, rejected) digests of the texts but for case, blanks and punctuation.
        exact: digests of the texts as they are.
        groups: name of a grouping -> the group of each row, empty for a row without one.
        ungrouped: fields to group by that no row has.
        words: words of the chosen response less those of the rejected one.
        contaminated: the benchmark that has the same prompt, empty if none does.
        second: what a second label says: 1 that chosen is better, 0 that it is not, NaN where there is none.
        topics: sketches of the prompts.
    """

    id: list[str] = field(default_factory=list[str])
    prompt_id: list[str] = field(default_factory=list[str])
    bad: list[str] = field(default_factory=list[str])
    keys: list[tuple[bytes, bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes, bytes]])
    exact: list[tuple[bytes, bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes, bytes]])
    groups: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    ungrouped: list[str] = field(default_factory=list[str])
    words: list[int] = field(default_factory=list[int])
    contaminated: list[str] = field(default_factory=list[str])
    second: list[float] = field(default_factory=list[float])
    topics: TopicSketch = field(default_factory=TopicSketch)

    def __len__(self) -> int:
        return len(self.id)

    def second_votes(self) -> NDArray[np.float64]:
        """Return (R,), the second label as a vote: 1, -1, NaN where there is none."""
        return 2 * np.array(self.second, np.float64) - 1


def collect_facts(
    rows: Iterable[PairRow | BadRow],
    columns: Sequence[str] = ("source", "annotator"),
    second_label: str | None = None,
    benchmarks: Benchmarks | None = None,
) -> Facts:
    """Look at every row once.

    Args:
        rows: good and bad.
        columns: further fields of the rows that name groups; one that no row has is not a grouping.
        second_label: a field with another opinion of whether chosen is better: true, false or a probability.
        benchmarks: prompts to look for.

    Raises:
        ValueError: if no row has the field of the second label, or one that is not a probability.
    """
    facts = Facts(groups={"subset": [], **{name: [] for name in columns}})
    for row in rows:
        facts.id.append(row.origin if isinstance(row, BadRow) else row.id)
        if isinstance(row, BadRow):
            facts.prompt_id.append("")
            facts.bad.append(f"{row.reason}: {row.detail}")
            facts.keys.append((b"", b"", b""))
            facts.exact.append((b"", b"", b""))
            facts.words.append(0)
            facts.second.append(np.nan)
            facts.contaminated.append("")
            facts.topics.add([])
            for groups in facts.groups.values():
                groups.append("")
            continue
        texts = [text_of(turns) for turns in (row.prompt, row.chosen, row.rejected)]
        facts.prompt_id.append(row.prompt_id)
        facts.bad.append("")
        facts.keys.append(_digests([NOT_WORDS.sub(" ", text.casefold()).strip() for text in texts]))
        facts.exact.append(_digests(texts))
        facts.words.append(len(texts[1].split()) - len(texts[2].split()))
        facts.second.append(_second(row, second_label))
        facts.topics.add(WORDS.findall(texts[0].casefold()))
        facts.contaminated.append((benchmarks and benchmarks.holds(row.prompt)) or "")
        facts.groups["subset"].append(row.subset)
        for name in columns:
            value = row.others.get(name)
            facts.groups[name].append("" if value is None else str(value))
    if second_label is not None and np.isnan(facts.second).all():
        raise ValueError(f"second_label={second_label!r}: no row has a field of that name")
    facts.ungrouped = [name for name in columns if not any(facts.groups[name])]
    facts.groups = {name: groups for name, groups in facts.groups.items() if any(groups)}
    return facts


def text_of(turns: Iterable[Message]) -> str:
    """Return what is said in turns, a paragraph each."""
    return "\n\n".join(turn["content"] for turn in turns)


def _second(row: PairRow, name: str | None) -> float:
    value = None if name is None else row.others.get(name)
    if value is None:
        return np.nan
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise ValueError(
            f"{row.place}: second_label={name!r} is {value!r}; it says by true, false or a probability whether chosen "
            "is better"
        )
    return 1.0 - value if row.is_turned else float(value)


def _digests(texts: Sequence[str]) -> tuple[bytes, bytes, bytes]:
    first, second, third = (short_key(text.encode(), num_bytes=12) for text in texts)
    return first, second, third
