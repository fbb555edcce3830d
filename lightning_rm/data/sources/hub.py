"""Pairs that the `datasets` library holds: a folder that it saved, or a data set of the Hugging Face hub."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning_rm.data.formats.fields import Columns, Raw
from lightning_rm.data.formats.responses import Prefill
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.arrow import without_gaps
from lightning_rm.data.sources.named import named_sources
from lightning_rm.data.sources.options import RowOptions, Where
from lightning_rm.data.sources.readers import Record
from lightning_rm.digests import sha256_of

if TYPE_CHECKING:
    from datasets import Dataset


class DiskSource:
    """Pairs from a folder that `datasets.Dataset.save_to_disk` wrote.

    Args:
        path: the folder.
        split: which split of a saved `DatasetDict`; None for a single data set.
        columns: as in `RowOptions`.
        where: as in `RowOptions`.
        format: as in `RowOptions`.
        subset: as in `RowOptions`.
        prefill: as in `RowOptions`.

    Raises:
        ValueError: if the folder is not such a data set, or has no such split.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        *,
        columns: Columns | None = None,
        where: Where | None = None,
        format: str = "auto",
        subset: str | None = None,
        prefill: Prefill = "error",
    ) -> None:
        folder = Path(path).expanduser()
        splits = sorted(found.parent.name for found in folder.glob("*/dataset_info.json"))
        if split is not None and split not in splits:
            raise ValueError(_no_split(str(path), split, splits))
        if split is None and splits:
            raise ValueError(f"{path} has the splits {', '.join(splits)}; name one with split=...")
        self.folder = folder / split if split else folder
        if not (self.folder / "dataset_info.json").is_file():
            raise ValueError(f"{path} is not a folder that datasets.save_to_disk wrote: it has no dataset_info.json")
        self.options = RowOptions(columns, where, format, subset, prefill)

    @property
    def places(self) -> list[str]:
        """The folder."""
        return [str(self.folder)]

    def fingerprint(self) -> str:
        """Return a digest of the folder's Arrow files and of the options."""
        return self.options.digest("disk", [sha256_of(file) for file in sorted(self.folder.glob("*.arrow"))])

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows in order; their places are `FOLDER row 17`, counted from 0."""
        from datasets import load_from_disk  # imported here: it takes a second, and most runs read files

        data = _loaded(str(self.folder), lambda: load_from_disk(str(self.folder)))
        return self.options.read(_records(data, str(self.folder)))


class HubSource:
    """Pairs from a data set of the Hugging Face hub, or from the hub's cache on a machine without network.

    Args:
        name: the data set, `Anthropic/hh-rlhf`.
        split: which split, also a slice of one: `train`, `train[:1000]`.
        config: the data set's configuration, where it has several.
        revision: a branch, a tag or a commit.
        data_dir: a folder of the data set, where its parts are kept in folders.
        columns: as in `RowOptions`.
        where: as in `RowOptions`.
        format: as in `RowOptions`.
        subset: as in `RowOptions`.
        prefill: as in `RowOptions`.

    Raises:
        ValueError: for no split.
    """

    def __init__(
        self,
        name: str,
        split: str,
        config: str | None = None,
        revision: str | None = None,
        *,
        data_dir: str | None = None,
        columns: Columns | None = None,
        where: Where | None = None,
        format: str = "auto",
        subset: str | None = None,
        prefill: Prefill = "error",
    ) -> None:
        if not split:
            raise ValueError(
                f"{name} is read split by split; name one, split=train (data.test_split for data.test_name)"
            )
        self.name, self.split, self.config, self.revision, self.data_dir = name, split, config, revision, data_dir
        self.options = RowOptions(columns, where, format, subset, prefill)

    def fingerprint(self) -> str:
        """Return a digest of what `datasets` knows the content by (its version on the hub), and of the options."""
        return self.options.digest("hub", self._data._fingerprint)  # pyright: ignore[reportPrivateUsage]

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows in order; their places are `NAME SPLIT row 17`, counted from 0.

        Raises:
            ValueError: if neither the hub nor its cache has the data set, or it has no such split.
        """
        return self.options.read(_records(self._data, f"{self.name} {self.split}"))

    @cached_property
    def _data(self) -> Dataset:
        try:
            return _loaded(f"{self.name} (split {self.split})", lambda: self._load(self.split))
        except ValueError as error:
            splits = self._splits() if isinstance(error.__cause__, ValueError) else []
            asked = [part.partition("[")[0].strip() for part in self.split.split("+")]
            if splits and (unknown := [name for name in asked if name not in (*splits, "all")]):
                raise ValueError(_no_split(self.name, unknown[0], splits)) from error
            raise

    def _load(self, split: str | None) -> object:
        from datasets import load_dataset

        return load_dataset(self.name, self.config, split=split, revision=self.revision, data_dir=self.data_dir)

    def _splits(self) -> list[str]:
        """Return the names of the splits; none where the data set cannot be loaded."""
        try:
            return [str(name) for name in cast(Mapping[object, object], self._load(None))]
        except Exception:  # of the many kinds that `datasets` has; the first error is the one to show
            return []


