"""What a run's folder says of its model: how it was trained, on what, and what was measured.

It reads `config.yaml`, `results.json`, `data.json` and `pairs/*.parquet`, as `lightning-rm train` writes them. It knows
files; no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from lightning_rm.checksums import check_file
from lightning_rm.parquet_files import read_parquet
from lightning_rm.publishing.card import Measured
from lightning_rm.publishing.facts import Reference, accuracy_interval
from lightning_rm.scoring.load import check_not_above_runs
from lightning_rm.told import json_of, read_object, read_yaml

SETTINGS = (
    "data.batch_pairs",
    "data.batch_tokens",
    "data.step_pairs",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.accumulate_grad_batches",
    "trainer.precision",
    "module.optimizer._target_",
    "module.optimizer.lr",
    "module.optimizer.weight_decay",
    "module.head_lr",
    "backbone.model.lora.rank",
    "backbone.model.adapter.r",
    "members.num_members",
)
"""The settings that the card shows, where they are set."""

SCORES = ("score_correlation", "score_rank_correlation")
"""The results of a set of scored responses: of one without pairs the card shows no others."""

FIGURES = ("nll", "brier", "calibration_error", "length_accuracy", "tie_rate", "clean_accuracy", *SCORES)
"""The results of a set that the card shows beside its accuracy."""


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run that its card tells.

    Args:
        name: of the run.
        base: the model that it began with; None for random weights.
        method: the class of its module.
        treatments: name -> options.
        seeds: name -> value.
        settings: dotted key -> value.
        data: one report a data set.
        max_tokens: of a conversation in training.
        measured: its best weights' figures.
        reference: the best weights' rewards on the validation pairs; None where it has none.
    """

    name: str
    base: str | None = None
    method: str | None = None
    treatments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    seeds: Mapping[str, object] = field(default_factory=dict[str, object])
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    data: Sequence[Mapping[str, Any]] = ()
    max_tokens: int | None = None
    measured: Sequence[Measured] = ()
    reference: Reference | None = None


def read_run(run: Path, others: Sequence[Path] = ()) -> RunFacts:
    """Return the facts of a run.

    Args:
        run: its folder.
        others: runs that differ from it in their seed alone, for the spread of its figures; it may be one of them.

    Raises:
        ValueError: if the folder is not a run, its files cannot be read, or another run is of another recipe.
    """
    config = _config(run)
    for other in others:
        _check_recipe(run, config, other)
    seeds = {name: config[name] for name in ("seed", "init_seed") if config.get(name) is not None}
    world = _at(config, "data.world_seed")
    data_file = run / "data.json"
    check_file(data_file)
    return RunFacts(
        name=str(config.get("name", run.name)),
        base=_at(config, "backbone.path"),
        method=str(_at(config, "module._target_")).rpartition(".")[2],
        treatments={name: options or {} for name, options in (config.get("treatment") or {}).items()},
        seeds=seeds if world is None else {**seeds, "world_seed": world},
        settings={key: value for key in SETTINGS if (value := _at(config, key)) is not None},
        data=json_of(data_file.read_bytes(), data_file) if data_file.is_file() else (),
        max_tokens=_at(config, "data.max_tokens"),
        measured=_measured(run, others),
        reference=_reference(run),
    )


def _config(run: Path) -> dict[str, Any]:
    path = run / "config.yaml"
    if not path.is_file():
        check_not_above_runs(run)
        raise ValueError(
            f"{run} is not a run, there is no config.yaml in it; name a folder that lightning-rm train wrote"
        )
    told = read_yaml(path)
    if not isinstance(told, dict):
        raise ValueError(f"{path} is not a run's configuration")
    return cast("dict[str, Any]", told)


def _at(config: Mapping[str, Any], key: str) -> Any:
    """Return a value by dotted key; None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = cast("dict[str, Any]", value).get(part) if isinstance(value, dict) else None
    return value


def _check_recipe(run: Path, config: Mapping[str, Any], other: Path) -> None:
    theirs = _config(other)
    for key in ("module._target_", "treatment", "backbone.path", "data.max_tokens", "data.batch_pairs"):
        if _at(config, key) != _at(theirs, key):
            raise ValueError(
                f"{other} has {key}={_at(theirs, key)} and {run} has {_at(config, key)}: the spread over seeds is of "
                "runs that differ in their seed alone; leave it out"
            )


def _results(run: Path) -> dict[str, dict[str, float]]:
    path = run / "results.json"
    check_file(path)
    return read_object(path) if path.is_file() else {}


def _measured(run: Path, others: Sequence[Path]) -> list[Measured]:
    """Return the figures of every set whose pairs were recorded, validation first."""
    results = _results(run)
    runs = {path.resolve(): _results(path) for path in (run, *others)}
    found: list[Measured] = []
    for path in sorted(
        (run / "pairs").glob("*.parquet"), key=lambda path: (not path.stem.startswith("val_"), path.stem)
    ):
        stage, _, name = path.stem.partition("_")
        key = stage if name == stage else f"{stage}/{name}"
        if stage not in ("val", "test") or key not in results:
            continue
        pairs = _pairs(path)
        is_of_pairs = bool((pairs["label"] != 0.5).any())
        accuracies = [figures[key]["accuracy"] for figures in runs.values() if is_of_pairs and key in figures]
        spread = (float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))) if len(accuracies) > 1 else None
        shown = FIGURES if is_of_pairs else SCORES
        figures = {figure: value for figure in shown if (value := results[key].get(figure)) is not None}
        finite = {figure: value for figure, value in figures.items() if np.isfinite(value)}
        interval = accuracy_interval(pairs["chosen"], pairs["rejected"], pairs["label"]) if is_of_pairs else None
        found.append(Measured(key, len(pairs["label"]), interval, spread, len(accuracies), finite))
    return found


def _reference(run: Path) -> Reference | None:
    paths = sorted((run / "pairs").glob("val_*.parquet"))
    if not paths:
        return None
    tables = [_pairs(path) for path in paths]
    chosen, rejected, label = (
        np.concatenate([table[name] for table in tables]) for name in ("chosen", "rejected", "label")
    )
    names = [path.stem.removeprefix("val_") for path in paths]
    return Reference.of_pairs(f"validation ({', '.join(names)})", chosen, rejected, label)


def _pairs(path: Path) -> dict[str, Any]:
    check_file(path)
    table = read_parquet(path, columns=["chosen", "rejected", "label"])
    return {name: table[name].to_numpy() for name in table.column_names}
