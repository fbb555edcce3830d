"""What small runs spend half of their time on, done once a session: nothing that a test looks at.

Measured on a run of 18 steps with three validations: a fourth of it went into moving logged numbers from the CPU to the
CPU, a thirtieth into asking every installed package for callbacks; a tenth of composing a configuration, which half of
the tests of commands do, into parsing the same yaml, another into parsing the same interpolations. A twentieth of the
whole suite went into making the same pairs of the made world; a tenth of a run into asking what the arguments of a hook
are called whenever a number is logged, and into the beginnings of the metric that every logged number becomes. W&B's
first run in a process took 1.3 s of a core to read its own sources, for what the fields of its classes are said to be.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core import module as module_file
from lightning.pytorch.loggers import csv_logs
from lightning.pytorch.trainer.connectors import callback_connector
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric
from omegaconf import base as omegaconf_base
from omegaconf import omegaconf as omegaconf_file
from pydantic._internal import _fields
from transformers.utils import logging as transformers_logging

from lightning_rm.data.synthetic.pairs import SyntheticSource

_has_argument = module_file.is_param_in_hook_signature
_collect, _set = gc.collect, logging.Logger.setLevel


def be_thrifty() -> None:
    """From here on, logged numbers stay where they are, and what does not change is read once."""
    os.fsync = _is_written
    gc.collect = _collect_young
    logging.Logger.setLevel = _set_level
    transformers_logging.set_verbosity_error()  # as every load of ours does for its time
    if not torch.accelerator.is_available():
        _ResultMetric.to = _stay
    _ResultMetric.add_state = _begin
    _ResultMetric.update.__signature__ = inspect.signature(_ResultMetric.update)
    callback_connector._load_external_callbacks = lru_cache(callback_connector._load_external_callbacks)
    omegaconf_file.yaml = _Yaml()
    omegaconf_base.parse = lru_cache(maxsize=None)(omegaconf_base.parse)
    _fields.extract_docstrings_from_cls = _no_descriptions
    SyntheticSource._row = lru_cache(maxsize=20_000)(SyntheticSource._row)
    module_file.is_param_in_hook_signature = _asks_once
    csv_logs.save_hparams_to_yaml = _name_alone


def _is_written(fd: int) -> None:
    """What no power cut follows need not reach the disk: 8 ms a file, of which there are some thousand."""


def _collect_young(generation: int = 1) -> int:
    """What was made lately. Trainers of others ask for all at every turn, which takes a tenth of a second here."""
    return _collect(min(generation, 1))


def _set_level(logger: logging.Logger, level: int | str) -> None:
    """A level that a logger has already is not set again: whether each logger is on would have to be asked anew."""
    if logger.level != level:
        _set(logger, level)


def _stay(metric: _ResultMetric, *_: Any, **__: Any) -> _ResultMetric:
    return metric


def _no_descriptions(cls: type, use_inspect: bool = False) -> dict[str, str]:
    return {}


def _begin(metric: _ResultMetric, name: str, default: torch.Tensor, dist_reduce_fx: Any) -> None:
    """A state as torchmetrics begins it, without a copy of what nobody changes in place."""
    setattr(metric, name, default)
    metric._defaults[name] = default
    metric._persistent[name] = False
    metric._reductions[name] = dist_reduce_fx


def _asks_once(hook: Any, name: str, explicit: bool = False) -> bool:
    return _asked(getattr(hook, "__func__", hook), name, explicit)


def _name_alone(config_yaml: str, *_: Any) -> None:
    """The settings that a logger keeps beside its metrics stand in the run's own file too: a second time is 20 ms."""
    Path(config_yaml).touch()


@lru_cache(maxsize=1000)
def _asked(function: Any, name: str, explicit: bool) -> bool:
    return _has_argument(function, name, explicit)


class _Yaml:
    """The module `yaml` as `OmegaConf.load` uses it, which knows a text that it has parsed before."""

    def __init__(self) -> None:
        self._module, self._known = omegaconf_file.yaml, dict[str, Any]()

    def load(self, stream: Any, Loader: Any) -> Any:  # noqa: N803  # PyYAML's name
        text = stream if isinstance(stream, str) else stream.read()
        if text not in self._known:
            self._known[text] = self._module.load(text, Loader=Loader)
        return deepcopy(self._known[text])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
