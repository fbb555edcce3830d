"""Every yaml in conf/ composes, every target in it exists, every experiment runs two steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._config import conf_dir, resolved
from lightning_rm.commands.train import train

CONF = Path(conf_dir())
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
# Parts of other choices, composed with them.
PARTS = {("data", "base"), ("trainer", "base"), ("backbone", "lora")}
CHOICES = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if (group, path.stem) not in PARTS
]
EXPERIMENTS = [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))]
# What a user must name, with a stand-in.
NAMED = {("data", "jsonl"): ["data.file=pairs.jsonl"], ("backbone", "hub"): ["backbone.path=folder"], ("data", "hh_second_label"): ["data.file=train.jsonl", "data.test_file=val.jsonl"]}
TINY = ["backbone=tiny", "trainer=cpu", "trainer.max_steps=2", "trainer.limit_val_batches=1", "scheduler.warmup=0"]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONF.as_posix(), version_base="1.3"):
        cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    return cfg


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def test_there_is_something_to_compose() -> None:
    assert {"data", "backbone", "module", "layout", "optimizer", "scheduler", "trainer", "logger"} <= set(GROUPS)
    assert EXPERIMENTS


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_yaml_composes_and_names_what_exists(group: str, choice: str) -> None:
    overrides = [f"{group}={choice}", "hydra.runtime.output_dir=run", *NAMED.get((group, choice), [])]
    cfg = resolved(composed(*overrides))
    found = list(targets(cfg))
    assert found
    for target in found:
        assert callable(get_method(target))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_two_steps(experiment: str, tmp_path: Path) -> None:
    cfg = composed(
        f"experiment={experiment}",
        *TINY,
        "data=synthetic",
        "data.num_pairs=64",
        "data.num_val=8",
        "logger=csv",
        f"hydra.runtime.output_dir={tmp_path}",
    )
    objective = train(cfg)
    assert 0 <= objective <= 1
    assert (tmp_path / "model" / "best" / "model.safetensors").exists()
    assert (tmp_path / "figures" / "curves.png").exists()
