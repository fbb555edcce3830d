"""Where the configuration lies, and what Hydra makes of it. Nothing below `commands/` imports this."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

import lightning_rm


def conf_dir() -> str:
    """The folder of `conf/`: inside the package in a wheel, beside it in a checkout."""
    package = Path(lightning_rm.__file__).parent
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parent / "conf")


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The whole configuration as plain values, for a logger or a file."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))


def require_all(cfg: DictConfig) -> None:
    """Say which keys the user must still give, under the names that they are given by.

    Raises:
        ValueError: if a value is `???`.
    """
    values = _values(OmegaConf.to_container(cfg, resolve=False))
    if missing := sorted(key for key, value in values if value == "???"):
        raise ValueError(f"{' and '.join(missing)} must be given: " + " ".join(f"{key}=..." for key in missing))


@contextmanager
def plain_errors(cfg: DictConfig) -> Generator[None]:
    """Say a user's mistake (a ValueError) in its own words and exit; HYDRA_FULL_ERROR=1 shows where it was raised.

    What is raised below the commands knows no configuration and says `overlong=drop`: a second line has the full keys.
    """
    try:
        yield
    except (ValueError, InstantiationException) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, ValueError) or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        print(f"error: {cause}", file=sys.stderr)
        if keys := full_keys(cfg, str(cause)):
            print(f"(on the command line: {', '.join(keys)})", file=sys.stderr)
        raise SystemExit(1) from error


def full_keys(cfg: DictConfig, message: str) -> list[str]:
    """The dotted keys of the options that a message names as `option=`, as far as there is no doubt.

        "give max_tokens=2048 or overlong=drop"  ->  ["data.max_tokens", "data.overlong"]

    Of an option and those that follow it (`data.module.overlong: ${data.overlong}`) the first is meant. A name that the
    command line takes as it stands is left out, and so is one of several options, such as `num_pairs`, or of none.
    """
    values = dict(_values(OmegaConf.to_container(cfg, resolve=False)))
    found: list[str] = []
    for option in dict.fromkeys(re.findall(r"(?<![\w.])([A-Za-z_]\w*)=", message)):
        same = {key: value for key, value in values.items() if key.rpartition(".")[2] == option}
        free = [key for key, value in same.items() if not _followed(value) & same.keys()]
        if len(free) == 1 and option not in values and not isinstance(values[free[0]], dict):
            found.append(free[0])
    return found


def _followed(value: object) -> set[str]:
    """The keys that a value is taken from: `${data.overlong}`, `${oc.select:responses.batch_groups,4}`."""
    return set(re.findall(r"[\w.]+", value)) if isinstance(value, str) and value.startswith("${") else set()


def _values(node: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and values of all that a container holds, its inner containers too."""
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}", value
        yield from _values(value, f"{prefix}{key}.")
