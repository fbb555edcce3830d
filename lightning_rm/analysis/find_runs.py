"""Find the runs that a user names, and read their `config.yaml` as plain values, without Hydra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lightning_rm.analysis.runs import Run
from lightning_rm.globs import by_numbers, named_paths
from lightning_rm.told import read_yaml

NO_RUN = "names no run: a run is a folder with a config.yaml"
"""What is wrong with a glob, after its name."""


def find_runs(key: str, patterns: str | Path | Sequence[str | Path]) -> list[Run]:
    """Return the runs that globs name, each once, in order of the globs and then of their paths, `2` before `10`.

    A folder that is not a run stands for the runs in it, or in its folders: `runs/*` are those of `runs/NAME/DATE` too.

    Args:
        key: what errors call the globs.
        patterns: a glob or several.

    Raises:
        ValueError: if there is no glob, one names no run, or a folder's config.yaml is not a run's.
    """
    found: dict[Path, Run] = {}
    for pattern in [patterns] if isinstance(patterns, str | Path) else patterns:
        folders = [folder for path in named_paths(pattern) for folder in _runs_in(path)]
        if not folders:
            raise ValueError(f"{key}={str(pattern)!r} {NO_RUN}")
        for folder in sorted(folders, key=lambda folder: by_numbers(str(folder))):
            if folder.resolve() not in found:
                found[folder.resolve()] = _run(key, folder)
    if not found:
        raise ValueError(f"{key}={patterns!r} {NO_RUN}")
    return list(found.values())


def _runs_in(path: Path, depth: int = 2) -> list[Path]:
    """Return the folder itself if it is a run, else the runs in it, at most `depth` folders down; none in hidden
    folders, such as Hydra's, and none in runs.
    """
    if (path / "config.yaml").is_file():
        return [path]
    return [run for folder in path.glob("[!.]*/") for run in _runs_in(folder, depth - 1)] if depth else []


def flattened(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every value of a configuration by dotted key, lists whole: `module.optimizer.lr`."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from flattened(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _run(key: str, folder: Path) -> Run:
    """Return a run from its configuration, which was written with every reference resolved."""
    try:
        told = read_yaml(folder / "config.yaml")
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if not isinstance(told, dict) or not {"name", "seed"} <= told.keys():
        raise ValueError(f"{key}: {folder}/config.yaml is not a run's, it has no name and seed; name runs alone")
    named = told.get("treatment") or {}
    treatments = {name: told for name, told in named.items() if told is not None} if isinstance(named, dict) else named
    if not isinstance(treatments, dict) or not all(isinstance(told, dict) for told in treatments.values()):
        raise ValueError(f"{key}: {folder}/config.yaml has a treatment that is not options by name")
    return Run(folder, str(told["name"]), told["seed"], treatments, dict(flattened(told)))
