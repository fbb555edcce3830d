"""`RowStream`: from the rows of a file to shards of distinct conversations, and from their rewards back to rows.

However long the file is, memory holds only the rows of a shard, 16 bytes and their table entry for each distinct
conversation up to a bound, and for each response its conversation's number and reward. It knows rows and token ids; no
model and no file but the one it reads.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.formats.fields import Raw
from lightning_rm.data.formats.scorable import Scorable
from lightning_rm.data.rows import BadRow
from lightning_rm.data.sources.readers import Record, read_file
from lightning_rm.digests import short_key
from lightning_rm.scoring.conversations import Conversation, encode, remarks
from lightning_rm.scoring.new_fields import Scored
from lightning_rm.scoring.parts import Parts, Refusal
from lightning_rm.scoring.rows import Kinds
from lightning_rm.scoring.shards import Shard

SHARD_ROWS = 1000
"""How many rows' new conversations make a shard."""

SHARD_BYTES = 16 * 2**20
"""How much text ends a shard before it has all its rows, since rows may be long."""

REMEMBERED = 4_000_000
"""How many distinct conversations are remembered, at about 200 bytes each. One that comes again after more than so many
others is scored again."""


class RowStream:
    """A reader of a file's rows, once for their conversations and once again for their places.

    Args:
        source: the file.
        parse: reads a raw row.
        taken: names of fields that rows must not have yet.
        tokenizer: the model's.
        max_tokens: conversations with more tokens are refused; None for no limit.
        shard_rows: rows of a shard.
        remembered: how many distinct conversations are remembered, to tell them from new ones.

    Attributes:
        remarks: what was worth saying of distinct conversations that are scored as they stand -> of how many.
    """

    def __init__(
        self,
        source: Path,
        parse: Callable[[Raw, str], Scorable | BadRow],
        taken: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int | None,
        shard_rows: int = SHARD_ROWS,
        remembered: int = REMEMBERED,
    ) -> None:
        self.source = source
        self.taken = taken
        self.max_tokens = max_tokens
        self.shard_rows = shard_rows
        self.remarks: Counter[str] = Counter()
        self._parse = parse
        self._tokenizer = tokenizer
        self._seen = _Seen(remembered)
        self._numbers = array("q")  # of each response's conversation
        self._widths = array("i")  # of each row: responses, -1 for one that is not in a list, 0 for a bad row
        self._sizes: list[int] = []  # of each shard
        self._ends: list[int] = [0]  # the rows before each shard, and after the last
        self._scored = 0

    @property
    def num_rows(self) -> int:
        """Rows read so far."""
        return len(self._widths)

    @property
    def num_responses(self) -> int:
        """Responses read so far."""
        return len(self._numbers)

    @property
    def num_distinct(self) -> int:
        """Distinct conversations read so far."""
        return self._seen.num_distinct

    def shards(self) -> Iterator[Shard]:
        """Yield the conversations that are new, those of `shard_rows` rows at a time.

        Raises:
            ValueError: if a row has a field that is to be added, or the file cannot be read to its end.
        """
        fresh: list[tuple[str, Conversation]] = []
        num_rows, num_bytes = 0, 0
        for record in read_file(self.source):
            row = self._read(record)
            if isinstance(row, BadRow):
                self._widths.append(0)
            else:
                self._widths.append(-1 if row.kind == "one" else len(row.responses))
                for turns, (key, size) in zip(row.turns, _keys(row), strict=True):
                    number, is_new = self._seen.number(key)
                    self._numbers.append(number)
                    if is_new:
                        conversation = Conversation(turns, row.tools, row.chat_template_kwargs)
                        self.remarks.update(remarks(self._tokenizer, conversation))
                        fresh.append((record.origin, conversation))
                        num_bytes += size
            num_rows += 1
            if fresh and (num_rows >= self.shard_rows or num_bytes >= SHARD_BYTES):
                yield self._shard(fresh)
                fresh, num_rows, num_bytes = [], 0, 0
        if fresh:
            yield self._shard(fresh)

    def rows_done(self, shard: Shard, num_conversations: int) -> int:
        """Say about how many rows are done when so many more conversations of a shard are done."""
        self._scored += num_conversations
        before, after = self._ends[shard.number], self._ends[shard.number + 1]
        share = (self._scored - sum(self._sizes[: shard.number])) / shard.size
        return round(before + share * (after - before))

    def kinds(self, parts: Parts) -> Kinds:
        """Return what the rows hold, once all shards are scored."""
        num_refused = sum(len(parts.read(number).refusals) for number in range(len(self._sizes)))
        return Kinds(
            ones=-1 in self._widths,
            lists=any(width > 0 for width in self._widths),
            scored=num_refused < self.num_distinct,
            refused=num_refused > 0 or 0 in self._widths,
        )

    def scored(self, parts: Parts, combine: Callable[[Tensor], Tensor]) -> Iterator[Scored]:
        """Yield every row's rewards, in the order of the file, once all shards are scored.

        Args:
            parts: of the shards.
            combine: makes one reward, (1, P), of those of M members, (1, M, P).

        Raises:
            ValueError: if the file has changed since it was read.
        """
        read = [parts.read(number) for number in range(len(self._sizes))]
        members = np.concatenate([part.rewards for part in read] or [np.empty((0, 1), np.float32)])
        rewards = combine(torch.from_numpy(members.T[None]))[0].numpy()
        starts = np.cumsum([0, *self._sizes])
        refusals = {int(starts[i]) + place: why for i, part in enumerate(read) for place, why in part.refusals.items()}
        place = 0
        for width, record in zip(self._widths, read_file(self.source), strict=True):
            numbers = self._numbers[place : place + abs(width)]
            place += abs(width)
            refusal = next((refusals[number] for number in numbers if number in refusals), None)
            if width == 0:
                row = self._read(record)
                assert isinstance(row, BadRow)
                refusal = Refusal(row.reason, row.detail)
            yield Scored(record.origin, rewards[numbers], members[numbers], width == -1, refusal)

    def _shard(self, fresh: Sequence[tuple[str, Conversation]]) -> Shard:
        self._sizes.append(len(fresh))
        self._ends.append(self.num_rows)
        conversations = [conversation for _, conversation in fresh]
        return Shard(
            len(self._sizes) - 1,
            len(fresh),
            partial(encode, self._tokenizer, conversations, self.max_tokens),
            lambda place: fresh[place][0],
        )

    def _read(self, record: Record | BadRow) -> Scorable | BadRow:
        if isinstance(record, BadRow):
            return record
        if taken := [name for name in self.taken if name in record.raw]:
            raise ValueError(
                f"{record.origin} has a field {taken[0]!r} already, which would be written over; put something in "
                "front of the new names with prefix=..., such as prefix=second_"
            )
        return self._parse(record.raw, record.origin)


class _Seen:
    """Numbers of distinct keys in order of appearance; the older half is forgotten when there are too many."""

    def __init__(self, most: int) -> None:
        self.num_distinct = 0
        self._half = max(most // 2, 1)
        self._older: dict[bytes, int] = {}
        self._newer: dict[bytes, int] = {}

    def number(self, key: bytes) -> tuple[int, bool]:
        """Return the number of a key, and whether it is a new one."""
        found = self._newer.get(key, self._older.get(key))
        if found is not None:
            return found, False
        if len(self._newer) >= self._half:
            self._older, self._newer = self._newer, {}
        self._newer[key] = self.num_distinct
        self.num_distinct += 1
        return self.num_distinct - 1, True


def _keys(row: Scorable) -> Iterator[tuple[bytes, int]]:
    """Yield for each conversation of a row 16 bytes that stand for it, and how many bytes its text has."""
    shared = _written([row.tools, row.chat_template_kwargs, row.prompt])
    for response in row.responses:
        text = _written(response)
        yield short_key(shared, text), len(shared) + len(text)


def _written(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
