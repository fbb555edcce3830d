"""Part 0: the machine, what it can do at most, and what is installed."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gpu_parts.run import Run, begun

PACKAGES = ("torch", "triton", "transformers", "lightning", "peft", "datasets", "trl", "liger-kernel", "bitsandbytes")
PACKAGES += ("flash-attn",)


def main(cases: Path, seconds: float, tiny: bool) -> None:
    run = begun("machine", cases, seconds, tiny)
    size = 256 if tiny else 8192
    run.case("matrix product, bfloat16", lambda: products(run, size))
    run.case("copy on the device", lambda: copies(run, 2**20 if tiny else 2**32))
    for package in PACKAGES:
        run.case(package, lambda package=package: {"state": installed_version(package)})


def products(run: Run, size: int) -> dict[str, Any]:
    """Operations a second of a square product of random numbers: what any MFU is bounded by."""
    left, right = (torch.randn(size, size, device=run.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = seconds_of(run, lambda: left @ right)
    return {"tflops": 2 * size**3 / seconds / 1e12, "data_sheet_tflops": None if run.peak is None else run.peak / 1e12}


def copies(run: Run, num_bytes: int) -> dict[str, Any]:
    """Bytes a second, read and written."""
    first = torch.empty(num_bytes, device=run.device, dtype=torch.uint8).random_()
    second = torch.empty_like(first)
    return {"terabytes_a_second": 2 * num_bytes / seconds_of(run, lambda: second.copy_(first)) / 1e12}


def seconds_of(run: Run, work: Callable[[], object], repeats: int = 10) -> float:
    """The median of single runs, after three that warm up."""
    taken: list[float] = []
    for number in range(3 + repeats):
        start = time.perf_counter()
        work()
        if run.gpu:
            torch.cuda.synchronize()
        if number >= 3:
            taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]


def installed_version(package: str) -> str:
    """Its version, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return f"not installed: {package}"
