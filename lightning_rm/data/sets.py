"""The named sets of a data module, from what a user hands it: sources by name, for training, validation and test.

It knows sources and names; what is in them and when they are read is the data module's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lightning_rm.data.groups import ResponseFile
from lightning_rm.data.rows import GroupSource, Source
from lightning_rm.data.sources import FileSource, PromptSplit

AnySource = Source | str | Path
"""A source, or the file that one is to read."""

AnyGroupSource = GroupSource | str | Path
"""A source of groups of responses, or the file that one is to read."""

S = TypeVar("S", Source, GroupSource)


@dataclass(frozen=True)
class Sets(Generic[S]):
    """Sources by name.

    Args:
        train: one source, or none.
        val: any number.
        test: any number.
    """

    train: dict[str, S]
    val: dict[str, S]
    test: dict[str, S]

    @property
    def sources(self) -> dict[str, S]:
        """All of them by name."""
        return self.train | self.val | self.test

    @property
    def names(self) -> list[str]:
        """The name of every source, in order; one that two sources have stands here twice."""
        return [*self.train, *self.val, *self.test]

    def of_stage(self, stage: str | None) -> list[str]:
        """The names of what a stage reads: `fit`, `validate`, `test`, or None for all."""
        wanted = {"fit": (*self.train, *self.val), "validate": self.val, "test": self.test}
        return list(wanted[stage]) if stage else list(self.sources)


def pair_sets(
    train: AnySource | None,
    val: Mapping[str, AnySource] | AnySource | None,
    test: Mapping[str, AnySource] | AnySource | None,
    val_fraction: float = 0.0,
    resample: Callable[[Source], Source] | None = None,
) -> Sets[Source]:
    """Sets of preference pairs: one alone is named `train`, `val` or `test`.

    Args:
        train: as in `PreferenceDataModule`, like all others.
        val: see there.
        test: see there.
        val_fraction: see there.
        resample: see there.
    """
    trained, held_out = _named("train", train, FileSource), _named("val", val, FileSource)
    if trained and not held_out and val_fraction > 0:
        whole = trained["train"]
        trained = {"train": PromptSplit(whole, "train", val_fraction, seed=0)}
        held_out = {"val": PromptSplit(whole, "held_out", val_fraction, seed=0)}
    if trained and resample is not None:
        trained = {"train": resample(trained["train"])}
    return Sets(trained, held_out, _named("test", test, FileSource))


def group_sets(
    train: AnyGroupSource | None,
    val: Mapping[str, AnyGroupSource] | AnyGroupSource | None,
    test: Mapping[str, AnyGroupSource] | AnyGroupSource | None,
) -> Sets[GroupSource]:
    """Sets of responses: that of training is named `responses`, one alone `val_responses` or `test_responses`.

    Args:
        train: as `responses` in `PreferenceDataModule`.
        val: as `val_responses` there.
        test: as `test_responses` there.
    """
    return Sets(
        _named("responses", train, ResponseFile),
        _named("val_responses", val, ResponseFile),
        _named("test_responses", test, ResponseFile),
    )


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError if two sets have one name."""
    seen = set[str]()
    for name in names:
        if name in seen:
            raise ValueError(
                f"two data sets are named {name!r}; give every train, val and test set, and every set of responses, "
                "its own name"
            )
        seen.add(name)


def _named(
    name: str, sets: Mapping[str, S | str | Path] | S | str | Path | None, read: Callable[[str | Path], S]
) -> dict[str, S]:
    """Sources by name: one alone takes `name`; a path becomes the source of its file."""
    if sets is None:
        return {}
    named = sets if isinstance(sets, Mapping) else {name: sets}
    return {key: read(value) if isinstance(value, str | Path) else value for key, value in named.items()}
