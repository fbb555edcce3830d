"""Reward models that survive noisy preferences, as PyTorch Lightning modules: the names a notebook needs.

They are imported when they are first used, so that a part of the package does not cost the import of all of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_rm.data.datamodule import PreferenceDataModule
    from lightning_rm.data.tokenize import load_tokenizer
    from lightning_rm.evaluation.score import score
    from lightning_rm.models.reward_model import RewardModel
    from lightning_rm.modules.baseline import BaselineRM
    from lightning_rm.modules.optimization import warmup_schedule

__all__ = ["BaselineRM", "PreferenceDataModule", "RewardModel", "load_tokenizer", "score", "warmup_schedule"]

_HOMES = {
    "BaselineRM": "modules.baseline",
    "PreferenceDataModule": "data.datamodule",
    "RewardModel": "models.reward_model",
    "load_tokenizer": "data.tokenize",
    "score": "evaluation.score",
    "warmup_schedule": "modules.optimization",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lightning_rm' has no attribute {name!r}")
    return getattr(import_module(f"lightning_rm.{_HOMES[name]}"), name)
