"""What a user may set, and what to say of an unknown key: before anything heavy is imported, and before Hydra.

Hydra takes `+lr=1e-3` for a key that somebody will read, and proposes it for every key that it does not know. Here a
key is known if the configuration has it with the groups that are chosen, if it is an argument of the callable that its
place in the configuration names, or if it is an entry of a mapping that a user fills, such as `data.columns`.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lightning_rm.commands._config import conf_dir, defaults_of, dotted, followed, source_of
from lightning_rm.commands._kinds import misread_number
from lightning_rm.commands._other_names import ALSO, NAMED_BY, OF_CHOICES, OTHER_NAMES
from lightning_rm.commands._targets import check_hydra, find_object
from lightning_rm.commands._words import parse
from lightning_rm.told import check_aliases

OPEN = (
    *("backbone.model.config", "features", "policy_optimizer.args"),
    *("data.columns", "data.where", "module.attributes"),
)
"""Mappings with entries in the configuration, or in an experiment, that take others too, which are checked where they
are read."""

WHOLE = ("module.attributes",)
"""Mappings that are given whole: an experiment's is replaced, where Hydra would put the two together."""

ADDED = ("data.columns", "data.where")
"""Mappings whose entries are added to those of an experiment or a data set, where Hydra would want a +."""

TEXTS_TOO = ("trainer.deterministic", "logger.loggers.wandb.log_model")
"""Keys whose value is true, false, or one of some words."""

NULL_TOO = ("data.", "responses.", "reference")
"""How keys begin that have to be given, and may be null: a set may have no file, and nobody may know the reference."""

