"""What a user asks for: models by name, benchmarks and preference files, read as items. It knows folders; no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from lightning_rm.data.sets import AnySource, as_source
from lightning_rm.evaluation.benchmarks import BENCHMARKS, find_benchmarks
from lightning_rm.evaluation.benchmarks.benchmark import Benchmark
from lightning_rm.evaluation.benchmarks.preferences import left_out, pair_items, preference_benchmark
from lightning_rm.evaluation.items import Items
from lightning_rm.globs import is_glob, named_folders
from lightning_rm.scoring.load import LoadedModel, check_loaded, models_at

Paths = str | Path | Sequence[str | Path]
Models = str | Path | Sequence[str | Path] | Mapping[str, "str | Path | LoadedModel"]


class Asked(NamedTuple):
    """A benchmark with its items, and what was left out when they were read."""

    benchmark: Benchmark
    items: Items
    notes: list[str]


def find_models(models: Models, weights: str = "best") -> dict[str, str | Path | LoadedModel]:
    """Return name -> model for what a user names. A folder that is no model stands for the runs in it, and is ignored
    in a glob where it has none: `runs/*` are `runs/NAME/DATE` too.

    Raises:
        ValueError: if there is none, or a glob names none.
    """
    if isinstance(models, Mapping):
        if not models:
            raise ValueError("models={} names no model")
        for name, one in models.items():
            check_loaded(one, f"models[{name!r}]")
        return dict(models)
    if not isinstance(models, str | Path):
        given = cast(object, models)
        several = isinstance(given, Sequence) and not isinstance(given, LoadedModel)
        for one in cast("Sequence[object]", given) if several else [given]:
            if not isinstance(one, str | Path):
                raise ValueError(
                    f"models: {one!r:.60} is not a name or a folder; a model in memory has a name, "
                    "{'mine': (model, tokenizer)}"
                )
    found: dict[str, str | Path | LoadedModel] = {}
    for pattern in [models] if isinstance(models, str | Path) else models:
        usable = [str(run) for path in named_folders(pattern) for run in models_at(path, weights)]
        if not is_glob(pattern) and usable in ([], [str(Path(pattern).expanduser())]):
            found[str(pattern)] = pattern
            continue
        if not usable:
            raise ValueError(
                f"models={str(pattern)!r} names no run with weights in model/{weights} and no folder of a model"
            )
        found |= {path: path for path in usable}
    if not found:
        raise ValueError("models is an empty list; name runs, folders or hub names")
    return found


def read_asked(
    benchmark: str | Sequence[str],
    path: Paths | Mapping[str, Paths] | None,
    data: AnySource | Mapping[str, AnySource] | None,
    on_bad_row: str,
    failed: dict[str, str],
) -> list[Asked]:
    """Read everything that models are measured on."""
    wanted = find_benchmarks(benchmark) if benchmark else []
    if not wanted and data is None:
        raise ValueError("there is nothing to measure on: name a benchmark, or data=FILE")
    if isinstance(path, Mapping) and (unknown := [name for name in path if name not in BENCHMARKS]):
        raise ValueError(f"path names {unknown[0]!r}, and there are the benchmarks {', '.join(BENCHMARKS)}")
    found: list[Asked] = []
    for one in wanted:
        try:
            items = one.read(_path_of(one.name, path, len(wanted)))
        except Exception as error:
            failed[f"reading {one.name}"] = said(error)
        else:
            found.append(Asked(one, items, one.missing(items)))
    named = data if data is None or isinstance(data, Mapping) else {_data_name(data): data}
    sources = cast("Mapping[str, AnySource]", named or {})
    if taken := [name for name in sources if name in {one.name for one in wanted}]:
        raise ValueError(f"data has the name {taken[0]!r}, which is a benchmark's of this evaluation; give it another")
    for name, source in sources.items():
        items, reasons = pair_items(as_source(source, name), on_bad_row)
        found.append(Asked(preference_benchmark(name, items), items, left_out(reasons)))
    return found


def _path_of(name: str, path: Paths | Mapping[str, Paths] | None, num_benchmarks: int) -> Any:
    """Return where a benchmark is to be read."""
    if isinstance(path, Mapping):
        return path.get(name)
    if num_benchmarks > 1 and isinstance(path, str | Path):
        inside = Path(path).expanduser() / name
        if not inside.exists():
            raise ValueError(f"path={path} has no folder {name}; of several benchmarks each has a folder of its name")
        return inside
    return path


def _data_name(data: object) -> str:
    return Path(data).name.partition(".")[0] if isinstance(data, str | Path) else "data"


def said(error: Exception) -> str:
    """Return what went wrong, in one line, with the kind of error where its message was not written for a user."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
