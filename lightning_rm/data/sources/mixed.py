"""What a user mixes in a configuration: files, or data sets of the hub, under names, each with a weight.

It knows what a configuration may write; what a weight takes is the mixture's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_rm.data.formats.fields import Columns
from lightning_rm.data.formats.responses import Prefill
from lightning_rm.data.rows import Source
from lightning_rm.data.sources.files import FileSource, Paths
from lightning_rm.data.sources.hub import HubSource
from lightning_rm.data.sources.mixture import Mixture
from lightning_rm.data.sources.named import named_sources
from lightning_rm.data.sources.options import Where


def mixed_files(
    path: Paths | Mapping[str, Paths | Mapping[str, Any]] | None,
    weights: Mapping[str, float] | None = None,
    *,
    columns: Columns | None = None,
    where: Where | None = None,
    format: str = "auto",
    prefill: Prefill = "error",
) -> Source | None:
    """Return a source of files, or a mixture of several.

    Args:
        path: a path, a glob or a list of them; for a mixture name -> such, or name -> {path: such, ...} with options of
            its own: columns, where, format, prefill. None for no source.
        weights: as in `Mixture`.
        columns: as in `RowOptions`, for every set that has none of its own.
        where: the same.
        format: the same.
        prefill: the same.

    Raises:
        ValueError: for weights without names, an option that there is not, and as `FileSource` and `Mixture` do.
    """
    options = {"columns": columns, "where": where, "format": format, "prefill": prefill}
    return _mixed(FileSource, "path", path, options, weights)


def mixed_hub(
    name: str | Mapping[str, str | Mapping[str, Any]] | None,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    weights: Mapping[str, float] | None = None,
    *,
    columns: Columns | None = None,
    where: Where | None = None,
    prefill: Prefill = "error",
) -> Source | None:
    """Return a data set of the hub, or a mixture of several.

    Args:
        name: of the data set; for a mixture a name of yours -> such, or -> {name: such, ...} with options of its own:
            split, config, revision, columns, where, prefill. None for no source.
        split: as in `HubSource`, for every set that has none of its own, like all that follow.
        config: the same.
        revision: the same.
        weights: as in `Mixture`.
        columns: as in `RowOptions`.
        where: the same.
        prefill: the same.

    Raises:
        ValueError: for weights without names, and an option that there is not; as `Mixture` does.
    """
    options = {"split": split, "config": config, "revision": revision}
    options |= {"columns": columns, "where": where, "prefill": prefill}
    return _mixed(HubSource, "name", name, options, weights)


def _mixed(
    make: Callable[..., Source],
    key: str,
    given: object,
    options: Mapping[str, object],
    weights: Mapping[str, float] | None,
) -> Source | None:
    """Return the source that `make` makes of `key` and options, or the mixture of those that have names."""
    sources = named_sources(make, key, given, options)
    if isinstance(sources, dict):
        return Mixture(sources, weights)
    if weights and sources is not None:
        raise ValueError(f"weights are of sets that have names: {key}={{NAME: {key.upper()}, ...}}")
    return sources
