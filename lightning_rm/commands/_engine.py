"""`engine=`: who scores the shards of a data set: this machine's processes, or the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig

from lightning_rm.scoring.on_ray import RayWorkers
from lightning_rm.scoring.shards import Engine, score_shards


@contextmanager
def scoring_engine(cfg: DictConfig) -> Generator[tuple[L.Fabric, Engine]]:
    """Launch what scores.

    Args:
        cfg: a configuration with `engine`, `accelerator`, `devices` and `precision`.

    Yields:
        The Fabric of this process, and the engine.

    Raises:
        ValueError: if there is no such engine, it is not installed, or `devices` is not a number of workers.
    """
    if cfg.engine == "local":
        fabric = L.Fabric(accelerator=cfg.accelerator, devices=cfg.devices, precision=cfg.precision)
        fabric.launch()
        yield fabric, score_shards
        return
    if cfg.engine != "ray":
        raise ValueError(f"engine={cfg.engine!r}: there are 'local' and 'ray'")
    devices: Any = cfg.devices
    everywhere = devices in (-1, "-1", "auto")
    if not everywhere and not (isinstance(devices, int) and devices > 0):
        raise ValueError(f"devices={devices}: engine=ray takes a number of workers, or auto for all there is room for")
    here = L.Fabric(accelerator="cpu", devices=1, precision=cfg.precision, plugins=[LightningEnvironment()])
    with RayWorkers(None if everywhere else devices, cfg.accelerator) as workers:
        yield here, workers
