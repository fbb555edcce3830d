"""A trainer made in Python says what it uses, and advertises nothing."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import lightning as L
import pytest

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.tips import LOGGER, leave_out_tips
from tests.toy import toy_module, toy_trainer


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


def test_what_lightning_says_of_itself_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    """A run without validation sets has both warnings; one of the same words from elsewhere is heard."""
    words = ("`isinstance(treespec, LeafSpec)` is deprecated", "Total length of `list` across ranks is zero")
    source = SyntheticSource(8, split="train")
    data = PreferenceDataModule(world_tokenizer(), source, val_fraction=0.0, batch_pairs=4, cache_dir=tmp_path)
    for left_out in (False, True):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            if left_out:
                leave_out_tips()
            toy_trainer(tmp_path, max_steps=1).fit(toy_module(), data)
            for word in words:
                warnings.warn_explicit(f"{word}, mine", UserWarning, "mine.py", 1, module="mine")
        for word in words:
            said = [str(each.message) for each in heard if word in str(each.message)]
            assert f"{word}, mine" in said
            assert (len(said) == 1) == left_out
