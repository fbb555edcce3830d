"""What a row format is: how to recognise its rows, and how to rewrite them with the plain field names.

`published` has the formats of data sets, `toolkits` those of other toolkits. This file knows none of them.
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
        rewrite: returns the row with the plain field names; raises `RowError` for what it cannot read.
        first_better: returns the row with its first response marked as the better one, so that a caller who wants only
            the responses gets them in the row's order, even for a tie.
    """

    matches: Callable[[Raw], bool]
    rewrite: Callable[[Raw], Raw]
    first_better: Callable[[Raw], Raw] = dict[str, object]


def saying(**fields: object) -> Callable[[Raw], Raw]:
    """Return a function that sets these fields of a row to these values."""
    return lambda raw: {**raw, **fields}


def ordered(raw: Raw, first: str, second: str, first_wins: bool) -> dict[str, object]:
    """Return a row whose two responses, given in fields of their own, are written as chosen and rejected."""
    responses = required(raw, first), required(raw, second)
    chosen, rejected = responses if first_wins else responses[::-1]
    return {**raw, "chosen": chosen, "rejected": rejected}
