"""Where the configuration lies, and what its keys come to. Nothing below `commands/` imports this."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import lightning_rm
from lightning_rm.commands._job import task_words
from lightning_rm.commands._words import key_of
from lightning_rm.told import check_yaml


def plain_console(stderr: bool = False) -> Console:
    """Return where commands print: what stands in brackets in a path or a name is text, not a style."""
    return Console(stderr=stderr, markup=False, highlight=False)


def say_files(console: Console, *files: object) -> None:
    """Print what was written, a line each, whatever the width of the terminal."""
    for file in files:
        console.print(f"  {file}", soft_wrap=True)


def conf_dir() -> str:
    """Return the folder of `conf/`: inside the package in a wheel, beside it in a checkout."""
    package = Path(lightning_rm.__file__).parent
    shipped = package / "conf"
    return str(shipped if shipped.is_dir() else package.parent / "conf")


def defaults_of(config: Path) -> dict[str, Any]:
    """Return what a command's configuration chooses of each group, where the command line does not; nothing where there
    is no such file.
    """
    written: Any = OmegaConf.load(config) if config.is_file() else {}
    entries = OmegaConf.to_container(written.get("defaults") or OmegaConf.create([]), resolve=False)
    chosen = [entry for entry in cast(list[Any], entries) if isinstance(entry, dict)]
    return {name.split()[-1]: choice for entry in chosen for name, choice in entry.items()}


def config_of(run: Path) -> DictConfig | None:
    """Return the configuration that a run's folder holds; None where it holds none.

    Raises:
        ValueError: if it is not one that a run wrote.
    """
    path = run / "config.yaml"
    return written_config(path) if path.is_file() else None


def written_config(path: Path) -> DictConfig:
    """Return the configuration that a run wrote.

    Raises:
        ValueError: if it is not one.
    """
    check_yaml(path)
    found = OmegaConf.load(path)
    if not isinstance(found, DictConfig):
        raise ValueError(f"{path} is not a run's configuration")
    return found


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return the whole configuration as plain values, for a logger or a file."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))


def plain(value: Any) -> Any:
    """Return a value of a configuration as others take it: a list or mapping as such, interpolations resolved."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def template_arguments(cfg: DictConfig) -> dict[str, Any]:
    """Return what `chat_template_kwargs` hands to the chat template, nothing for null."""
    return plain(cfg.chat_template_kwargs) or {}


def require_all(cfg: DictConfig) -> None:
    """Say which keys the user must still give, under the names that they are given by.

    Raises:
        ValueError: if a value is `???`.
    """
    values = dotted(OmegaConf.to_container(cfg, resolve=False))
    if missing := sorted(key for key, value in values if value == "???"):
        raise ValueError(f"{' and '.join(missing)} must be given: " + " ".join(f"{key}=..." for key in missing))


def is_given(key: str) -> bool:
    """Tell whether this job's command line sets a key, rather than a configuration."""
    return key in (key_of(word) for word in task_words())


def followed(value: object) -> set[str]:
    """Return the keys that a value is taken from: `${data.overlong}`, `${oc.select:responses.batch_groups,4}`."""
    return set(re.findall(r"[\w.]+", value)) if isinstance(value, str) and value.startswith("${") else set()


def source_of(key: str, values: Mapping[str, object]) -> str:
    """Return the key that a value is first given under.

    trainer.max_epochs: ${data.epochs}  ->  data.epochs
    module.optimizer.lr, of module.optimizer: ${optimizer}  ->  optimizer.lr
    """
    parts = key.split(".")
    for depth in range(len(parts), 0, -1):
        value = values.get(".".join(parts[:depth]))
        if isinstance(value, str) and value.startswith("${") and value[2:-1] in values:
            return source_of(".".join([value[2:-1], *parts[depth:]]), values)
    return key


def dotted(node: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield dotted names and values of all that a container holds, its inner containers too."""
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}", value
        yield from dotted(value, f"{prefix}{key}.")
