"""What tokenising pairs and tokenising groups of responses have in common: the cache file, and what a report says.

A cache file is named by everything that its content depends on: what the source holds, the tokenizer with its template,
the policy and the version of the file's columns. This file knows no row and no column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.formats.limits import MAX_CHUNK_CHARACTERS
from lightning_rm.data.formats.messages import texts_of
from lightning_rm.data.rows import BadRow, GroupRow, GroupSource, Message, PairRow, Source
from lightning_rm.data.store.cache import default_cache_dir, load_or_build
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.data.tokenize.templates import DECODER_TEMPLATE, ENCODER_TEMPLATE, is_encoder
from lightning_rm.data.tokenize.tokenizer import definition
from lightning_rm.digests import check_unchanged, fingerprint

CHUNK_ROWS = 1000
"""Rows that are in memory at a time, unless they are long; each chunk is one Arrow batch."""

P = ParamSpec("P")
T = TypeVar("T")
AnyRow = TypeVar("AnyRow", PairRow | BadRow, GroupRow | BadRow, PairRow | GroupRow | BadRow)


def prepared(
    source: Source | GroupSource,
    tokenizer: PreTrainedTokenizerBase,
    policy: TokenizePolicy,
    cache_dir: Path | str | None,
    version: int | str,
    load: Callable[[Path], T],
    build: Callable[[BinaryIO], None],
    go_on: Callable[[BinaryIO, Path], None] | None = None,
) -> T:
    """Return what `load` makes of the source's cache file, which `build` writes where it is missing.

    Args:
        source: rows, good and bad; it is not read when the file is there.
        tokenizer: as `load_tokenizer` gives it.
        policy: what to do with the bad and the long.
        cache_dir: a folder; None takes `cache.default_cache_dir()`.
        version: of the file's columns.
        load: as `cache.load_or_build` takes it.
        build: the same.
        go_on: the same.

    Raises:
        ValueError: for a tokenizer that the policy or the cache cannot rely on, and for data that has changed while it
            was read.
        OSError: if the folder cannot be written to; it says how to name another.
    """
    _check(tokenizer, policy)
    read = source.fingerprint()
    key = fingerprint(
        version=version,
        source=read,
        tokenizer=definition(tokenizer),
        special_tokens=tokenizer.special_tokens_map,
        template=tokenizer.chat_template,
        policy=asdict(policy),
    )
    folder = default_cache_dir() if cache_dir is None else Path(cache_dir)

    def unchanged(write: Callable[P, None]) -> Callable[P, None]:
        def checked(*args: P.args, **kwargs: P.kwargs) -> None:
            write(*args, **kwargs)
            check_unchanged("the data", source.fingerprint(), read, "tokenised")  # its digest names the file

        return checked

    try:
        return load_or_build(folder / f"{key}.arrow", load, unchanged(build), go_on and unchanged(go_on))
    except OSError as error:  # of the cache, or of the data
        if not str(error.filename).startswith(str(folder)):
            raise
        elsewhere = "tokenised rows are kept there; name another folder with cache_dir=, or LIGHTNING_RM_CACHE"
        raise OSError(error.errno, f"{error.strerror} ({elsewhere})", error.filename) from error


def chunks_of(source: Iterable[AnyRow], first: int = 0) -> Iterator[list[tuple[int, AnyRow]]]:
    """Yield the rows of a source from one on with their places, as many at a time as are held in memory.

    Raises:
        ValueError: if a source of a user's own yields something else.
    """
    chunk, num_characters = list[tuple[int, AnyRow]](), 0
    for place, row in islice(enumerate(source), first, None):
        if not isinstance(row, PairRow | GroupRow | BadRow):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"{type(source).__name__} yields a {type(row).__name__} as its row {place}; a source yields the rows "
                "of lightning_rm.data.rows, and RecordSource(rows) makes them of dicts: leave fingerprint() out then"
            )
        chunk.append((place, row))
        num_characters += _characters(row)
        if len(chunk) == CHUNK_ROWS or num_characters > MAX_CHUNK_CHARACTERS:
            yield chunk
            chunk, num_characters = [], 0
    if chunk:
        yield chunk


def _characters(row: PairRow | GroupRow | BadRow) -> int:
    if isinstance(row, BadRow):
        return 0
    responses = (row.chosen, row.rejected) if isinstance(row, PairRow) else row.responses
    # The prompt stands before each response.
    return sum(_said(row.prompt) + _said(response) for response in responses)


def _said(turns: Sequence[Message]) -> int:
    return sum(len(said) for turn in turns for said in texts_of(turn).values())


def _check(tokenizer: PreTrainedTokenizerBase, policy: TokenizePolicy) -> None:
    template = str(tokenizer.chat_template)
    if tokenizer.chat_template is None or "strftime_now(" in template:
        fault = "is missing" if tokenizer.chat_template is None else "prints today's date"
        raise ValueError(f"the tokenizer's chat template {fault}; load it with load_tokenizer, which mends that")
    if is_encoder(tokenizer) and policy.max_tokens > tokenizer.model_max_length:
        limit = tokenizer.model_max_length
        raise ValueError(
            f"max_tokens={policy.max_tokens}, but this encoder has {limit} positions; set max_tokens={limit} or less"
        )


def notes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what a reader of the report should know of the tokenizer."""
    template, defaults = str(tokenizer.chat_template), {DECODER_TEMPLATE: "decoders", ENCODER_TEMPLATE: "encoders"}
    kind = next((kind for default, kind in defaults.items() if template.endswith(default)), None)
    return [f"the tokenizer brings no chat template; the default for {kind} is used"] if kind else []


def transcript(messages: Sequence[Message]) -> str:
    """Return turns in words: one turn as it is, several with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
