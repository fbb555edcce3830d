"""What Hydra composes is put together once for the same files and the same choices of groups; copies are handed out.

The tests compose some thousand configurations, two or three for each command that they run. Of a composition's 110 ms,
100 went into looking up, reading and merging the files of the chosen groups; a value that is set on top changes none
of that. Which configuration comes out, and what is wrong with one, is Hydra's affair as ever: a composition that fails
is not kept, and one that another folder takes part in is made anew.
"""

from __future__ import annotations

import pickle
from typing import Any

from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._config import conf_dir

_chosen: dict[Any, DefaultsList] = {}
_merged: dict[int, bytes | None] = {}
"""By the identity of a list of files, which `_chosen` keeps alive."""
_read: dict[Any, bytes] = {}
_placed: dict[Any, bytes] = {}
"""What a file says, at the place that it has in a configuration."""

_create_defaults_list = config_loader_impl.create_defaults_list
_create_interpolation_map = defaults_list._create_interpolation_map
_merge = ConfigLoaderImpl._compose_config_from_defaults_list
_load = ConfigRepository.load_config
_load_one = ConfigLoaderImpl._load_single_config


def compose_once() -> None:
    """From here on, Hydra keeps what it has read and merged."""
    config_loader_impl.create_defaults_list = _choose
    ConfigLoaderImpl._compose_config_from_defaults_list = _merge_once
    ConfigRepository.load_config = _load_once
    ConfigLoaderImpl._load_single_config = _place_once
    defaults_list._create_interpolation_map = _map_where_needed
    # Every composition copies the repository, to give it other sources; what is registered with Hydra stays the same.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # pyright: ignore[reportAttributeAccessIssue]


def _stays(repo: Any) -> bool:
    """Whether all files lie in `conf/` and in Hydra."""
    return all(source.scheme() != "file" or source.path == conf_dir() for source in repo.get_sources())


def _choose(repo: Any, config_name: str | None, overrides_list: Any, prepend_hydra: bool, skip_missing: bool) -> Any:
    """The files that choices name, in their order, and the overrides that set values."""
    if not _stays(repo):
        return _create_defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing)
    settled = [override for override in overrides_list if not override.is_sweep_override()]
    values = [one for one in settled if isinstance(one.value(), dict) or not repo.group_exists(one.key_or_group)]
    choices = tuple(one.input_line for one in settled if not any(one is value for value in values))
    key = (config_name, choices, prepend_hydra, skip_missing)
    if key not in _chosen:
        _chosen[key] = _create_defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        _merged[id(_chosen[key].defaults)] = None
    known = _chosen[key]
    return DefaultsList(known.defaults, known.defaults_tree, values, known.overrides)


def _merge_once(loader: ConfigLoaderImpl, defaults: Any, repo: Any) -> DictConfig:
    """The content of those files; pickle copies it five times as fast as `deepcopy`."""
    if id(defaults) not in _merged:
        return _merge(loader, defaults, repo)
    known = _merged[id(defaults)]
    if known is None:
        known = _merged[id(defaults)] = pickle.dumps(_merge(loader, defaults, repo))
    return pickle.loads(known)


def _load_once(repo: ConfigRepository, config_path: str) -> Any:
    if not _stays(repo):
        return _load(repo, config_path)
    if config_path not in _read:
        _read[config_path] = pickle.dumps(_load(repo, config_path))
    return pickle.loads(_read[config_path])


def _place_once(loader: ConfigLoaderImpl, default: Any, repo: Any) -> Any:
    if not _stays(repo):
        return _load_one(loader, default, repo)
    key = (default.config_path, default.package, default.primary)
    if key not in _placed:
        _placed[key] = pickle.dumps(_load_one(loader, default, repo))
    return pickle.loads(_placed[key])


def _map_where_needed(overrides: Any, defaults: Any, self_added: bool) -> DictConfig:
    """Every choice that was made so far, for a file whose choices name others: `${data}_${module}`."""
    if not any(default.is_interpolation() for default in defaults):
        return OmegaConf.create()
    return _create_interpolation_map(overrides, defaults, self_added)