MAPPINGS = ("chat_template_kwargs",)
"""Keys that are null or a mapping."""

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
    """

    values: dict[str, object]
    groups: set[str]
    run_dir: str


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
    if more is not None and not (place / f"{verb}.yaml").is_file():  # which Hydra looks for in the first folder alone
        place, more = more, place
    for folder_of_others in (more, None if path is None else place):
        for file in [] if folder_of_others is None else sorted(folder_of_others.rglob("*.yaml")):
            check_aliases(file)
    search = [f"hydra.searchpath=[file://{more}]"] if more else []
    with initialize_config_dir(str(place), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        # Of groups that a configuration is not made of nobody reads what is chosen.
        groups = set(defaults_of(place / f"{verb}.yaml")).intersection(_group_names(place))
        own = frozenset(groups)
        if more:
            groups |= set(_group_names(more))
        chosen: list[list[str]] = []
        for override in overrides:
            override.config_loader = loader  # glob(*) looks a group's choices up
            # Hydra takes 30 ms to say that a value is not a group.
            key = override.key_or_group
            options = loader.get_group_options(key) if key in groups or key.startswith("hydra/") else []
            if more:
                options += [file.stem for file in sorted((more / key).glob("*.yaml"))]
            if options and override.is_add() and key in own:
                raise ValueError(f"{override.input_line}: {key} has a choice already; write it without the +")
            if options and not override.is_delete():
                _check_choices(override, options)
                if override.is_sweep_override() and not _values(override):
                    raise ValueError(f"{override.input_line} fits no choice; there are {', '.join(options)}")
            if options or override.is_delete():
                chosen.append(_single(override))
        found: dict[str, object] = {}
        run_dir = ""
        for words in _one_by_one(chosen):
            try:
                cfg = compose(verb, overrides=[*search, *words], return_hydra_config=True)
            except (YAMLError, RecursionError) as error:  # the latter where it is nested too deep
                where = f" in {folder}" if folder else ""
                raise ValueError(f"{' '.join(words)}: a yaml{where} cannot be read: {error}") from error
            except (HydraException, OmegaConfBaseException) as error:
                if isinstance(error, MissingConfigException) and error.missing_cfg_file in EXTRA_OF:
                    extra = EXTRA_OF[error.missing_cfg_file]
                    raise ValueError(f"{' '.join(words)}: this needs pip install 'lightning-rm[{extra}]'") from error
                raise ValueError(str(error).strip()) from error
            check_hydra(cfg.hydra)
            values = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
            run_dir = values.pop("hydra")["run"]["dir"]
            found |= dict(dotted(values))
    return Choice(found, groups, run_dir)


def check_keys(verb: str, arguments: Sequence[str], folder: str | None = None) -> Choice:
    """Check the keys of a command line, and return the configuration that it chooses.

    Args:
        verb: the command.
        arguments: its `key=value` words.
        folder: another folder to look for groups in.

    Raises:
        ValueError: if a word cannot be read, a group has no such choice, a key is unknown (it names the nearest), or a
            value would be misread: NaN, a text for a number or for true or false, null for what has to be given, and
            anything but a mapping where one is needed.
    """
    overrides = parse(arguments)
    choice = compose_choices(verb, overrides, folder)
    inside: dict[str, list[str]] = {}  # the keys of the mapping that a key is set to
    for override in overrides:
        key, given = override.key_or_group, cast(Any, override.value() if not override.is_sweep_override() else None)
        inside[key] = [inner for inner, _ in dotted(given, f"{key}.")]
    named = [*inside, *itertools.chain.from_iterable(inside.values())]
    targets = {key.removesuffix("._target_") for key in named if key.endswith("._target_")}
    told: list[str] = []
    for override in overrides:
        key = override.key_or_group
        if override.is_delete() or key in choice.groups or key == "hydra" or key.startswith(("hydra.", "hydra/")):
            continue
        keys = [key, *inside[key]] if key in choice.values else [key]
        told += [_unknown(name, choice) for name in keys if not _is_known(name, choice, targets)]
        if not told and key not in choice.values and not (override.is_add() or override.is_force_add()):
            told.append(f"{key} has no value that could be changed; +{override.input_line} adds one")
        for each in _values(override):
            values = ((key, each), *dotted(each, f"{key}."))
            for name, value in values:
                first = choice.values.get(source_of(name, choice.values))
                fault = _misread(name, value, choice.values.get(name)) or misread_number(name, value, first)
                told += [fault] if fault else []
    if told:
        raise ValueError("; ".join(told))
    return choice


def with_mappings(words: Sequence[str]) -> list[str]:
    """Return the `key=value` words as Hydra has to be told them for the mappings of `WHOLE` and `ADDED` to be so.

    module.attributes={a: 1} -> module.attributes=null module.attributes={a: 1}, data.where={a: 1} -> +data.where={a: 1}
    """
    told: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        is_mapping = value.startswith("{")
        told += [f"{key}=null"] if is_mapping and key in WHOLE else []
        told.append(f"+{word}" if is_mapping and key in ADDED else word)
    return told


def without_choices(verb: str, words: Sequence[str]) -> list[str]:
    """Return the `key=value` words as Hydra has to be told them that groups which may have no choice are to have none.

    peft=null -> ~peft, treatment=null -> treatment=[]; of a group that is given twice the last word holds
    """
    optional = {key: choice for key, choice in defaults_of(Path(conf_dir()) / f"{verb}.yaml").items() if not choice}
    last = {word.partition("=")[0]: word for word in words}
    told: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if value != "null" or key not in optional:
            told.append(word)
        elif last[key] == word:
            told.append(f"~{key}" if optional[key] is None else f"{key}=[]")
    return told


def nearest(key: str, known: Mapping[str, object]) -> str | None:
    """Return the known key that an unknown one was probably meant to be; None if that is not clear.

    lr -> optimizer.lr    data.batch_size -> data.batch_pairs    trainer.max_epoch -> trainer.max_epochs
    """
    parent, _, name = key.rpartition(".")
    if here := [also for also in ALSO.get(name, ()) if also in known]:
        return here[0]
    other = OTHER_NAMES.get(name, "")
    if other in known or other.startswith("hydra."):
        return other
    if other in OF_CHOICES and other.partition(".")[0] in known:
        return OF_CHOICES[other]
    same = [own for own in known if own.rpartition(".")[2] == name]
    same = [own for own in same if not followed(known[own]) & set(same)] or same
    if same:
        return max(same, key=lambda own: difflib.SequenceMatcher(None, own, key).ratio())
    siblings = {own.rpartition(".")[2]: own for own in known if parent and own.rpartition(".")[0] == parent}
    begun = [sibling for sibling in siblings if sibling.startswith(name) or name.startswith(sibling)]
    if close := difflib.get_close_matches(name, siblings, 1, 0.6) or begun[:1]:
        return _source(siblings[close[0]], known)
    if close := difflib.get_close_matches(key, known, 1, 0.6):
        return _source(close[0], known)
    tails = {own.rpartition(".")[2]: own for own in known}
    close = difflib.get_close_matches(name, tails, 1, 0.75)
    return _source(tails[close[0]], known) if close else None


def _is_known(key: str, choice: Choice, targets: set[str]) -> bool:
    known = choice.values
    if key in known or (key in targets and "." in key):
        return True
    parts = key.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        above, name = ".".join(parts[:depth]), parts[depth]
        if above in targets or above in OPEN or f"{above}._target_" == key:
            return True
        if f"{above}._target_" in known:
            return _takes(str(known[f"{above}._target_"]), name)
        if above in known:  # a mapping that a user fills is empty, or not there yet; a group is filled by a choice
            return above not in choice.groups and known[above] in (None, {}, "???")
    return parts[-1] == "_target_" and len(parts) > 1 and ".".join(parts[:-1]) in known


def _takes(target: str, name: str) -> bool:
    """Tell whether a callable has an argument of this name."""
    if name.startswith("_") and name.endswith("_"):  # Hydra's own: _partial_, _convert_
        return True
    parameters = inspect.signature(find_object(target)).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _unknown(key: str, choice: Choice) -> str:
    parts = key.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        group = ".".join(parts[:depth])
        is_free = group in choice.groups and f"{group}.{parts[depth]}" not in choice.values
        if is_free and (having := _choices_with(group, parts[depth])):
            choices = " and ".join(f"{group}={one}" for one in having[:3])
            return f"there is no key {key} here; {choices} {'have' if len(having) > 1 else 'has'} one"
    other = OTHER_NAMES.get(parts[-1])
    near = other if other in choice.groups else nearest(key, choice.values)
    if near is None and (groups := difflib.get_close_matches(key, choice.groups, 1, 0.6)):
        near = groups[0]
    hint = f"the nearest is {near}" if near else "--help shows them all"
    return f"there is no key {key}; {hint}"


def _source(key: str, known: Mapping[str, object]) -> str:
    """Return the key whose value an inner one takes: `data.max_tokens` for `data.module.max_tokens`."""
    if key.count(".") < 2:
        return key
    named = [name for name in followed(known[key]) if name in known]
    return named[0] if len(named) == 1 and not isinstance(known[key], dict) else key


def _choices_with(group: str, name: str) -> list[str]:
    """Return the choices of a group whose own file has a key of this name."""
    files = sorted((Path(conf_dir()) / group).glob("*.yaml"))
    return [
        path.stem
        for path in files
        if re.search(rf"^{re.escape(name)}:", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def _check_choices(override: Override, options: Sequence[str]) -> None:
    """Check that a group has what it is set to."""
    for choice in (one for each in _values(override) for one in (each if isinstance(each, list) else [each])):
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


def _values(override: Override) -> list[Any]:
    """Return what a key is set to, by each job of a sweep."""
    if not override.is_sweep_override():
        return [override.value()]
    return list(override.sweep_iterator()) if override.is_discrete_sweep() else []


def _misread(key: str, value: object, default: object) -> str | None:
    """Return what is wrong with a value that would pass for another: `no` is a text for Hydra, and so is true."""
    if isinstance(value, float) and math.isnan(value):
        return f"{key}=nan is not a number; give one"
    if value is None and default == "???" and not key.startswith(NULL_TOO):
        return f"{key}=null: it has to be given"
    is_mapping = isinstance(default, dict) or key in MAPPINGS
    if is_mapping and not (value is None or isinstance(value, dict) or "${" in str(value)):
        return f"{key}={value}; give a mapping: {key}={{NAME: VALUE}}"
    if not (isinstance(default, bool) and isinstance(value, str)) or key in TEXTS_TOO or "${" in value:
        return None
    return f"{key}={value}; give true or false"


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
