"""A trainer made in Python says what it uses, and advertises nothing."""

from __future__ import annotations

import logging

import lightning as L
import pytest

from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.tips import LOGGER


def test_a_trainer_says_what_it_uses_and_gives_no_tip(caplog: pytest.LogCaptureFixture) -> None:
    assert issubclass(PairwiseRM, L.LightningModule)  # importing it is all that it takes
    log = logging.getLogger(LOGGER)
    log.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger=LOGGER):
            L.Trainer(accelerator="cpu", logger=False)
    finally:
        log.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.records]
    assert any(message.startswith("GPU available") for message in said)
    assert not any("Tip" in message for message in said)
