"""Devices as a user names them: one that this machine has, or a sentence. It knows no model."""

from __future__ import annotations

import torch


def known_device(device: str | torch.device) -> torch.device:
    """Return a device of this machine.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps`, or a device of torch.

    Raises:
        ValueError: if there is no such kind of device, or this machine has not that one; it says which it has.
    """
    try:
        found = torch.device(device)
        if found.type != "meta":  # on which nothing can be computed
            torch.empty(0, device=found)
            return found
        why = "nothing is computed there"
    except (AssertionError, AttributeError, ImportError, NotImplementedError, RuntimeError, TypeError) as error:
        why = str(error).splitlines()[0].rstrip(".")  # each kind of device is missing in its own way
    raise ValueError(f"device={str(device)!r}: this machine has {', '.join(_devices())} ({why})")


def _devices() -> list[str]:
    """Return the names of what is here."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return ["cpu"]
    return ["cpu", *(f"{kind.type}:{number}" for number in range(torch.accelerator.device_count()))]
