"""Read a benchmark's rows: from files in its own form, or from the hub by `datasets`. It knows no single benchmark.

A benchmark counts only as a whole: a bad row, or a row that stands there twice, raises an error and is not skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from lightning_rm.data.formats.fields import BAD_VALUE, Raw, RowError, found_fields, items_of, required, shown, text
from lightning_rm.data.rows import BadRow
from lightning_rm.data.sources.readers import SUFFIXES, Record, find_files, read_file
from lightning_rm.digests import digest
from lightning_rm.evaluation.items import Item
from lightning_rm.told import json_of

Paths = str | Path | Sequence[str | Path]


WRONG_KINDS = (TypeError, ValueError, AttributeError, OverflowError)
"""What a reader of rows raises on meeting a value of another kind, `null` for a list among them."""


class HubPart(NamedTuple):
    """A split of a data set on the hub, and what it is called in the benchmark."""

    part: str
    path: str
    split: str
    config: str | None = None


def read_records(
    name: str, path: Paths | None, hub: Sequence[HubPart], read_row: Callable[[str, Raw, str], Item]
) -> Iterator[Item]:
    """Yield the items of a benchmark.

    Args:
        name: of the benchmark, for errors.
        path: files or folders; None for the hub.
        hub: the parts on the hub.
        read_row: from (part, row, place) to an item.

    Raises:
        ValueError: for a bad row, one that stands there twice, or no row.
    """
    records = _local(path) if path is not None else _of_hub(name, hub)
    seen: dict[str, str] = {}
    for part, (origin, raw) in records:
        try:
            item = read_row(part, raw, origin)
        except (RowError, *WRONG_KINDS) as error:
            told = f"{error.reason}: {error.detail}" if isinstance(error, RowError) else f"{BAD_VALUE}: {error}"
            raise ValueError(
                f"{origin} is not a row of benchmark={name}: {told}; its fields: {found_fields(raw)}"
            ) from None
        # Rows without an id may be alike within a file, but not those of a file and its copy.
        named = item.id != origin
        key = digest([item.id if named else "", item.subset, item.prompt, item.responses], 32)
        first = seen.setdefault(key, origin)
        if first != origin and (named or _file_of(first) != _file_of(origin)):
            raise ValueError(
                f"{origin} holds the item of {first} again; name one of the two files (path=...), "
                "or the benchmark would count it twice"
            )
        yield item
    if not seen:
        raise ValueError(f"benchmark={name}: {path} holds no row")


def _file_of(origin: str) -> str:
    """Return a row's place without its number: `pairs.jsonl:` of `pairs.jsonl:17`."""
    return origin.rstrip("0123456789")


def _local(path: Paths) -> Iterator[tuple[str, Record]]:
    """Yield every row of files or folders, with the file's path without its suffixes as the part."""
    for part, file in _files(path):
        for record in _rows(file):
            if isinstance(record, BadRow):
                raise ValueError(f"{record.origin}: {record.reason}: {record.detail}")
            yield part, record


def _files(path: Paths) -> Iterator[tuple[str, Path]]:
    if not isinstance(path, str | Path):
        for one in path:
            yield from _files(one)
        return
    folder = Path(path).expanduser()
    if not folder.is_dir():
        yield from ((_stem(file.as_posix()), file) for file in find_files(path))
        return
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name.lower().endswith(SUFFIXES)]
    files = [file for file in files if not any(step.startswith(".") for step in file.relative_to(folder).parts)]
    if not files:
        raise ValueError(f"{path} holds no file that can be read; known are {', '.join(SUFFIXES)}")
    yield from ((_stem(file.as_posix()), file) for file in files)


def _stem(name: str) -> str:
    """Return a name without its suffixes: `Adversarial/Neighbor/dataset` of `Adversarial/Neighbor/dataset.json.gz`."""
    suffix = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(suffix))
    return name[: -len(suffix)]


def _rows(file: Path) -> Iterator[Record | BadRow]:
    """Yield a file's rows; a `task.json` of BIG-bench is one object, and its rows are its `examples`."""
    if file.name != "task.json":
        yield from read_file(file)
        return
    task = json_of(file.read_bytes(), file)
    examples: Any = cast(Raw, task).get("examples") if isinstance(task, dict) else task
    if not isinstance(examples, list):
        raise ValueError(f"{file} has no list of examples, as a task of BIG-bench has")
    for place, raw in enumerate(cast("list[Raw]", examples)):
        yield Record(f"{file} row {place}", raw)


def _of_hub(name: str, hub: Sequence[HubPart]) -> Iterator[tuple[str, Record]]:
    if not hub:
        raise ValueError(f"benchmark={name} is on no hub; fetch its files and say path=FOLDER")
    from datasets import load_dataset  # imported here: it takes a second, and most runs read files

    for part, path, split, config in hub:
        try:
            data = load_dataset(path, config, split=split)
        except Exception as error:  # it raises many kinds: all are reported alike
            raise ValueError(
                f"benchmark={name}: cannot load {path} ({config or 'default'}, split {split}): "
                f"{type(error).__name__}: {error}. Without a network say path=FOLDER_OR_FILE of a copy"
            ) from error
        for place, raw in enumerate(data.with_format(None)):
            yield part, Record(f"{path} {config or split} row {place}", cast(Raw, raw))


def named_in(part: str, names: Sequence[str]) -> str | None:
    """Return the name that a path holds, nearest to its end: `LLMBar/Natural/dataset` is `natural`; None for none.

    Upper case and punctuation do not count: `PPE-MMLU-Pro-Best-of-K` holds `mmlu_pro`.
    """
    for step in reversed(part.split("/")):
        plain = re.sub(r"[^a-z0-9]+", "_", step.lower())
        for name in names:
            if re.sub(r"[^a-z0-9]+", "_", name.lower()) in plain:
                return name
    return None


def text_of(raw: Raw, name: str) -> str:
    """Return a field's text, which may be empty: some benchmarks have empty responses, and models must score them."""
    return text(required(raw, name), f"field {name!r}")


def list_of(raw: Raw, name: str, what: str = "") -> Sequence[object]:
    """Return a field that is a list; `what` says of what, for errors: ` of texts`."""
    return items_of(required(raw, name), f"field {name!r}", what)


def texts_of(raw: Raw, name: str, num: int | None = None) -> list[str]:
    """Return a field's list of texts, `num` of them if it says so."""
    texts = [text(item, f"{name}, item {place}") for place, item in enumerate(list_of(raw, name, " of texts"))]
    if num is not None and len(texts) != num:
        raise RowError(BAD_VALUE, f"field {name!r} must have {num} texts, found {len(texts)}")
    return texts


def one_of(value: object, known: Sequence[str], name: str) -> str:
    """Return a value that must be one of some words."""
    if value not in known:
        raise RowError(BAD_VALUE, f"{name} must be one of {', '.join(known)}, found {shown(value)}")
    return cast(str, value)
