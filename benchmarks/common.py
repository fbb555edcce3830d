"""What the benchmarks share: the backbones that they make, turns, quartiles, and where a result comes from."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar("T")


def backbone(layers: int, width: int, positions: int = 2048, encoder: bool = False) -> dict[str, Any]:
    """The configuration of a Llama, or of a BERT, of so many layers and that width."""
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": max(width // 64, 1)}
    if encoder:
        return {"model_type": "bert", "intermediate_size": 4 * width, **sizes}
    # 8/3 of the width is Llama's, for three matrices.
    return {"model_type": "llama", "intermediate_size": 8 * width // 3, "max_position_embeddings": positions, **sizes}


def rotated(names: Sequence[T], turn: int) -> list[T]:
    """The same names from another one on in each turn, so that none always comes after the same."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]


def quartiles(values: Iterable[float], digits: int = 4) -> list[float]:
    """Lower quartile, median, upper quartile, to so many digits."""
    return [float(f"{value:.{digits}g}") for value in np.quantile(np.array(list(values)), (0.25, 0.5, 0.75))]


def origin(*modules: ModuleType, gpu: bool = False) -> dict[str, Any]:
    """The first lines of a result: the command, the machine, the threads, the modules' versions, the day.

    Of a folder or a file in the command, its name: where it lies on this machine is nobody's business.
    """
    words = (Path(word).name if Path(word).is_absolute() else word for word in sys.argv)
    return {
        "command": shlex.join(["python", *words]),
        "machine": torch.cuda.get_device_name() if gpu else processor(),
        "threads": torch.get_num_threads(),
        "versions": ", ".join(f"{module.__name__} {module.__version__}" for module in modules),
        "date": datetime.date.today().isoformat(),
    }


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
