"""Features of the models that a user names, on the pairs of a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
from omegaconf import DictConfig
from rich.console import Console

from lightning_rm.analysis.features import Features, collect_features
from lightning_rm.annotation.voters import Voter
from lightning_rm.commands._config import plain, require_all
from lightning_rm.commands._data import find_policy, find_source
from lightning_rm.commands._tables import report_table
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.pairs import prepare_pairs
from lightning_rm.globs import named_paths
from lightning_rm.scoring.load import find_folder


def read_features(cfg: DictConfig, console: Console) -> dict[str, Features]:
    """Return what every model of `cfg.features` makes of the pairs of `cfg.set`, by its name.

    Args:
        cfg: `conf/analyze.yaml`, composed.
        console: shows what became of the rows.

    Raises:
        ValueError: if no data is named, or a path is not a model.
    """
    if "data" not in cfg:
        raise ValueError("features= needs pairs to read: add data=synthetic, or data=jsonl data.file=pairs.jsonl")
    require_all(cfg)
    models = find_models(plain(cfg.features), cfg.weights)
    source = find_source(cfg)
    policy = find_policy(cfg)
    fabric = L.Fabric(accelerator=cfg.accelerator, devices=1, precision=cfg.precision)
    found: dict[str, Features] = {}
    reports: dict[str, DataReport] = {}
    for name, folder in models.items():
        voter = Voter(name, folder)
        tokenizer = voter.tokenizer()
        pairs = prepare_pairs(source, tokenizer, policy, cfg.data.cache_dir, cfg.set)
        reports[f"{cfg.set} for {name}"] = pairs.report
        model = voter.load(tokenizer)
        fabric.to_device(model)
        found[name] = collect_features(
            model,
            pairs,
            layout=cfg.layout.layout,
            batch_pairs=cfg.batch_pairs,
            max_pairs=cfg.max_pairs,
            autocast=fabric.autocast,
        )
    console.print(report_table(reports))
    return found


def find_models(named: str | Sequence[str] | Mapping[str, str], weights: str) -> dict[str, Path]:
    """Name -> Hugging Face folder of the models that globs name, in the order given.

    Args:
        named: runs or folders: a glob, a list of them, or name -> path. Without names a model is called by its path
            below what all paths have in common.
        weights: of a run: `best` or `last`.

    Raises:
        ValueError: if a path or glob names no model.
    """
    if isinstance(named, Mapping):
        return {name: _folder(path, weights) for name, path in named.items()}
    paths: list[str] = []
    for pattern in [named] if isinstance(named, str) else named:
        paths += [str(path) for path in named_paths(pattern) if path.is_dir()] or [pattern]
    paths = list(dict.fromkeys(os.path.normpath(path) for path in paths))
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return {os.path.relpath(path, common): _folder(path, weights) for path in paths}


def _folder(path: str, weights: str) -> Path:
    folder = find_folder(Path(path).expanduser(), weights)
    if folder is None:
        raise ValueError(f"features: {path!r} is not a run with weights in model/{weights}, nor a Hugging Face folder")
    return folder