def hub_sources(
    name: str | Mapping[str, str | Mapping[str, Any]] | None,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    *,
    train: str | Mapping[str, str | Mapping[str, Any]] | None = None,
    columns: Columns | None = None,
    where: Where | None = None,
    prefill: Prefill = "error",
) -> HubSource | dict[str, HubSource] | None:
    """Return one data set of the hub, or several named ones, to evaluate on.

    Args:
        name: of the data set; for several a name of yours -> such, or -> {name: such, ...} with options of its own:
            split, config, revision, columns, where, prefill. None for those of `train`, if there is a split to read.
        split: as in `HubSource`, for every set that has none of its own, like all that follow.
        config: the same.
        revision: the same.
        train: what is trained on, as `name`; of a split of its own nothing is read here.
        columns: as in `RowOptions`.
        where: the same.
        prefill: the same.

    Raises:
        ValueError: for an option that there is not, and as `HubSource` does.
    """
    options = {"split": split, "config": config, "revision": revision}
    options |= {"columns": columns, "where": where, "prefill": prefill}
    if name is None and split is not None:
        name = _without_split(train) if isinstance(train, Mapping) else train
    return named_sources(HubSource, "name", name, options)


def _without_split(sets: Mapping[str, str | Mapping[str, Any]]) -> dict[str, str | Mapping[str, Any]]:
    """Return named sets without the splits that are their own."""

    def others(what: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
        return {key: value for key, value in what.items() if key != "split"} if isinstance(what, Mapping) else what

    return {name: others(what) for name, what in sets.items()}


def _no_split(name: str, split: str, known: Sequence[str]) -> str:
    """Return the sentence for a split that a data set does not have."""
    close = difflib.get_close_matches(split, known, 1, 0.5)
    nearest = f"; the nearest is {close[0]}" if close else ""
    return f"{name} has no split {split!r}{nearest}; found {', '.join(known) or 'none'}"


def _loaded(name: str, load: Callable[[], object]) -> Dataset:
    """Return a data set from `datasets`, whose many kinds of error are all reported in one way."""
    from datasets import Dataset

    try:
        data = load()
    except Exception as error:
        raise ValueError(
            f"cannot load {name}: {type(error).__name__}: {str(error).rstrip(' .')}. Without a network it must be in "
            "the hub's cache; a downloaded file is read with data=jsonl data.file=FILE (in Python, FileSource)."
        ) from error
    if not isinstance(data, Dataset):
        raise ValueError(f"{name} is a {type(data).__name__}, not one data set; name one of its splits")
    return data.with_format(None)


def _records(data: Dataset, name: str) -> Iterator[Record]:
    gapless = without_gaps(data.features.arrow_schema)
    for place, raw in enumerate(data):
        yield Record(f"{name} row {place}", gapless(cast(Raw, raw)))
