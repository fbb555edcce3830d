"""Find the runs that a user names, and read their `config.yaml` as plain values, without Hydra."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lightning_rm.analysis.runs import Run
from lightning_rm.counts import number_of
from lightning_rm.globs import by_numbers, named_paths
from lightning_rm.told import read_object, read_yaml

WORD = "job.json"
"""What a job of a sweep leaves in its folder from its beginning on, with how it ended."""

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

    Warns:
        UserWarning: of jobs of a sweep that have failed, or have not come to train yet: they are no runs.
    """
    found: dict[Path, Run] = {}
    for pattern in [patterns] if isinstance(patterns, str | Path) else patterns:
        paths = named_paths(pattern)
        folders = [folder for path in paths for folder in _folders_in(path, "config.yaml")]
        unbegun = [job for path in paths for job in _folders_in(path, WORD) if _is_unbegun(job)]
        if unbegun:
            told = ", ".join(str(job) for job in sorted(unbegun, key=lambda job: by_numbers(str(job))))
            warnings.warn(
                f"{key}={str(pattern)!r}: {number_of(len(unbegun), 'job')} of a sweep left no run, and "
                f"{'is' if len(unbegun) == 1 else 'are'} not among those here: {told} ({WORD} there says why)",
                stacklevel=2,
            )
        if not folders:
            raise ValueError(f"{key}={str(pattern)!r} {NO_RUN}")
        for folder in sorted(folders, key=lambda folder: by_numbers(str(folder))):
            if folder.resolve() not in found:
                found[folder.resolve()] = _run(key, folder)
    if not found:
        raise ValueError(f"{key}={patterns!r} {NO_RUN}")
    return list(found.values())


def _folders_in(path: Path, name: str, depth: int = 2) -> list[Path]:
    """Return the folder itself if it has a file of the name, else those in it, at most `depth` folders down; none in
    hidden folders, such as Hydra's, and none in one that has the file.
    """
    if (path / name).is_file():
        return [path]
    return [found for folder in path.glob("[!.]*/") for found in _folders_in(folder, name, depth - 1)] if depth else []


def _is_unbegun(job: Path) -> bool:
    """Tell whether a job of a sweep, which is not done, has not written its configuration: a training does so when it
    begins. One whose word cannot be read was ended as it was written.
    """
    if (job / "config.yaml").is_file():
        return False
    try:
        return read_object(job / WORD).get("error") is not None
    except ValueError:
        return True


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
