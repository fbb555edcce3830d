"""The distinct conversations of tokenised pairs: numbered, so that each is scored once, and cut into shards.

It knows tokenised pairs; no voters and no rewards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_rm.data.batches.repeats import sequence_index
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.shards import Shard


class Conversations:
    """The distinct conversations of N pairs.

    Args:
        pairs: N tokenised pairs.

    Attributes:
        index: (N, 2), the number of each response's conversation, counted from 0.
    """

    def __init__(self, pairs: PairDataset) -> None:
        self.pairs = pairs
        self.index = sequence_index(pairs)
        self._first = np.unique(self.index, return_index=True)[1]  # the flat place in `index` of each conversation

    def tokens(self, number: int) -> Sequence[int]:
        """Return the token ids of a conversation."""
        pair, side = divmod(int(self._first[number]), 2)
        return self.pairs.sample(pair).sequences[side]

    def place(self, number: int) -> str:
        """Return where a conversation stands in the data, for messages."""
        pair, side = divmod(int(self._first[number]), 2)
        return f"{self.pairs.place(pair)}, {('chosen', 'rejected')[side]}"

    def shards(self, numbers: NDArray[np.int64], size: int, voter: str) -> Iterator[Shard]:
        """Yield conversations in shards of at most `size`; messages name the voter that scores them."""
        for number, start in enumerate(range(0, len(numbers), size)):
            within: list[int] = numbers[start : start + size].tolist()
            yield Shard(
                number,
                len(within),
                lambda within=within: [self.tokens(one) for one in within],
                lambda place, within=within: f"voter {voter}: {self.place(within[place])}",
            )

    def check_readable(self, model: AnyRewardModel) -> None:
        """Check that a model can read the longest conversation.

        Raises:
            ValueError: if it cannot.
        """
        longest = int(self.pairs.lengths.max())
        if model.max_tokens is not None and longest > model.max_tokens:
            place = self.pairs.place(int(self.pairs.lengths.max(axis=1).argmax()))
            raise ValueError(
                f"{place}: a conversation has {longest:,} tokens and the voters read {model.max_tokens:,}; set "
                f"max_tokens={model.max_tokens}"
            )
