"""Training samples: all but one fold of the prompts, a share of them, or a bootstrap sample of the pairs.

All are sources made of a source, decided row by row from a hash of the row's name, like the splits of `mixture`. A
cross-fitted voter leaves one fold out and votes on that fold alone, so that no label it has learned by heart inflates a
strength.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from lightning_rm.counts import is_number
from lightning_rm.data.origins import places_of
from lightning_rm.data.rows import BY_BOOTSTRAP, BY_FOLD, BY_SHARE, BadRow, PairRow, Source
from lightning_rm.digests import digest


@dataclass(frozen=True)
class Fold:
    """One of `num_folds` parts of all prompts.

    Args:
        fold: its number, taken modulo `num_folds`: a voter's seed will do.
        num_folds: the number of parts.

    Raises:
        ValueError: if there are fewer than two parts.
    """

    fold: int
    num_folds: int

    def __post_init__(self) -> None:
        if self.num_folds < 2:
            raise ValueError(f"num_folds={self.num_folds}: cross-fitting needs 2 folds at least")

    def holds(self, prompt_id: str) -> bool:
        """Tell whether a prompt belongs to this fold. The same prompt falls into the same fold in every data set."""
        return int(unit_hash("fold", prompt_id) * self.num_folds) == self.fold % self.num_folds


class WithoutFold:
    """The rows of a source except those of one fold: what a cross-fitted voter is trained on.

    Args:
        source: what to leave out of.
        fold: the number of the fold, taken modulo `num_folds`.
        num_folds: the number of folds.
    """

    def __init__(self, source: Source, fold: int, num_folds: int) -> None:
        self.source, self.fold = source, Fold(fold, num_folds)

    @property
    def places(self) -> list[str]:
        """The places of its source."""
        return places_of(self.source)

    def fingerprint(self) -> str:
        """Return a digest of the source's fingerprint and of the fold."""
        return digest(["without fold", self.source.fingerprint(), self.fold.fold, self.fold.num_folds], 64)

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows in order; those of the fold come as `BadRow`s that are counted and are not errors."""
        for row in self.source:
            if not isinstance(row, BadRow) and self.fold.holds(row.prompt_id):
                yield BadRow(row.place, BY_FOLD, f"fold {self.fold.fold % self.fold.num_folds}")
            else:
                yield row


class Bootstrap:
    """A bootstrap sample: every row as often as a Poisson variable of mean 1 says, 0 times in 37 of 100 rows.

    Args:
        source: what to sample from.
        seed: of the sample.
    """

    def __init__(self, source: Source, seed: int = 0) -> None:
        self.source, self.seed = source, seed

    @property
    def places(self) -> list[str]:
        """The places of its source."""
        return places_of(self.source)

    def fingerprint(self) -> str:
        """Return a digest of the source's fingerprint and of the seed."""
        return digest(["bootstrap of rows", self.source.fingerprint(), self.seed], 64)

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows in order, repeats with `#2`, `#3` behind their id."""
        times_seen = Counter[str]()  # so that each row of one id has a draw of its own
        for row in self.source:
            if isinstance(row, BadRow):
                yield row
                continue
            times_seen[row.id] += 1
            num_copies = poisson(unit_hash("bootstrap", self.seed, row.id, times_seen[row.id]))
            if not num_copies:
                yield BadRow(row.place, BY_BOOTSTRAP, f"seed {self.seed}")
            for copy in range(num_copies):
                yield replace(row, id=f"{row.id}#{copy + 1}") if copy else row


class PromptShare:
    """The rows of a share of the prompts: for a learning curve, or a trial of an hour's settings in minutes.

    Args:
        source: what to leave out of.
        share: of the prompts, above 0 and up to 1. A larger share holds the prompts of every smaller one.
        seed: which prompts those are. The same prompt is in it in every data set.

    Raises:
        ValueError: for another share.
    """

    def __init__(self, source: Source, share: float, seed: int = 0) -> None:
        if not (is_number(share) and 0 < share <= 1):
            raise ValueError(f"share={share!r}; it is a share of the prompts, above 0 and up to 1")
        self.source, self.share, self.seed = source, share, seed

    @property
    def places(self) -> list[str]:
        """The places of its source."""
        return places_of(self.source)

    def fingerprint(self) -> str:
        """Return a digest of the source's fingerprint and of the share."""
        return digest(["share of prompts", self.source.fingerprint(), self.share, self.seed], 64)

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows in order; those of other prompts come as `BadRow`s that are counted and are not errors."""
        for row in self.source:
            if isinstance(row, BadRow) or unit_hash("share", self.seed, row.prompt_id) < self.share:
                yield row
            else:
                yield BadRow(row.place, BY_SHARE, f"share {self.share:g}")


def poisson(uniform: float) -> int:
    """Return the Poisson variable of mean 1 whose distribution function first passes a number in [0, 1)."""
    count, term = 0, math.exp(-1)
    total = term
    while total <= uniform and count < 20:
        count += 1
        term /= count
        total += term
    return count


class PromptSplit:
    """The rows of a source on one side of a split by `prompt_id`: no prompt ever stands on both sides.

    Bad rows, whose prompt nobody knows, are given on the side `train`, so that each is counted once.

    Args:
        source: what to split.
        part: `train` or `held_out`.
        fraction: share of the prompts that is held out, between 0 and 1.
        seed: which prompts those are. The same prompt falls on the same side in every data set.

    Raises:
        ValueError: for another part or fraction; while reading, if no prompt fell on this side.
    """

    def __init__(self, source: Source, part: Literal["train", "held_out"], fraction: float, seed: int = 0) -> None:
        if part not in ("train", "held_out"):
            raise ValueError(f"part={part!r}; it must be train or held_out")
        if not 0 < fraction < 1:
            raise ValueError(f"fraction={fraction}; it must lie between 0 and 1")
        self.source, self.part, self.fraction, self.seed = source, part, fraction, seed

    @property
    def places(self) -> list[str]:
        """The places of its source."""
        return places_of(self.source)

    def fingerprint(self) -> str:
        """Return a digest of the source's fingerprint and of the split."""
        return digest(["split", self.source.fingerprint(), self.part, self.fraction, self.seed], 64)

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows of this side in order."""
        num_here, num_there = 0, 0
        nearest = 1.0 if self.part == "held_out" else 0.0
        for row in self.source:
            if isinstance(row, BadRow):
                if self.part == "train":  # once, though both sides read the source
                    yield row
                continue
            place = unit_hash(self.seed, row.prompt_id)
            if (place < self.fraction) == (self.part == "held_out"):
                num_here += 1
                yield row
            else:
                num_there += 1
                nearest = min(nearest, place) if self.part == "held_out" else max(nearest, place)
        if num_there and not num_here:
            tens = math.floor(nearest * 10_000)
            bound = f"at least {(tens + 1) / 10_000}" if self.part == "held_out" else f"at most {tens / 10_000}"
            raise ValueError(
                f"no prompt fell on the side {self.part!r} of the split: all {num_there:,} pairs are on the other, "
                f"with fraction={self.fraction} and seed={self.seed}. A fraction of {bound} puts one there "
                "(val_fraction; of curate, held_out); or name files for each side."
            )


def unit_hash(*parts: str | int) -> float:
    """Return a number in [0, 1) that looks random and depends on the parts alone: 13 hex digits of their SHA-256."""
    return int(digest(parts, 13), 16) / 16**13
