"""The named sets of a data module, from what a user hands it: sources by name, for training, validation and test.

It knows sources and names; what is in them and when they are read is the data module's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar, cast, runtime_checkable

from lightning_rm.data.rows import GroupSource, Source
from lightning_rm.data.sources.contamination import Decontaminated
from lightning_rm.data.sources.files import FileSource, Paths
from lightning_rm.data.sources.groups import GroupFile, GroupRecords
from lightning_rm.data.sources.records import ArrowStream, Records, RecordSource
from lightning_rm.data.sources.resampling import PromptSplit

AnySource = Source | GroupSource | Paths | Records
"""A source of pairs or of scored responses; the file or files to read one from; or its rows in memory."""

AnyGroupSource = GroupSource | Paths | Records
"""A source of groups of responses; the file or files to read one from; or its rows in memory."""

S = TypeVar("S", Source, GroupSource)
T = TypeVar("T")


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
        """The name of every source, in order; a name that two sources share stands here twice."""
        return [*self.train, *self.val, *self.test]

    def of_stage(self, stage: str | None) -> list[str]:
        """Return the names of what a stage reads: `fit`, `validate`, `test`, `predict`, or None for all.

        `predict` reads the test sets, or the validation sets where there are none, or else the training set.
        """
        predicted = self.test or self.val or self.train
        wanted = {"fit": (*self.train, *self.val), "validate": self.val, "test": self.test, "predict": predicted}
        return list(wanted[stage]) if stage else list(self.sources)


def pair_sets(
    train: AnySource | None,
    val: Mapping[str, AnySource] | AnySource | None,
    test: Mapping[str, AnySource] | AnySource | None,
    val_fraction: float,
    resample: Callable[[Source], Source] | None,
    decontaminate: Mapping[str, Paths] | None,
) -> Sets[Source]:
    """Return sets of preference pairs: one alone is named `train`, `val` or `test`.

    Args:
        train: as in `PreferenceDataModule`, like all others.
        val: see there.
        test: see there.
        val_fraction: see there.
        resample: see there.
        decontaminate: see there.
    """
    trained = {} if train is None else {"train": as_source(train, "train")}
    if trained and decontaminate:
        trained = {"train": Decontaminated(trained["train"], decontaminate)}
    held_out = _named("val", val, as_source)
    if trained and not held_out and val_fraction > 0:
        whole = trained["train"]
        trained = {"train": PromptSplit(whole, "train", val_fraction, seed=0)}
        held_out = {"val": PromptSplit(whole, "held_out", val_fraction, seed=0)}
    if trained and resample is not None:
        trained = {"train": resample(trained["train"])}
    return Sets(trained, held_out, _named("test", test, as_source))


def group_sets(
    train: AnyGroupSource | None,
    val: Mapping[str, AnyGroupSource] | AnyGroupSource | None,
    test: Mapping[str, AnyGroupSource] | AnyGroupSource | None,
) -> Sets[GroupSource]:
    """Return sets of responses: that of training is named `responses`, one alone `val_responses` or `test_responses`.

    Args:
        train: as `responses` in `PreferenceDataModule`.
        val: as `val_responses` there.
        test: as `test_responses` there.
    """
    return Sets(
        _named("responses", train, as_group_source),
        _named("val_responses", val, as_group_source),
        _named("test_responses", test, as_group_source),
    )


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError if two sets have one name, or one has a name that no file can have."""
    seen = set[str]()
    for name in names:
        if not name or {"/", "\\"} & set(name):
            raise ValueError(
                f"a data set is named {name!r}, and files and metrics are named after it; give a name without a slash"
            )
        if name in seen:
            raise ValueError(
                f"two data sets are named {name!r}; give every train, val and test set, and every set of responses, "
                "its own name"
            )
        seen.add(name)


def as_source(given: AnySource, name: str = "source") -> Source:
    """Return what a user gives as a source: a source stays as it is, files and rows in memory are wrapped in one.

    Args:
        given: a source; a path, a glob or a list of them; a list of dicts, a `datasets.Dataset` or a `DataFrame`.
        name: what to call it in an error.

    Raises:
        ValueError: for anything else, such as rows that can be read only once.
    """
    return _as(given, name, FileSource, RecordSource)


def as_group_source(given: AnyGroupSource, name: str) -> GroupSource:
    """Return what a user gives as a source of groups of responses, as `as_source` does for pairs."""
    return _as(given, name, GroupFile, GroupRecords)


@runtime_checkable
class _CheckedSource(Source, Protocol):
    """A `Source` that can be told from a path and from rows."""


def _as(given: object, name: str, of_files: Callable[[Paths], S], of_rows: Callable[[Records], S]) -> S:
    """Return a source as it is, and files and rows in memory as a source of them."""
    if isinstance(given, str | Path):
        return of_files(given)
    if isinstance(given, _CheckedSource):
        return cast(S, given)
    if isinstance(given, Iterator | ArrowStream):
        return of_rows(cast(Records, given))  # for an iterator, its error says what to give instead
    found = type(given).__name__
    if isinstance(given, Iterable) and isinstance(given, Sized) and not isinstance(given, Mapping):
        items = cast(Iterable[object], given)
        first = next(iter(items), None)
        if isinstance(first, Mapping):
            return of_rows(cast(Records, given))
        if isinstance(given, Sequence) and first is not None and all(isinstance(item, str | Path) for item in items):
            return of_files(cast(Sequence[str | Path], given))
        found += f", of {type(first).__name__}" if len(given) else " and empty"
    hint = "; Mixture makes one source of several" * isinstance(given, Mapping)
    if isinstance(given, Iterable) and not isinstance(given, Sized):
        hint = f"; {of_rows.__name__}({name}) is a source of whatever yields its dicts anew each time it is read"
    raise ValueError(
        f"{name} is of the type {found}; give a source, a path or a list of paths, or rows in memory: a list of dicts, "
        f"one datasets.Dataset or a DataFrame{hint}"
    )


def _named(name: str, sets: Mapping[str, T] | T | None, read: Callable[[T, str], S]) -> dict[str, S]:
    """Return sources by name, as `read` makes them from what is given: one alone takes `name`."""
    if sets is None:
        return {}
    named = cast(Mapping[str, T], sets) if isinstance(sets, Mapping) else {name: sets}
    return {key: read(value, key) for key, value in named.items()}
