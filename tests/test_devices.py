"""Devices that a user names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_rm.devices import device_here, device_of, known_device


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "", "meta", -1, 1.5])
def test_a_device_that_is_not_here_is_a_sentence(device: Any) -> None:
    with pytest.raises(ValueError, match=rf"^device='{device}': this machine has cpu.* \(.+\)$"):
        known_device(device)


def test_a_device_that_is_here() -> None:
    assert known_device("cpu") == known_device(torch.device("cpu")) == torch.device("cpu")


def test_a_build_for_cuda_names_no_accelerator_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch tells what it was built for, unless it is asked to look."""

    def built_for_cuda(check_available: bool = False) -> torch.device | None:
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", built_for_cuda)
    assert device_here() == device_of("cpu") == torch.device("cpu")
    assert device_of("auto") is None
    for accelerator in ("gpu", "cuda"):
        with pytest.raises(
            ValueError, match=rf"^accelerator={accelerator}: torch finds no GPU here; say auto, or cpu$"
        ):
            device_of(accelerator)


def test_the_gpu_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps"))
    assert device_here() == device_of("gpu") == torch.device("mps")
    with pytest.raises(ValueError, match="accelerator=cuda: torch finds no GPU here"):
        device_of("cuda")
