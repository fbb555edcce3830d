"""A command's configuration with the groups that its words choose, composed before anything heavy is imported."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lightning_rm.commands._config import conf_dir, defaults_of, dotted
from lightning_rm.commands._other_names import NAMED_BY, OF_CHOICES
from lightning_rm.commands._quoting import at_home, quoted
from lightning_rm.commands._targets import check_hydra
from lightning_rm.told import check_aliases

EXTRA_OF = {
    "hydra/launcher/joblib": "sweep",
    "hydra/launcher/ray": "ray",
    "hydra/launcher/submitit_local": "sweep",
    "hydra/launcher/submitit_slurm": "sweep",
    "hydra/sweeper/optuna": "sweep",
}
"""What a plugin of Hydra brings -> the extra of this package that installs it."""


class Choice(NamedTuple):
    """A command's configuration with the groups that are chosen, as it stands without other values.

    Args:
        values: dotted key -> value, of containers too; nothing is resolved.
        groups: the names of the groups that can be chosen.
        run_dir: the folder of a run where none is named.
        is_multirun: whether a yaml asks for a sweep.
        at_home: words with the home folder written out, for Hydra's own folders that a yaml has in ~/.
    """

    values: dict[str, object]
    groups: set[str]
    run_dir: str
    is_multirun: bool
    at_home: list[str]


def compose_choices(
    verb: str, overrides: Sequence[Override], folder: str | None = None, path: str | None = None
) -> Choice:
    """Return a command's configuration with the groups that overrides choose; of a sweep over groups, all of them
    together.

    Args:
        verb: the command, or the name of another configuration.
        overrides: of its command line.
        folder: another folder to look for groups in.
        path: the folder that the configuration lies in, absolute or as seen from this file's; None for `conf/`.

    Raises:
        ValueError: if a group has no such choice, or a yaml unpacks to gigabytes or has Hydra call what is not
            Hydra's.
    """
    place = Path(conf_dir()) if path is None else Path(__file__).parent / path
    more = Path(folder).absolute() if folder else None
    if more is not None and not more.is_dir():
        raise ValueError(f"--config-dir={folder}: there is no such folder")
    if more is not None and not (place / f"{verb}.yaml").is_file():  # which Hydra looks for in the first folder alone
        place, more = more, place
    for folder_of_others in (more, None if path is None else place):
        for file in [] if folder_of_others is None else sorted(folder_of_others.rglob("*.yaml")):
            check_aliases(file)
    search = [f"hydra.searchpath=[file://{more}]"] if more else []
    with initialize_config_dir(str(place), version_base="1.3"):
        # Of groups that a configuration is not made of nobody reads what is chosen.
        usual = defaults_of(place / f"{verb}.yaml")
        own = set(usual).intersection(_group_names(place))
        needed = {group for group in own if usual[group]}
        groups = own.union(_group_names(more) if more else ())
        chosen = [words for override in overrides if (words := _chosen(override, own, needed, groups, more))]
        found: dict[str, object] = {}
        hydra: dict[str, Any] = {}
        for words in _one_by_one(chosen):
            values = _composed(verb, words, search, folder)
            hydra = values.pop("hydra")
            found |= dict(dotted(values))
    folders = {f"hydra.{mode}.dir": str(hydra[mode]["dir"]) for mode in ("run", "sweep")}
    homes = {key: at_home(folder) for key, folder in folders.items()}
    words_at_home = [f"{key}={quoted(home)}" for key, home in homes.items() if home != folders[key]]
    return Choice(found, groups, homes["hydra.run.dir"], hydra["mode"] == RunMode.MULTIRUN, words_at_home)


def _chosen(override: Override, own: Set[str], needed: Set[str], groups: Set[str], more: Path | None) -> list[str]:
    """Return the words of an override that chooses or deletes, one for each choice of a sweep; none of another."""
    override.config_loader = loader = GlobalHydra.instance().config_loader()  # glob(*) looks a group's choices up
    # Hydra takes 30 ms to say that a value is not a group.
    key = override.key_or_group
    options = loader.get_group_options(key) if key in groups or key.startswith("hydra/") else []
    options += [file.stem for file in sorted((more / key).glob("*.yaml"))] if more else []
    if override.is_delete():
        if key in needed:
            raise ValueError(f"{override.input_line}: a group has a choice; there are {', '.join(options)}")
        return _single(override)
    if not options:
        return []
    if override.is_add() and key in own:
        raise ValueError(f"{override.input_line}: {key} has a choice already; write it without the +")
    _check_choices(override, options)
    if override.is_sweep_override() and not values_of(override):
        raise ValueError(f"{override.input_line} fits no choice; there are {', '.join(options)}")
    return _single(override)


def _composed(verb: str, words: Sequence[str], search: Sequence[str], folder: str | None) -> dict[str, Any]:
    """Return what Hydra composes, nothing resolved, with its own part."""
    told = " ".join(words)
    try:
        cfg = compose(verb, overrides=[*search, *words], return_hydra_config=True)
    except (YAMLError, RecursionError) as error:  # the latter where it is nested too deep
        where = f" in {folder}" if folder else ""
        raise ValueError(f"{told}: a yaml{where} cannot be read: {error}") from error
    except (HydraException, OmegaConfBaseException) as error:
        if isinstance(error, MissingConfigException) and error.missing_cfg_file in EXTRA_OF:
            extra = EXTRA_OF[error.missing_cfg_file]
            raise ValueError(f"{told}: this needs pip install 'lightning-rm[{extra}]'") from error
        raise ValueError(str(error).strip()) from error
    check_hydra(cfg.hydra)
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))


def values_of(override: Override) -> list[Any]:
    """Return what a key is set to, by each job of a sweep."""
    if not override.is_sweep_override():
        return [override.value()]
    return list(override.sweep_iterator()) if override.is_discrete_sweep() else []


def _check_choices(override: Override, options: Sequence[str]) -> None:
    """Check that a group has what it is set to."""
    for choice in (one for each in values_of(override) for one in (each if isinstance(each, list) else [each])):
        if choice is None:
            apart = "; in a sweep null is no choice: run it apart" if override.is_sweep_override() else ""
            told = f"a group has a choice; there are {', '.join(options)}"
            raise ValueError(f"{override.key_or_group}=null: {told}{apart}")
        if str(choice) not in options:
            close = difflib.get_close_matches(str(choice), options, 1, 0.5)
            hint = f"the nearest is {close[0]}; " if close else ""
            if override.key_or_group in NAMED_BY and (re.search(r"[./]", str(choice)) or Path(str(choice)).exists()):
                hint = f"name a file or folder with {OF_CHOICES[NAMED_BY[override.key_or_group]]}; "
            raise ValueError(
                f"{override.key_or_group}={choice}: there is no such choice; {hint}there are {', '.join(options)}"
            )


def _single(override: Override) -> list[str]:
    """Return the words of a group's override, one for each choice that a sweep makes."""
    line = override.input_line or ""
    if not override.is_sweep_override():
        return [line]
    name = line.partition("=")[0]
    return [f"{name}={choice}" for choice in override.sweep_string_iterator()]


def _one_by_one(chosen: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yield every choice of every group at least once, beside the first choices of the others."""
    firsts = [words[0] for words in chosen]
    yield firsts
    for place, words in enumerate(chosen):
        for word in itertools.islice(words, 1, None):
            yield [*firsts[:place], word, *firsts[place + 1 :]]


def _group_names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and any(path.glob("*.yaml")) and not re.search(r"__|/\.", str(path)):
            yield path.relative_to(folder).as_posix()
