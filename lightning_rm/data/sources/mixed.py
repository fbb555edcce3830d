"""What a user mixes in a configuration: files, or data sets of the hub, under names, each with a weight.

It knows what a configuration may write; what a weight takes is the mixture's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from lightning_rm.data.formats.fields import Columns
from lightning_rm.data.formats.responses import Prefill
from lightning_rm.data.rows import Source
from lightning_rm.data.sources.files import FileSource, Paths
from lightning_rm.data.sources.hub import HubSource
from lightning_rm.data.sources.mixture import Mixture
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
    return None if path is None else _mixed(FileSource, "path", path, options, weights)


def mixed_hub(
    name: str | Mapping[str, str | Mapping[str, Any]],
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    weights: Mapping[str, float] | None = None,
    *,
    columns: Columns | None = None,
    where: Where | None = None,
    prefill: Prefill = "error",
) -> Source:
    """Return a data set of the hub, or a mixture of several.

    Args:
        name: of the data set; for a mixture a name of yours -> such, or -> {name: such, ...} with options of its own:
            split, config, revision, columns, where, prefill.
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
) -> Source:
    """Return the source that `make` makes of `key` and options, or the mixture of those that have names."""
    one = partial(make, **options)
    if isinstance(given, Mapping):
        named = {str(name): what for name, what in cast(Mapping[object, object], given).items()}
        return Mixture({name: one(**_own(name, what, key, options)) for name, what in named.items()}, weights)
    if weights:
        raise ValueError(f"weights are of sets that have names: {key}={{NAME: {key.upper()}, ...}}")
    return one(**{key: given})


def _own(name: str, what: object, key: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return what a set of a mixture says of itself: where it is, and options."""
    own = dict(cast(Mapping[str, object], what)) if isinstance(what, Mapping) else {key: what}
    if wrong := sorted(own.keys() - {key, *options}) or sorted({key} - own.keys()):
        found = f"has no {key}" if key not in own else f"has {wrong[0]!r}"
        raise ValueError(f"{name} {found}; it is a {key}, or {{{key}: ..., ...}} with any of {', '.join(options)}")
    return own
