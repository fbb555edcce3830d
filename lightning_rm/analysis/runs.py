"""Many runs side by side: deciles and prefixes of strength, recipes over seeds. It reads what runs wrote.

A run here is its folder and what it was told, as plain values. This file does not know who read its configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import numpy as np

from lightning_rm.checksums import check_file
from lightning_rm.told import object_of


def read_results(path: Path, name: object = None) -> dict[str, dict[str, float]]:
    """Return what a `results.json` holds: data set -> metric -> value.

    Args:
        path: the file.
        name: what an error calls it; None for its path.

    Raises:
        ValueError: if it holds something else.
    """
    name = path if name is None else name
    check_file(path)
    found = object_of(path.read_bytes(), name)
    for data_set, metrics in found.items():
        values = cast("dict[str, object]", metrics).values() if isinstance(metrics, dict) else [metrics]
        if not isinstance(metrics, dict) or not all(isinstance(value, int | float) for value in values):
            raise ValueError(f"{name} has something else than metrics of numbers for {data_set!r}")
    return {
        name: {key: float(value) for key, value in own_metrics(name, metrics, found).items()}
        for name, metrics in found.items()
    }


def own_metrics(data_set: str, metrics: Mapping[str, float], sets: Iterable[str]) -> Mapping[str, float]:
    """Return a set's metrics without those of other sets: `ood/accuracy` of `test` is that of the set `test/ood`.

    Runs have written these beside the subsets of `test`.
    """
    within = tuple(f"{name.removeprefix(f'{data_set}/')}/" for name in sets if name.startswith(f"{data_set}/"))
    return {key: value for key, value in metrics.items() if not key.startswith(within)}


@dataclass(frozen=True)
class Run:
    """One training run.

    Args:
        folder: where it lies.
        name: its recipe's name.
        seed: its seed.
        treatments: the options of its treatments by name.
        settings: every value of its configuration by dotted key, such as `module.beta`.
    """

    folder: Path
    name: str
    seed: int
    treatments: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def has_ended(self) -> bool:
        """Whether it has come to its end: results are what a run writes last."""
        return (self.folder / "results.json").is_file()

    def results(self) -> dict[str, dict[str, float]]:
        """Read `results.json`: data set -> metric -> value.

        Raises:
            ValueError: if the run has not come to its end, or the file holds something else.
        """
        if not self.has_ended:
            raise ValueError(f"{self.folder} has no results.json: the run has not ended; wait for it, or leave it out")
        return read_results(self.folder / "results.json")

    def value(self, metric: str) -> float:
        """Return one result by `SET/METRIC`: `test/accuracy`, `test/ood/accuracy` or, in short, `ood/accuracy`.

        Raises:
            ValueError: if the run has no such result.
        """
        return self._values()[self.full_key(metric)]

    def has(self, key: str) -> bool:
        """Tell whether it has a result, named by its whole key."""
        return key in self._values()

    def full_key(self, metric: str) -> str:
        """Return a result's whole key, of which `test/` may be left out where it is asked for.

        Raises:
            ValueError: if the run has no such result.
        """
        values = self._values()
        for key in (metric, f"test/{metric}"):
            if key in values:
                return key
        raise ValueError(f"{self.folder} has no result {metric!r}; it has {nearest(metric, values)} and others")

    def _values(self) -> dict[str, float]:
        return {f"{name}/{key}": value for name, metrics in self.results().items() for key, value in metrics.items()}

    def setting(self, key: str) -> object:
        """Return one value of its configuration by dotted key.

        Raises:
            ValueError: if the configuration has no such value.
        """
        if key not in self.settings:
            raise ValueError(
                f"{self.folder}: its config.yaml has no value {key!r}; it has {nearest(key, self.settings)} and others"
            )
        return self.settings[key]


NUM_NAMED = 4
"""Keys that an error names of those that there are."""


def nearest(key: str, known: Iterable[str]) -> str:
    """Return what a user may have meant: those that end alike first, then those spelled alike."""
    names = sorted(known)
    same_end = [name for name in names if re.split("[./]", name)[-1] == re.split("[./]", key)[-1]]
    found = [*same_end, *get_close_matches(key, names, n=NUM_NAMED, cutoff=0), *names]
    return ", ".join(list(dict.fromkeys(found))[:NUM_NAMED])


MODULE = "module._target_"
"""The key of what a run trained."""


def by_name(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return what runs are called -> those of one name and one module, in the order in which names first come up.

    A name may be the default that several trainings had: `baseline` of two modules is `baseline module=BaselineRM` and
    `baseline module=MetaRM`.
    """
    named: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        module = shown(run.settings.get(MODULE)).rpartition(".")[2]
        named.setdefault(run.name, {}).setdefault(module, []).append(run)
    return {
        name if len(by_module) == 1 else f"{name} module={module}": same
        for name, by_module in named.items()
        for module, same in by_module.items()
    }


def over_runs(values: Mapping[float, Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    """Return positions in order, and of each the mean and the spread of its runs' values: a series to draw."""
    positions = sorted(values)
    means = [float(np.mean(values[position])) for position in positions]
    return positions, means, [spread(values[position]) for position in positions]


def told_mean(values: Sequence[float], digits: int = 3) -> str:
    """Return the mean as a table says it, `0.712 ± 0.004`: with the spread where there are several values."""
    return f"{np.mean(values):.{digits}f}" + (f" ± {spread(values):.{digits}f}" if len(values) > 1 else "")


def mean_and_spread(name: str, values: Sequence[float]) -> dict[str, object]:
    """Return the mean under the name, and the spread under `<name> sd`: cells of a table's row."""
    return {name: float(np.mean(values)), f"{name} sd": spread(values)}


def spread(values: Sequence[float]) -> float:
    """Return the sample standard deviation; NaN for one value, whose spread nobody knows."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


PLACES = ("paths.", "logger.", "trainer.default_root_dir", "checkpoint.", "resume", "overwrite", "show")
"""Settings under these say where a run writes, and how it began and went on there, not what it does."""


def varied(groups: Iterable[Sequence[Run]]) -> list[str]:
    """Return keys of the settings in which runs of one group differ, except those of `PLACES`.

    One seed is read in many places: all keys that end in `seed` become one, `seeds`, which comes first.
    """
    keys: set[str] = set()
    for runs in groups:
        known = {key for run in runs for key in run.settings if not key.startswith(PLACES)}
        keys |= {key for key in known if len({shown(run.settings.get(key)) for run in runs}) > 1}
    others = sorted(key for key in keys if not key.endswith("seed"))
    return [*(["seeds"] if len(others) < len(keys) else []), *others]


def shown(value: object) -> str:
    """Return a setting as people write it: `0.1`, `5e-06`, `simcse`, `true`, `null`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)
