"""Callbacks: they know Lightning's hooks and write files; the model and the metrics do not know them."""

from lightning_rm.callbacks.go_on import GoOn
from lightning_rm.callbacks.records import PairRecorder, PairRecords
from lightning_rm.callbacks.resume import ResumeCheckpoint
from lightning_rm.callbacks.weights import HuggingFaceCheckpoint

__all__ = ["GoOn", "HuggingFaceCheckpoint", "PairRecorder", "PairRecords", "ResumeCheckpoint"]
