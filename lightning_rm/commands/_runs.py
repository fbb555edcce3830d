"""Runs that a user names, with what their configurations say as plain values."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from lightning_rm.analysis.runs import Run
from lightning_rm.commands._config import resolved


def find_runs(key: str, patterns: str | Sequence[str]) -> list[Run]:
    """The runs that globs name, in order of their paths.

    Raises:
        ValueError: if there are none.
    """
    found: list[Run] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for path in sorted(glob.glob(str(Path(pattern).expanduser()))):
            config = Path(path) / "config.yaml"
            if config.is_file():
                told = resolved(cast(DictConfig, OmegaConf.load(config)))
                treatments: dict[str, Any] = told.get("treatment") or {}
                found.append(Run(Path(path), told["name"], told["seed"], treatments, dict(flattened(told))))
    if not found:
        raise ValueError(f"{key}={patterns!r} names no run: a run is a folder with a config.yaml")
    return found


def flattened(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a configuration by dotted key, lists whole: `module.optimizer.lr`."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from flattened(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
