"""Reward models that survive noisy preferences, as PyTorch Lightning modules: the names a notebook needs."""

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.tokenize import load_tokenizer
from lightning_rm.evaluation.score import score
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.optimization import warmup_schedule

__all__ = ["BaselineRM", "PreferenceDataModule", "RewardModel", "load_tokenizer", "score", "warmup_schedule"]
