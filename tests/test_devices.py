"""Devices that a user names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_rm.devices import known_device


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "", "meta", -1, 1.5])
def test_a_device_that_is_not_here_is_a_sentence(device: Any) -> None:
    with pytest.raises(ValueError, match=rf"^device='{device}': this machine has cpu.* \(.+\)$"):
        known_device(device)


def test_a_device_that_is_here() -> None:
    assert known_device("cpu") == known_device(torch.device("cpu")) == torch.device("cpu")
