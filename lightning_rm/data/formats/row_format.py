"""What a row format is: the fields that give it away, and its row written with the plain field names.

`published` has the formats of data sets, `toolkits` those of other toolkits. This file knows no single one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lightning_rm.data.formats.fields import Raw, required


@dataclass(frozen=True)
class RowFormat:
    """One published shape of a pair.

    Args:
        matches: whether a row has this shape.
        rewrite: the same row with the plain field names; it raises `RowError` for what it cannot read.
        first_better: the same row, its first response named as the better one: whoever asks for the responses alone
            gets them in the row's order, those of a tie too.
    """

    matches: Callable[[Raw], bool]
    rewrite: Callable[[Raw], Raw]
    first_better: Callable[[Raw], Raw] = dict[str, object]


def saying(**fields: object) -> Callable[[Raw], Raw]:
    """Return a function that sets these fields of a row to these values."""
    return lambda raw: {**raw, **fields}


def ordered(raw: Raw, first: str, second: str, first_wins: bool) -> dict[str, object]:
    """Return two responses in fields of their own, written as chosen and rejected."""
    responses = required(raw, first), required(raw, second)
    chosen, rejected = responses if first_wins else responses[::-1]
    return {**raw, "chosen": chosen, "rejected": rejected}
