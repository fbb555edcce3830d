"""The training set of a data module whose pairs are streamed: its loader, and where a checkpoint has its readers stand.

Stands where `pair_sets` stands for pairs that are tokenised ahead. It knows shards and readers; no trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.batches.batching import Batching
from lightning_rm.data.batches.share import Share
from lightning_rm.data.sources.shards import ParquetShards
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.stream_loader import StreamLoader
from lightning_rm.data.streaming import STREAM_VERSION, Mark, StreamedPairs
from lightning_rm.data.tokenize.policy import TokenizePolicy

Readers = Sequence[Sequence[int]]
"""Where each reader of a rank stands, as plain numbers."""


class StreamSet:
    """Training pairs that are read from their shards as they are trained on.

    Args:
        shards: where they lie.
        tokenizer: as `load_tokenizer` gives it.
        policy: how they are tokenised.
    """

    def __init__(self, shards: ParquetShards, tokenizer: PreTrainedTokenizerBase, policy: TokenizePolicy) -> None:
        self.shards = shards
        self.tokenizer = tokenizer
        self.policy = policy
        self._loader: StreamLoader | None = None
        self._stood: tuple[Readers, int] | None = None

    @property
    def reports(self) -> dict[str, DataReport]:
        """What became of the rows that this rank has tokenised, under `train`; nothing before the first."""
        return {"train": self._loader.report} if self._loader is not None and self._loader.report.read else {}

    def name(self, row: int) -> str:
        """Return what messages call a pair, by its place in the shards."""
        return self.shards.name(row)

    def beginning(self, num_pairs: int, batching: Batching) -> PairDataset:
        """Return the first pairs that are kept of the shards, in their order: so many, or as many as there are."""
        one_by_one = replace(batching, batch_pairs=1, num_workers=0)
        pairs = StreamedPairs(self.shards, self.tokenizer, self.policy, one_by_one, shuffle=False)
        pairs.buffer = num_pairs
        return pairs.beginning()

    def loader(self, batching: Batching, share: Share, epoch: int) -> StreamLoader:
        """Return a rank's loader, from where the checkpoint stands that training goes on from.

        Args:
            batching: how pairs become batches.
            share: which of them the rank reads.
            epoch: that training is in.
        """
        pairs = StreamedPairs(
            self.shards, self.tokenizer, self.policy, batching, share.rank, share.world_size, shuffle=share.shuffle
        )
        self._loader = StreamLoader(pairs, share)
        if self._stood is not None:
            self._loader.go_on(*self._stood)
            self._stood = None
        elif epoch:  # a checkpoint of another number of readers: the pass that this epoch would be
            pairs.marks = [Mark(number=epoch)] * len(pairs.marks)
        return self._loader

    def readers(self, num_trained: int) -> Readers | None:
        """Return where this rank's readers stand when so many batches of the epoch are trained on.

        None before there is a loader.
        """
        return None if self._loader is None else self._loader.position(num_trained)

    def begin(self) -> None:
        """Forget where readers stood in a checkpoint that no fit has gone on from."""
        self._stood = None

    def go_on(self, readers: Readers, num_trained: int) -> None:
        """Have the next loader begin where readers stood, with so many batches of the epoch trained on."""
        self._stood = readers, num_trained

    def settings(self, batching: Batching) -> dict[str, str | int | None]:
        """Return what the pairs of a training micro-batch depend on, except for devices and accumulation."""
        return {
            "shards": f"{len(self.shards.files)} (fingerprint {self.shards.fingerprint()[:12]})",
            "stream": STREAM_VERSION,
            "batch_pairs": batching.batch_pairs,
            "order": batching.order,
            "buffer_pairs": self.shards.buffer_pairs,
            "num_workers": batching.num_workers,
            "max_tokens": self.policy.max_tokens,
            "seed": batching.seed,
        }
