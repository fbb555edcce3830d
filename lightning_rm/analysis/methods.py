"""Runs by method and block: which repeat one another, and which are compared pair by pair. It knows no metric.

A block is the seeds and the world that a run was made with: runs of two methods on one block saw the same draws, so
that their difference is one of methods. Runs of one name and one module are one method as long as no two of them share
a block; where they do, the settings in which they differ make methods of their own:

    name baseline, seeds 0 1 2                                ->  baseline (3 blocks)
    name baseline, seed 0 a BaselineRM, seed 1 a MetaRM       ->  baseline module=BaselineRM, baseline module=MetaRM
    name simcse, seeds 0 1 and 0 1, beta 0.1 and 1            ->  simcse beta=0.1 (2), simcse beta=1 (2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_rm.analysis.runs import PLACES, Run, by_name, shown
from lightning_rm.analysis.words import unlike

Block = tuple[str, ...]
"""The seed, those of the data's own seeds in which runs differ, and others that tell runs of one name apart."""

NUM_NAMED = 3
"""The most settings in a method's name; the others are counted."""

TARGET, HOW_MADE = "._target_", ("._partial_", "._convert_")
"""Endings of keys that name a class, and of those that say how it is called, which tell a reader nothing."""


@dataclass(frozen=True)
class Method:
    """Runs that repeat one another, one a block.

    Args:
        name: what they are called.
        runs: block -> run.
    """

    name: str
    runs: Mapping[Block, Run]


def methods_of(runs: Sequence[Run]) -> tuple[list[Method], list[tuple[Run, Run]]]:
    """Return methods in the order in which their names first come up.

    Args:
        runs: any.

    Returns:
        The methods; and the runs that repeat another in every setting, each with the one that counts: the last of those
        that have ended, where any has.
    """
    named = by_name(runs)
    worlds = _worlds(runs, list(named.values()))
    methods: list[Method] = []
    repeated: list[tuple[Run, Run]] = []
    for name, same in named.items():
        for label, members in _split(name, same, worlds).items():
            label = unlike(label, [method.name for method in methods])
            blocks: dict[Block, Run] = {}
            for run in members:
                block = block_of(run, worlds)
                if run.has_ended or not blocks.setdefault(block, run).has_ended:
                    blocks[block] = run
            repeated += [(run, counts) for run in members if (counts := blocks[block_of(run, worlds)]) is not run]
            methods.append(Method(label, blocks))
    return methods, repeated


def block_of(run: Run, worlds: Sequence[str]) -> Block:
    """Return the seeds and the world of a run."""
    return (str(run.seed), *(shown(run.settings.get(key)) for key in worlds))


def differing(methods: Sequence[Method]) -> list[tuple[str, int, dict[str, str]]]:
    """Return the settings in which methods differ from one another, or runs of one of them.

    What always has the same values, such as an option and those that follow it, stands once, under its shortest key; a
    class stands by its name under what it is made for. Seeds and places are left out.

    Returns:
        For each setting its key, how many others have the same values, and method -> value; several values of one
        method's runs stand beside one another, a setting that a run does not have is a dash.
    """
    runs = [run for method in methods for run in method.runs.values()]
    by_values: dict[tuple[str, ...], list[str]] = {}
    keys = _varied(runs)
    for key in keys:
        is_whole = any(other.startswith(f"{key}.") for other in keys)  # `contrast: null` beside `contrast.samples`
        if not _is_seed(key) and not is_whole and not key.endswith(HOW_MADE):
            by_values.setdefault(tuple(_shown(run, key) for run in runs), []).append(key)
    found: list[tuple[str, int, dict[str, str]]] = []
    for same in by_values.values():
        key = min(same, key=_length)
        values = {
            method.name: ", ".join(dict.fromkeys(_shown(run, key) for run in method.runs.values()))
            for method in methods
        }
        found.append((key.removesuffix(TARGET), len(same) - 1, values))
    return sorted(found)


def _worlds(runs: Sequence[Run], named: Sequence[Sequence[Run]]) -> list[str]:
    """Return the keys of a block beside the seed: seeds of the data, and those that every run has and that tell runs of
    one name apart, such as `init_seed`; one that follows another tells nothing more.
    """
    seeds = [key for key in _varied(runs) if _is_seed(key) and not _is_copy(key)]
    worlds = [key for key in seeds if key.startswith("data.")]
    for key in sorted(seeds, key=_length):
        if key not in worlds and all(key in run.settings for run in runs):
            without, with_it = (
                [len({block_of(run, keys) for run in same}) for same in named] for keys in (worlds, [*worlds, key])
            )
            worlds += [key] * (without != with_it)
    return worlds


def _split(name: str, runs: Sequence[Run], worlds: Sequence[str]) -> dict[str, list[Run]]:
    """Label -> runs that share no block, or nothing but their settings."""
    blocks = [block_of(run, worlds) for run in runs]
    if len(set(blocks)) == len(blocks):
        return {name: list(runs)}
    by_block: dict[Block, list[Run]] = {}
    for block, run in zip(blocks, runs, strict=True):
        by_block.setdefault(block, []).append(run)
    # The settings that tell runs of one block apart, each set of equal ones under its shortest key.
    by_values: dict[tuple[str, ...], str] = {}
    for same in by_block.values():
        for key in _varied(same):
            values = tuple(_shown(run, key) for run in runs)
            by_values[values] = min(by_values.get(values, key), key, key=_length)
    keys = sorted(by_values.values(), key=lambda key: (not key.endswith(TARGET), key))  # what a run is, first
    named, rest = keys[:NUM_NAMED], keys[NUM_NAMED:]
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(_shown(run, key) for key in keys), []).append(run)
    labels: dict[str, list[Run]] = {}
    folders = [members[0].folder.name for members in found.values() if len(members) == 1]
    is_told = len(set(folders)) == len(found)  # by its folder, each: more than a number says
    for place, (values, members) in enumerate(found.items()):
        shown_keys = (f"{key.removesuffix(TARGET)}={value}" for key, value in zip(named, values, strict=False))
        label = " ".join([name, *shown_keys])
        told = members[0].folder.name if is_told else f"settings {place}"
        labels[f"{label} ({told})" if rest else label] = members
    return labels


def _varied(runs: Sequence[Run]) -> list[str]:
    """Return the keys whose values differ between runs, except places."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if not key.startswith(PLACES) and key != "name")
    return sorted(key for key in keys if len({_shown(run, key) for run in runs}) > 1)


def _shown(run: Run, key: str) -> str:
    """Return a setting as it is displayed: a class by its name, a missing one as a dash."""
    if key not in run.settings:
        return "–"
    value = shown(run.settings[key])
    return value.rpartition(".")[2] if key.endswith(TARGET) else value


def _length(key: str) -> tuple[int, int, str]:
    """Return a sort key that puts the shortest configuration keys first."""
    return key.count("."), len(key), key


def _is_seed(key: str) -> bool:
    return key.endswith("seed")


def _is_copy(key: str) -> bool:
    """Tell whether a key is an argument of the data module, which follows an option of the data."""
    return key.startswith("data.module.")
