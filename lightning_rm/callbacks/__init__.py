"""Callbacks: they know Lightning's hooks and write files; the model and the metrics do not know them."""

from lightning_rm.callbacks.benchmarks import Benchmarks
from lightning_rm.callbacks.checkpoint_files import CheckpointFiles
from lightning_rm.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lightning_rm.callbacks.go_on import GoOn
from lightning_rm.callbacks.monitored import MonitoredInTraining
from lightning_rm.callbacks.progress_lines import ProgressLines
from lightning_rm.callbacks.records import PairRecorder, PairRecords
from lightning_rm.callbacks.resume import ResumeCheckpoint
from lightning_rm.callbacks.spikes import SpikeRecorder
from lightning_rm.callbacks.stop import Stop
from lightning_rm.callbacks.weights import HuggingFaceCheckpoint

__all__ = [
    "Benchmarks",
    "BestCheckpoint",
    "CheckpointFiles",
    "GoOn",
    "HuggingFaceCheckpoint",
    "LastCheckpoint",
    "MonitoredInTraining",
    "PairRecorder",
    "PairRecords",
    "ProgressLines",
    "ResumeCheckpoint",
    "SpikeRecorder",
    "Stop",
]
