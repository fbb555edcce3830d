"""Gradient spikes: which norms are some, which are kept, and what a run says and writes of them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.callbacks import ResumeCheckpoint, SpikeRecorder
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.spikes import KEPT, LEAST, WINDOW, GradientSpikes, Spike
from tests.bits import shards as streamed
from tests.toy import toy_model, toy_trainer, write_jsonl

CPU = torch.device("cpu")


def seen(factor: float | None, *norms: float) -> GradientSpikes:
    """Of steps whose rows are their own number, and a filler."""
    spikes = GradientSpikes(factor)
    for step, norm in enumerate(norms):
        spikes.see(step, norm, [torch.tensor([step, -1])])
    return spikes


def test_a_norm_is_held_against_the_median_before_it() -> None:
    """Twenty norms 1, 2, 1, 2, ... have the median 1.5: 15 is not above ten times it, 15.1 is, and moves it to 2."""
    before = [1.0, 2.0] * (LEAST // 2)
    assert seen(10.0, *before, 15.0).num == 0
    spikes = seen(10.0, *before, 15.1)
    assert spikes.kept == [(20, 15.1, 1.5, (20,))]
    assert spikes.kept[0].times == 15.1 / 1.5
    spikes.see(21, 20.1, [torch.tensor([7])])
    assert spikes.kept[1] == (21, 20.1, 2.0, (7,))
    assert spikes.told() == (
        "2 optimizer steps had a gradient over 10 times as long as those before, the longest 10.1 times at step 20"
    )


def test_without_a_level_or_a_factor_there_is_no_spike() -> None:
    assert seen(10.0, *[1.0] * (LEAST - 1), 100.0).num == 0
    assert seen(10.0, *[0.0] * LEAST, 100.0).num == 0
    off = seen(None, *[1.0] * LEAST, 100.0)
    assert (off.num, off.told()) == (0, "")
    with pytest.raises(ValueError, match="spike_factor=1: give a number above 1"):
        GradientSpikes(1)


def test_norms_that_stay_high_become_the_level() -> None:
    spikes = seen(10.0, *[1.0] * WINDOW, *[20.0] * WINDOW)
    assert spikes.num == WINDOW // 2


def test_the_largest_are_kept_and_all_are_counted() -> None:
    norms = [1.0] * WINDOW + [norm for place in range(30) for norm in (20.0 + (7 * place) % 30, *[1.0] * 5)]
    spikes = seen(10.0, *norms)
    assert spikes.num == 30
    assert sorted(spike.norm for spike in spikes.kept) == [30.0 + place for place in range(KEPT)]
    steps = [spike.step for spike in spikes.kept]
    assert steps == sorted(steps)


def test_what_a_checkpoint_has_goes_on() -> None:
    norms = [*[1.0, 2.0] * LEAST, 40.0, *[1.0, 3.0] * LEAST, 50.0]
    whole, first = seen(5.0, *norms), seen(5.0, *norms[:50])
    state = json.loads(json.dumps(first.state(CPU)))
    second = GradientSpikes(5.0)
    second.load(state, rank=0)
    for step, norm in enumerate(norms[50:], 50):
        second.see(step, norm, [torch.tensor([step, -1])])
    assert second.state(CPU) == whole.state(CPU)
    other = GradientSpikes(5.0)
    other.load(state, rank=1)  # whose pairs the first rank has
    assert [spike.rows for spike in other.kept] == [()]


class Jolted(BaselineRM):
    """One step's loss is a hundred times as large."""

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        losses = super().losses(batch, output)
        return {**losses, "loss": losses["loss"] * (100 if self.global_step == LEAST + 1 else 1)}


def test_a_run_writes_its_spikes_with_the_places_of_their_pairs(tmp_path: Path) -> None:
    """Also one that stopped and went on in the step before, and a fused optimizer's."""
    file, out = tmp_path / "pairs.jsonl", tmp_path / "spikes.jsonl"
    write_jsonl(file, SyntheticSource(48, split="train"))
    ids = [json.loads(line)["id"] for line in file.read_text().splitlines()]
    written: list[str] = []
    options: dict[str, Any] = {"gradient_clip_val": 1.0, "log_every_n_steps": 1}
    for resume in (None, tmp_path / "checkpoints" / "resume.ckpt"):
        module = Jolted(toy_model(), partial(torch.optim.AdamW, lr=1e-3, fused=True))
        data = PreferenceDataModule(
            world_tokenizer(), train=FileSource(file), batch_pairs=2, order="random", cache_dir=tmp_path / "cache"
        )
        callbacks = [SpikeRecorder(out), ResumeCheckpoint(tmp_path / "checkpoints" / "resume.ckpt", LEAST)]
        trainer = toy_trainer(tmp_path, callbacks=callbacks, **options)
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        written.append(out.read_text())
        out.unlink()
    assert written[0] == written[1]
    (spike,) = map(json.loads, written[0].splitlines())
    assert spike["step"] == LEAST + 1
    assert spike["norm"] > 10 * spike["level"] > 0
    assert len(spike["pairs"]) == 2
    for pair in spike["pairs"]:
        assert pair["id"] == ids[pair["line"] - 1]
        assert pair["file"] == str(file)
    assert trainer.callback_metrics["train/gradient_spikes"] == 1
    assert module.finite.counts() == {
        "skipped_steps": 0.0,
        "gradient_spikes": 1.0,
        "largest_gradient_spike": spike["norm"] / spike["level"],
    }


def test_pairs_that_are_streamed_are_named_by_their_shards(tmp_path: Path) -> None:
    shards = streamed(tmp_path)
    data = PreferenceDataModule(world_tokenizer(), train=shards, batch_pairs=4, order="random", layout="packed")
    module = BaselineRM(toy_model(), partial(torch.optim.SGD, lr=1e-3))
    found = LambdaCallback(on_train_start=lambda *_: module.finite.spikes.kept.append(Spike(0, 30.0, 1.0, (0, 13))))
    callbacks = [found, SpikeRecorder(tmp_path / "spikes.jsonl")]
    trainer = toy_trainer(tmp_path, max_epochs=None, max_steps=1, callbacks=callbacks)
    trainer.fit(module, data)
    first, second = json.loads((tmp_path / "spikes.jsonl").read_text())["pairs"]
    assert first == {"row": 0, "file": f"{tmp_path}/s0.parquet", "line": 0}
    assert second == {"row": 13, "file": f"{tmp_path}/s1.parquet", "line": 1}
