"""What a configuration may build: objects of this package and of the libraries that it depends on, and no others.

Hydra calls whatever a `_target_` names, so that a yaml from somebody else is a program. Here one that names something
else is refused, unless the command line says `allow_targets=true`: no yaml can say so for itself. Nor can one let a
model run code that it brings, or have Hydra call something before a command begins. It knows names and what they lead
to; it builds nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

KNOWN = ("lightning_rm", "lightning", "pytorch_lightning", "torch.optim", "torch.nn", "peft", "bitsandbytes.optim")
"""Packages whose objects a configuration may build."""

FUNCTIONS_OF = ("lightning_rm", "torch.nn.functional", "torch.nn.init")
"""Packages whose functions may be called too: some of the others' import and call what a word names, or unpickle."""

CLOSED = ("lightning_rm.commands", "lightning.pytorch.cli", "pytorch_lightning.cli")
"""Parts of these packages that run command lines, which can say anything."""

BY_NAME = ("wandb.Settings",)
GETTERS = ("hydra.utils.get_method", "hydra.utils.get_class", "hydra.utils.get_object")
"""Functions that return what their `path` names."""

HYDRAS = ("hydra._internal", "hydra.experimental.callbacks", "hydra_plugins", "optuna.samplers")
"""Packages whose classes Hydra itself may be told to build: callbacks, launchers, sweepers."""

LOGGED_BY = ("logging", "colorlog")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
"""What Hydra's logs may be written by, and the only objects that they may name."""

CODE = "trust_remote_code"
"""The key that lets a model run code that it brings."""

ALLOWED = "LIGHTNING_RM_ALLOW_TARGETS"
"""The environment variable that stands for the word, so that ranks and workers that are started have it too."""


def take_word(words: Sequence[str]) -> list[str]:
    """Return a command line without `allow_targets=`, which is remembered.

    Raises:
        ValueError: if it is neither true nor false.
    """
    left: list[str] = []
    for word in words:
        name, sign, value = word.partition("=")
        if name != "allow_targets" or not sign:
            left.append(word)
        elif value.lower() not in ("true", "false"):
            raise ValueError(f"{word}: say allow_targets=true or allow_targets=false")
        else:
            os.environ[ALLOWED] = str(int(value.lower() == "true"))
    return left


def is_allowed() -> bool:
    """Tell whether a command line allows it: this process's, or that of the process which started this one.

    A yaml cannot, although it can set any environment variable for a job (`hydra.job.env_set`). Where it is allowed,
    modules of the working folder are found too, behind all that is installed.
    """
    if os.environ.get(ALLOWED) != "1":
        return False
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra and ALLOWED in hydra.job.env_set and not any(ALLOWED in word for word in hydra.overrides.hydra):
        return False
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    return True


def check_targets(cfg: DictConfig, where: str = "the configuration") -> None:
    """Look at every `_target_` before anything is built, and at whether a model may run code that it brings.

    Values are looked at as they come out: `${oc.create:{_target_: os.system}}` is a text until then.

    Raises:
        ValueError: if one leads out of the known packages, or a yaml alone trusts a model; it names the key and the way
            out.
    """
    if is_allowed():
        return
    for key, values in mappings(cfg):
        for name, target in _called(values):
            if not is_known(target):
                raise ValueError(
                    f"{_below(key, name)}={target!r}: {where} names something outside this package and its libraries, "
                    "which would be run; add allow_targets=true to the command line if you trust it"
                )
        if values.get(CODE) not in (None, False) and not _is_said(CODE):
            raise ValueError(
                f"{_below(key, CODE)}={values[CODE]}: {where} lets a model run code that it brings, which only the "
                "command line may do; say it there too, or add allow_targets=true, if you trust the model"
            )


def check_hydra(hydra: DictConfig) -> None:
    """Look at what yaml files have Hydra itself build: callbacks, a launcher, a sweeper, the handlers of its logs.

    Args:
        hydra: its part of a configuration, without what a command line says of it.

    Raises:
        ValueError: if one is not of Hydra's packages.
    """
    if is_allowed():
        return
    for key, values in mappings(hydra, "hydra"):
        logs = key.startswith(("hydra.job_logging", "hydra.hydra_logging"))
        for name, value in values.items():
            known = name != "_target_" or _leads_into(HYDRAS, str(value))
            if logs and name in ("()", "class"):
                known = _leads_into(LOGGED_BY, str(value))
            elif logs and str(value).startswith("ext:"):
                known = value in STREAMS
            if not known:
                raise ValueError(
                    f"{_below(key, name)}={str(value)!r}: a yaml has Hydra call something that is not Hydra's; add "
                    "allow_targets=true to the command line if you trust it"
                )


def is_known(target: str) -> bool:
    """Tell whether a name is of a known package, and what it leads to is too: `lightning_rm.x.os.system` is not."""
    if target in BY_NAME or target in GETTERS:
        return True
    return not any(part.startswith("_") for part in target.split(".")) and _leads_into(KNOWN, target)


def find_object(target: str) -> Any:
    """Return what a name leads to, as Hydra finds it; what goes wrong is raised, and not written to its log as well.

    Raises:
        Exception: of whatever kind an import raises.
    """
    log = logging.getLogger(get_object.__module__)
    log.disabled = True
    try:
        return get_object(target)
    finally:
        log.disabled = False


def _leads_into(packages: Sequence[str], target: str) -> bool:
    """Tell whether a name begins in packages and what it leads to is a class of theirs, or a function to be called."""
    if not _is_in(packages, target) or _is_in(CLOSED, target):
        return False
    try:
        found = find_object(target)
    except Exception:  # building it says what is wrong with the name
        return True
    home = f"{getattr(found, '__module__', None) or type(found).__module__}."
    if not _is_in(packages, home) or _is_in(CLOSED, home):
        return False
    return isinstance(found, type) or _is_in(FUNCTIONS_OF, home)


def _is_in(packages: Sequence[str], name: str) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)


def _is_said(name: str) -> bool:
    """Tell whether this job's command line sets a key of this name to true."""
    words: Sequence[str] = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    given = (word.partition("=") for word in words)
    return any(key.lstrip("+").rpartition(".")[2] == name and value.lower() == "true" for key, _, value in given)


def _called(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a mapping names that would be called, each under the key that names it."""
    if (target := values.get("_target_")) is None:
        return
    yield "_target_", str(target)
    for name in ("path", "_args_") if target in GETTERS else ():
        if name in values:
            given = values[name]
            yield name, str(given[0]) if isinstance(given, ListConfig | list) and given else str(given)


def mappings(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the full key of each mapping in a configuration, itself first, and its values as they come out.

    What cannot be resolved is left out: nothing can be built of it either.
    """
    named = isinstance(node, DictConfig | dict)  # what a resolver decodes is a plain mapping
    names: Any = node if named else range(len(node)) if isinstance(node, ListConfig | list) else ()
    values: dict[Any, Any] = {}
    for name in names:
        with suppress(OmegaConfBaseException):
            values[name] = node[name]
    if named:
        yield key, values
    for name, value in values.items():
        yield from mappings(value, _below(key, name) if named else f"{key}[{name}]")


def _below(key: str, name: object) -> str:
    return f"{key}.{name}".lstrip(".")
