"""One part while it runs: its device, its time, and a line of JSON for each case.

A case that fails, needs what is not installed, or does not fit into memory or time says so in its line, and costs that
case alone. It knows no case.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from common import origin

Measure = Callable[[], dict[str, Any]]

PEAKS = {"H100 PCIe": 756e12, "H100": 989.4e12, "H200": 989.4e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165.2e12}
"""Dense bfloat16 operations a second of the data sheets, by a part of the device's name; the first that fits counts."""


class Missing(Exception):  # noqa: N818  # no error: a case that cannot be had here
    """What a case needs and this machine has not: the case's state."""


class Run:
    """A part on its device.

    Args:
        cases: the file that the lines go to.
        seconds: after which no case is begun.
        tiny: whether models are small and the device is a CPU.

    Raises:
        SystemExit: if there is no GPU, and not `tiny`.
    """

    def __init__(self, cases: Path, seconds: float, tiny: bool) -> None:
        if not tiny and not torch.cuda.is_available():
            raise SystemExit("torch finds no CUDA device here; --tiny runs every part on a CPU")
        self.tiny = tiny
        self.device = torch.device("cpu" if tiny else "cuda")
        self._cases = cases
        self._end = time.monotonic() + seconds

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    @property
    def peak(self) -> float | None:
        """The data sheet's operations a second; None where the device is not known."""
        name = torch.cuda.get_device_name() if self.gpu else ""
        return next((peak for known, peak in PEAKS.items() if known in name), None)

    def case(self, name: str, measure: Measure, needs: float = 0.0, **labels: Any) -> dict[str, Any]:
        """Measure one case and write its line.

        Args:
            name: of the case.
            measure: gives what there is to say; a `state` other than `measured` among it.
            needs: seconds that it will take, as far as one knows; where they are not left it is not begun.
            labels: what else the line says, however the case ends.

        Returns:
            The line.
        """
        start = time.monotonic()
        found: dict[str, Any] = {}
        if self.left < needs:
            state = f"out of time: about {needs:.0f} s are needed and {max(self.left, 0):.0f} s left"
        else:
            try:
                found = measure()
                state = found.pop("state", "measured")
            except Missing as reason:
                state = str(reason)
            except torch.OutOfMemoryError:
                state = "out of memory"
            except Exception as error:
                traceback.print_exc()
                state = f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        if self.gpu:
            torch.cuda.empty_cache()
        line = {"case": name, "state": state, **labels, **found}
        if not state.startswith("out of time"):
            line["took_s"] = round(time.monotonic() - start, 2)
        self.write(line)
        return line

    def write(self, line: dict[str, Any]) -> None:
        """Append a line of JSON."""
        with self._cases.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def begun(part: str, cases: Path, seconds: float, tiny: bool, *modules: ModuleType) -> Run:
    """A part's run, its first line written: machine, versions, day."""
    run = Run(cases, seconds, tiny)
    command = f"python benchmarks/gpu.py --only {part}" + (" --tiny" if tiny else "")
    run.write(origin(torch, *modules, gpu=run.gpu) | {"command": command, "tiny": tiny})
    return run


def installed(package: str) -> None:
    """Raise `Missing` unless a package can be imported."""
    if find_spec(package) is None:
        raise Missing(f"not installed: {package}")


def log(text: str) -> None:
    """A word for whoever reads the part's log."""
    print(text, file=sys.stderr, flush=True)
