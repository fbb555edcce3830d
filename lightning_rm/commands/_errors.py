"""Errors that a user can mend, as sentences that name keys of the command line, and without a traceback."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._config import dotted, followed
from lightning_rm.commands._job import in_sweep, leave_word, task_words
from lightning_rm.commands._stopped import exit_after
from lightning_rm.commands._sweep import leave_last_word
from lightning_rm.drafts import is_full

SMALLER = "smaller batches (data.batch_pairs, batch_tokens), or backbone.model.gradient_checkpointing=true, need less"

CONNECTORS = (
    *("lightning.fabric.connector", "lightning.fabric.accelerators"),
    "lightning.pytorch.trainer.connectors.accelerator_connector",
)
"""Where Lightning looks for devices."""


@contextmanager
def plain_errors(cfg: DictConfig) -> Generator[None]:
    """Print an error that a user can fix without its traceback and exit; HYDRA_FULL_ERROR=1 shows the traceback.

    Such an error is a ValueError, one of the operating system about a file, or one of Lightning, Hydra or W&B about
    their settings. Code below the commands does not know the configuration and says `overlong=drop`: a second line
    gives the full keys. A job of a multirun that fails records that in its folder, and the next one is run, unless the
    disk is full.
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        print("stopped", file=sys.stderr)
        if in_sweep():
            leave_word("stopped")
        exit_after(stopped)
    except SystemExit as ended:
        if not in_sweep():
            raise
        leave_word(f"exit code {ended.code}")
        if ended.code != 1:  # with 1 a command has said by itself what went wrong
            raise
    except Exception as error:
        said, nulls = in_words(error), given_null()
        if said is None and nulls and "None" in str(error):
            said = f"something is missing ({type(error).__name__}: {error})"
        if said is None or os.environ.get("HYDRA_FULL_ERROR"):
            if not in_sweep():
                raise
            traceback.print_exc()
            said = f"{type(error).__name__}: {error}"
        print(f"error: {said}", file=sys.stderr)
        if keys := full_keys(cfg, said):
            print(f"(on the command line: {', '.join(keys)})", file=sys.stderr)
        if nulls and ("None" in said or "=null;" in said):
            print(f"(null was given for {', '.join(nulls)}; without it the default holds)", file=sys.stderr)
        if in_sweep():
            leave_last_word(said, is_full(error))
            return
        raise SystemExit(1) from error


def in_words(error: BaseException) -> str | None:
    """Return the message of an error that a user can fix; None for one that is our fault."""
    if isinstance(error, InstantiationException):
        cause = error.__cause__
        inner = None if cause is None else in_words(cause)
        if inner is not None or cause is None:
            return inner or str(error)
        key = re.search(r"full_key: (\S+)", str(error))
        return f"{key[1] if key else 'the configuration'}: {cause}"
    if isinstance(error, OSError) and (error.filename is not None or is_full(error)):
        place = "" if error.filename is None else f"{error.filename}: "
        full = "; what was written before is whole. Make room, or write elsewhere" if is_full(error) else ""
        return f"{place}{error.strerror}{full}"
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return f"there is not enough memory ({str(error).splitlines()[0] if str(error) else 'of the host'}): {SMALLER}"
    if any(kind.__name__ == "TorchDynamoException" for kind in type(error).__mro__):
        first = next(iter(str(error).splitlines()), "")
        return f"torch cannot compile this backbone ({type(error).__name__}: {first}); leave compile=true out"
    theirs = type(error).__module__.partition(".")[0] in ("wandb", "hydra", "omegaconf", "safetensors")
    if _raised_in(error).startswith(CONNECTORS):
        asked = f"accelerator=, devices= or precision= asks for what is not here: {str(error).rstrip('.! ')}"
        return f"{asked}; accelerator=auto, devices=1 and precision=32-true do on every machine"
    if _raised_in(error).startswith("lightning.pytorch.callbacks.early_stopping"):
        return f"callbacks.early_stopping: {error}"
    if isinstance(error, ValueError | OSError) or theirs or type(error).__name__ == "MisconfigurationException":
        return str(error)
    return None


def _raised_in(error: BaseException) -> str:
    """Return the module that raised an error; empty for one that was never raised."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""


def full_keys(cfg: DictConfig, message: str) -> list[str]:
    """Return the dotted keys of the options that a message names as `option=`, as far as there is no doubt.

        "give max_tokens=2048 or overlong=drop"  ->  ["data.max_tokens", "data.overlong"]

    Of an option and those that follow it (`data.module.overlong: ${data.overlong}`) the first is meant. A name that the
    command line takes as it stands is left out, and so is one that may mean several options, such as `num_pairs`. Of
    `option='value'` the one key that has the value is meant, by any name: Python's path='x' is model=x of `score`.
    """
    values = dict(dotted(OmegaConf.to_container(cfg, resolve=False)))
    found: list[str] = []
    own = re.sub(r"lightning-rm [a-z]+ .*", "", message)  # another command's options are its own
    for option in dict.fromkeys(re.findall(r"(?<![\w.])([A-Za-z_]\w*)=", own)):
        given = keys_of(re.findall(rf"(?<![\w.]){option}='([^']+)'", own), values)
        if len(given) != 1 and option not in values:
            same = {key: value for key, value in values.items() if key.rpartition(".")[2] == option}
            given = [key for key, value in same.items() if not followed(value) & same.keys()]
        if len(given) == 1 and given[0] != option and not isinstance(values[given[0]], dict):
            found.append(given[0])
    return found


def given_null() -> list[str]:
    """Return the keys that this job's command line sets to null."""
    return [key.lstrip("+") for key, _, value in (word.partition("=") for word in task_words()) if value == "null"]


def keys_of(texts: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """Return the keys that have one of the texts for a value, or in a list of them."""
    return [
        key
        for key, value in values.items()
        if any(text == value or (isinstance(value, list) and text in value) for text in texts)
    ]
