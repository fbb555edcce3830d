"""`lightning-rm analyze`: tables and figures of preference strength and of the runs that were trained by it."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lightning_rm.analysis.runs import Run, decile_report, prefix_report, recipe_report
from lightning_rm.analysis.strength_report import read_strength, strength_report
from lightning_rm.commands._config import conf_dir, plain_errors


def analyze(cfg: DictConfig) -> list[Path]:
    """Write every report that its inputs are named for.

    Args:
        cfg: `conf/analyze.yaml`, composed.

    Returns:
        The files written.
    """
    out = Path(cfg.out)
    console = Console()
    written: list[Path] = []
    if all(value is None for value in (cfg.strength, cfg.deciles, cfg.prefixes, cfg.recipes)):
        raise ValueError("there is nothing to analyze; name strength=FILE.parquet, deciles=, prefixes= or recipes=")
    if cfg.strength is not None:
        numbers, files = strength_report(read_strength(cfg.strength), out)
        (out / "strength.json").write_text(json.dumps(numbers, indent=2) + "\n")
        for name, value in numbers.items():
            console.print(f"{name:>24}  {value:,.4g}", highlight=False)
        written += [*files, out / "strength.json"]
    if cfg.deciles is not None:
        written += decile_report(find_runs("deciles", cfg.deciles), cfg.metric, cfg.reference, out)
    if cfg.prefixes is not None:
        written += prefix_report(find_runs("prefixes", cfg.prefixes), cfg.metric, out)
    if cfg.recipes is not None:
        written += recipe_report(find_runs("recipes", cfg.recipes), list(cfg.metrics), out)
    for path in written:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    return written


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
                told: Any = OmegaConf.load(config)
                treatments = cast(
                    "dict[str, Any]", OmegaConf.to_container(told.get("treatment") or OmegaConf.create({}))
                )
                found.append(Run(Path(path), told.name, told.seed, treatments))
    if not found:
        raise ValueError(f"{key}={patterns!r} names no run: a run is a folder with a config.yaml")
    return found


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="analyze")
def main(cfg: DictConfig) -> None:
    """The Hydra entry point."""
    with plain_errors():
        analyze(cfg)


if __name__ == "__main__":
    main()
