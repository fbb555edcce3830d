"""Runs that a user names, with what their configurations say as plain values."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from lightning_rm.analysis.runs import Run
from lightning_rm.commands._config import resolved

NO_RUN = "names no run: a run is a folder with a config.yaml"
"""What is wrong with a glob, after its name."""


def find_runs(key: str, patterns: str | Sequence[str]) -> list[Run]:
    """The runs that globs name, each once, in order of the globs and then of their paths.

    Args:
        key: what errors call the globs.
        patterns: a glob or several.

    Raises:
        ValueError: if there is no glob, one names no run, or a folder's config.yaml is no run's.
    """
    found: dict[Path, Run] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        folders = [Path(path) for path in sorted(glob.glob(str(Path(pattern).expanduser())))]
        folders = [folder for folder in folders if (folder / "config.yaml").is_file()]
        if not folders:
            raise ValueError(f"{key}={pattern!r} {NO_RUN}")
        for folder in folders:
            if folder.resolve() not in found:
                found[folder.resolve()] = _run(key, folder)
    if not found:
        raise ValueError(f"{key}={patterns!r} {NO_RUN}")
    return list(found.values())


def flattened(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a configuration by dotted key, lists whole: `module.optimizer.lr`."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from flattened(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _run(key: str, folder: Path) -> Run:
    config = OmegaConf.load(folder / "config.yaml")
    if "name" not in config or "seed" not in config:
        raise ValueError(f"{key}: {folder}/config.yaml is no run's, it has no name and seed; name runs alone")
    told = resolved(cast(DictConfig, config))
    treatments: dict[str, Any] = told.get("treatment") or {}
    return Run(folder, told["name"], told["seed"], treatments, dict(flattened(told)))
