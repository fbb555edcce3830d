"""Which fields of a row are read, and under which names: `columns` renames and hides them.

The rest of a row stays with it as it is. This file knows names; no value but a missing one.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_rm.data.formats.asked import PROMPT_FIELDS
from lightning_rm.data.formats.fields import (
    MISSING_FIELD,
    Raw,
    RowError,
    found_fields,
    has,
    is_there,
    lookup,
    read_by,
)
from lightning_rm.data.formats.media import MEDIA_FIELDS
from lightning_rm.data.formats.published import FORMAT_FIELDS, FORMATS, LABEL_FIELDS, label_fields

PLAIN_FIELDS = frozenset(
    {"prompt", "chosen", "rejected", "id", "prompt_id", "subset", "label", "margin", "weight", "gold_margin", "clean"}
    | {"tied"}
    | {"strength_mean", "strength_std", "votes", "tools", "functions", "chat_template_kwargs"}
)
"""The fields of the plain format; only `chosen` and `rejected` must be there."""

WRITTEN_FIELDS = frozenset(
    {"strength_quantile", "chosen_rewards", "rejected_rewards"}  # by `annotate`
    | {"decision", "why", "where", "others"}  # and by `curate`
    | {"importance", "policy_log_probs", "reference_log_probs"}  # by `weigh`
)
"""Fields of files that are written here which nobody has to read: they are not told to be unread."""

KNOWN_FIELDS = PLAIN_FIELDS | FORMAT_FIELDS | frozenset(PROMPT_FIELDS) | frozenset(MEDIA_FIELDS)
"""Every field that is read by some format, or hidden by `columns`."""

READ_OF_PAIRS = KNOWN_FIELDS - LABEL_FIELDS
"""Those of them that are no part of a row's `others`."""


def check_options(format: str, columns: Mapping[str, str | None]) -> None:
    """Raise ValueError for a format or a column name that `parse_row` does not know."""
    if format != "auto" and format not in FORMATS:
        raise ValueError(f"format={format!r}; it must be auto or one of {', '.join(FORMATS)}")
    if unknown := sorted(set(columns) - KNOWN_FIELDS):
        raise ValueError(
            f"columns names {unknown[0]!r}, which no format reads; a column is written {{field: name in the file}}, "
            f"and the fields are {', '.join(sorted(PLAIN_FIELDS))}, or those of a published format"
        )


def renamed(raw: Raw, columns: Mapping[str, str | None]) -> Raw:
    """Return a row under the names that `columns` gives its fields."""
    row = dict(raw)
    for name, path in columns.items():
        row[name] = None if path is None else lookup(raw, path)
        if path is not None and row[name] is None:
            fault = (
                f"is null: give the row a value, or leave {name!r} out of columns"
                if is_there(raw, path)
                else f"is missing; {found_fields(raw)}"
            )
            raise RowError(MISSING_FIELD, f"field {path!r}, which columns takes for {name!r}, {fault}")
    return row


def other_fields(raw: Raw, columns: Mapping[str, str | None], read_votes: bool) -> dict[str, object]:
    """Return the fields of a row that are no part of the pair; they stay with the row as they are."""
    read = READ_OF_PAIRS.union(path for path in columns.values() if path is not None)
    if not read_votes and columns.get("votes", "") is not None:
        read -= {"votes"}  # the data's own, such as the votes of readers
    return {name: value for name, value in raw.items() if value is not None and name not in read}


def read_beside(raw: Raw, format: str, columns: Mapping[str, str | None]) -> set[str]:
    """Return those of a row's `others` that something reads, or that stand there for people in files written here."""
    written = WRITTEN_FIELDS if has(raw, "strength_mean") or has(raw, "importance") else ()
    return {*label_fields(renamed(raw, columns), format), *written, *read_by(columns, raw)}


def without_prompts(row: Raw, columns: Mapping[str, str | None]) -> Raw:
    """Return a row without the prompt fields that `columns` hides, or has read under another name."""
    taken = {
        path.split(".")[0]
        for name, path in columns.items()
        if path is not None and name in ("prompt", "chosen", "rejected", *PROMPT_FIELDS)
    }
    if columns.get("prompt", "") is None and has(row, "chosen", "rejected"):
        taken.update(PROMPT_FIELDS)
    taken = taken.intersection(PROMPT_FIELDS).difference(columns)
    return {name: value for name, value in row.items() if name not in taken}
