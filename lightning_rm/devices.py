"""Devices: what this machine has, and one as a user names it, or a sentence. It knows no model."""

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


def device_here() -> torch.device:
    """Return the accelerator of this machine, the CPU without one.

    The torch that pip installs is built for CUDA, and names it as the accelerator on machines without a GPU too.
    """
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def device_of(accelerator: str) -> torch.device | None:
    """Return the device that an accelerator's name means; None for what there is.

    Raises:
        ValueError: if it means none, or this machine has no GPU.
    """
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        raise ValueError(f"accelerator={accelerator!r}: say auto, cpu or gpu")
    here = device_here()
    if (accelerator == "gpu" and here.type == "cpu") or (accelerator == "cuda" and here.type != "cuda"):
        raise ValueError(f"accelerator={accelerator}: torch finds no GPU here; say auto, or cpu")
    return None if accelerator == "auto" else torch.device("cpu") if accelerator == "cpu" else here


def _devices() -> list[str]:
    """Return the names of what is here."""
    kind = device_here().type
    return ["cpu", *(f"{kind}:{number}" for number in range(torch.accelerator.device_count()) if kind != "cpu")]
