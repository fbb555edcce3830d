"""What a configuration may build: objects of this package and of the libraries that it depends on, and no others.

Hydra calls whatever a `_target_` names, so that a yaml from somebody else is a program. Here one that names something
else is refused, unless the command line says `allow_targets=true`: no yaml can say so for itself. It knows names and
what they lead to; it builds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

KNOWN = ("lightning_rm", "lightning", "pytorch_lightning", "torch.optim", "torch.nn", "peft", "bitsandbytes.optim")
"""Packages whose objects a configuration may build."""

CLASSES_OF = ("lightning", "pytorch_lightning", "peft", "bitsandbytes.optim")
"""Packages whose classes alone may be built: some of their functions import and call what a word names, or unpickle."""

CLOSED = ("lightning_rm.commands", "lightning.pytorch.cli", "pytorch_lightning.cli")
"""Parts of these packages that run command lines, which can say anything."""

BY_NAME = ("wandb.Settings",)
GETTERS = ("hydra.utils.get_method", "hydra.utils.get_class", "hydra.utils.get_object")
"""Functions that return what their `path` names."""

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

    A yaml cannot, although it can set any environment variable for a job (`hydra.job.env_set`).
    """
    if os.environ.get(ALLOWED) != "1":
        return False
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    return hydra is None or ALLOWED not in hydra.job.env_set or any(ALLOWED in word for word in hydra.overrides.hydra)


def check_targets(cfg: DictConfig, where: str = "the configuration") -> None:
    """Look at every `_target_` before anything is built.

    Raises:
        ValueError: if one leads out of the known packages; it names the key and the way out.
    """
    if is_allowed():
        return
    for key, target in _targets(OmegaConf.to_container(cfg, resolve=False), ""):
        if not is_known(target):
            raise ValueError(
                f"{key}={target!r}: {where} names something outside this package and its libraries, which would be "
                "run; add allow_targets=true to the command line if you trust it"
            )


def is_known(target: str) -> bool:
    """Tell whether a name is of a known package, and what it leads to is too: `lightning_rm.x.os.system` is not."""
    if target in BY_NAME or target in GETTERS:
        return True
    if not _is_in_known(target):
        return False
    try:
        found = get_object(target)
    except Exception:  # building it says what is wrong with the name
        return True
    home = f"{getattr(found, '__module__', None) or type(found).__module__}."
    return _is_in_known(home) and (isinstance(found, type) or not _is_in(CLASSES_OF, home))


def _is_in_known(name: str) -> bool:
    return _is_in(KNOWN, name) and not _is_in(CLOSED, name)


def _is_in(packages: Sequence[str], name: str) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)


def _first(given: Any) -> str:
    """Return a name, or the first of a list of arguments."""
    return str(given[0]) if isinstance(given, list) and given else str(given)


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield each name that a configuration would have called, under its full key."""
    if isinstance(node, Mapping):
        found: Any = node.get("_target_")
        if found is not None:
            yield f"{key}._target_".lstrip("."), str(found)
            if found in GETTERS:
                given = [name for name in ("path", "_args_") if name in node]
                yield from ((f"{key}.{name}".lstrip("."), _first(node[name])) for name in given)
        for name, value in node.items():
            yield from _targets(value, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from _targets(value, f"{key}[{place}]")
