"""Where the configuration lies, and what Hydra makes of it. Nothing below `commands/` imports this."""

from __future__ import annotations

import os
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
    if missing := sorted(_missing(OmegaConf.to_container(cfg, resolve=False))):
        raise ValueError(f"{' and '.join(missing)} must be given: " + " ".join(f"{key}=..." for key in missing))


def _missing(node: object, prefix: str = "") -> Iterator[str]:
    """Dotted names of every `???` in a container."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if value == "???":
            yield f"{prefix}{key}"
        yield from _missing(value, f"{prefix}{key}.")


@contextmanager
def plain_errors() -> Generator[None]:
    """Say a user's mistake (a ValueError) in its own words and exit; HYDRA_FULL_ERROR=1 shows where it was raised."""
    try:
        yield
    except (ValueError, InstantiationException) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, ValueError) or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        print(f"error: {cause}", file=sys.stderr)
        raise SystemExit(1) from error
