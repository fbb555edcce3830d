"""Responses from files and from memory: a row with a prompt and a list of responses, read to a `GroupRow`.

`lightning-rm sample` writes such files; so does any script that samples a policy. This file knows one format and no
tokenizer: readers find the raw rows, `turns` reads conversations in any shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lightning_rm.data.formats.fields import Columns
from lightning_rm.data.formats.groups import (
    GROUP_FIELDS,
    GROUP_PARSER_VERSION,
    parse_group,
)
from lightning_rm.data.formats.responses import Prefill, check_prefill
from lightning_rm.data.formats.scores import SCORE_FIELDS
from lightning_rm.data.rows import BadRow, GroupRow
from lightning_rm.data.sources.files import Paths, file_digests
from lightning_rm.data.sources.named import named_sources
from lightning_rm.data.sources.options import given_mapping
from lightning_rm.data.sources.readers import Record, find_files, read_file
from lightning_rm.data.sources.records import RecordRows, Records
from lightning_rm.digests import digest


class GroupFile:
    """Groups of responses from files: JSONL, JSON arrays, both also as `.gz`, and Parquet.

    A row has `prompt`, a text or a list of messages; `responses`, a list of texts or of lists of messages; and may have
    `id`, `prompt_id` and `subset`; `gold`, a number for each response; `votes`, for each response a list of the rewards
    that voters give it; and `tools` and `chat_template_kwargs` for the chat template.

    With scores, such a file is a set of training pairs too: `scores`, a number or an object of attributes for each
    response, or `ranks`, 1 for the best; or one `response` a row with its `score` or HelpSteer2's attributes; or
    UltraFeedback's `completions` (`formats.scores`).

    Args:
        path: a path, a glob or a list of them.
        columns: field -> its name in the file, or a dotted path to it; None hides a field of that name.
        prefill: a prompt that ends with the assistant's turn is an `error`, or each response is to `continue` it.

    Raises:
        ValueError: if there is no such file, or for a column that is not read; while reading, if a file is damaged.
    """

    def __init__(self, path: Paths, columns: Columns | None = None, prefill: Prefill = "error") -> None:
        self.files = find_files(path)
        self.columns = given_mapping("columns", columns)
        self.prefill: Prefill = prefill
        _check(self.columns, prefill)

    @property
    def places(self) -> list[str]:
        """The files, in order."""
        return list(map(str, self.files))

    def fingerprint(self) -> str:
        """Return a digest of the files' bytes, in order, and of the options."""
        options = [GROUP_PARSER_VERSION, self.columns, self.prefill]
        return digest(["responses", *options, file_digests(self.files)], 64)

    def __iter__(self) -> Iterator[GroupRow | BadRow]:
        """Yield the rows of every file in order; their places are `responses.jsonl:17`."""
        for file in self.files:
            yield from _parsed(read_file(file), self.columns, self.prefill)


class GroupRecords:
    """Groups of responses from rows in memory, read as the rows of a `GroupFile` are.

    Args:
        records: as in `RecordSource`: a list of dicts, a `datasets.Dataset`, a table.
        columns: as in `GroupFile`.
        prefill: the same.

    Raises:
        ValueError: as both do.
    """

    def __init__(self, records: Records, columns: Columns | None = None, prefill: Prefill = "error") -> None:
        self.rows = RecordRows(records)
        self.columns = given_mapping("columns", columns)
        self.prefill: Prefill = prefill
        _check(self.columns, prefill)

    def fingerprint(self) -> str:
        """Return a digest of what the records hold, in order, and of the options."""
        return digest(["responses in memory", GROUP_PARSER_VERSION, self.columns, self.prefill, self.rows.digest()], 64)

    def __iter__(self) -> Iterator[GroupRow | BadRow]:
        """Yield the rows in order; their places are `records row 17`, counted from 0."""
        return _parsed(self.rows, self.columns, self.prefill)


def _check(columns: Columns, prefill: str) -> None:
    """Raise ValueError for a column that no group of responses has, and an unknown word."""
    check_prefill(prefill)
    if unknown := sorted(set(columns) - GROUP_FIELDS - SCORE_FIELDS):
        raise ValueError(
            f"columns names {unknown[0]!r}, which is not a field of a group of responses; a column is written "
            f"{{field: name in the file}}, and the fields are {', '.join(sorted(GROUP_FIELDS | SCORE_FIELDS))}"
        )


def _parsed(records: Iterable[Record | BadRow], columns: Columns, prefill: Prefill) -> Iterator[GroupRow | BadRow]:
    for record in records:
        if isinstance(record, BadRow):
            yield record
        else:
            yield parse_group(record.raw, record.origin, columns, prefill)


def response_files(
    path: Paths | Mapping[str, Paths | Mapping[str, Any]] | None,
    columns: Columns | None = None,
    prefill: Prefill = "error",
) -> GroupFile | dict[str, GroupFile] | None:
    """Return one source, or several named ones, from what a user writes in a configuration.

    Args:
        path: a path, a glob or a list of them for one source; for several name -> such, or name -> {path: such, ...}
            with options of its own: columns, prefill. None for none.
        columns: as in `GroupFile`, for every source that has none of its own.
        prefill: the same.

    Raises:
        ValueError: for an option that there is not, and as `GroupFile` does.
    """
    return named_sources(GroupFile, "path", path, {"columns": columns, "prefill": prefill})


ResponseFile = GroupFile
"""The former name of the same class."""
