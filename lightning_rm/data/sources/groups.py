"""Responses from files: a row with a prompt and a list of responses, read to a `GroupRow`.

`lightning-rm sample` writes such files; so does any script that samples a policy. This file knows one format and no
tokenizer: readers find the raw rows, `turns` reads conversations in any shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
from lightning_rm.data.sources.readers import find_files, read_file
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
        self.columns = dict(columns or {})
        check_prefill(prefill)
        self.prefill: Prefill = prefill
        if unknown := sorted(set(self.columns) - GROUP_FIELDS - SCORE_FIELDS):
            raise ValueError(
                f"columns names {unknown[0]!r}, which is not a field of a group of responses; a column is written "
                f"{{field: name in the file}}, and the fields are {', '.join(sorted(GROUP_FIELDS | SCORE_FIELDS))}"
            )

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
            for record in read_file(file):
                yield (
                    record
                    if isinstance(record, BadRow)
                    else parse_group(record.raw, record.origin, self.columns, self.prefill)
                )


def response_files(
    path: Paths | Mapping[str, Paths] | None, columns: Columns | None = None, prefill: Prefill = "error"
) -> GroupFile | dict[str, GroupFile] | None:
    """Return one source, or several named ones, from what a user writes in a configuration.

    Args:
        path: a path, a glob or a list of them for one source; name -> such for several; None for none.
        columns: as in `GroupFile`, for every source.
        prefill: the same.
    """
    if path is None:
        return None
    if isinstance(path, Mapping):
        return {name: GroupFile(one, columns, prefill) for name, one in path.items()}
    return GroupFile(path, columns, prefill)


ResponseFile = GroupFile
"""The former name of the same class."""
