"""A resumed run reads exactly the rest, wherever the run before ended, or is refused."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_rm.data.rows import PairRow
from lightning_rm.strength import adaptive_margin, flip, label_smoothing
from tests.data.datamodule.given import NUM_TRAIN, Recorder, Rows, data, every_epoch, every_step, pair, source, trainer
from tests.float64 import same


def fit(folder: Path, options: dict[str, Any], resume: Path | None = None, **module: Any) -> Recorder:
    workers, sets = options.get("num_workers", 0), {"order": options.get("order", "length")}
    recorder = Recorder(**module)
    others = {key: value for key, value in options.items() if key not in ("num_workers", "order")}
    trainer(folder, **others).fit(
        recorder, data(num_workers=workers, **sets), ckpt_path=resume, weights_only=True if resume else None
    )
    return recorder


@pytest.mark.parametrize("asks_for_steps", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_a_resumed_run_reads_exactly_the_rest(tmp_path: Path, accumulate: int, asks_for_steps: bool) -> None:
    """From a checkpoint after every optimizer step of two epochs, those at their ends included."""
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate}
    whole = fit(tmp_path, options | {"callbacks": [every_step(tmp_path)]})
    assert len(whole.read) == 24
    steps_an_epoch = -(-12 // accumulate)
    for step in range(1, 2 * steps_an_epoch):
        epoch, within = divmod(step, steps_an_epoch)
        done = 12 * epoch + min(12, within * accumulate)
        rest = fit(tmp_path, options, tmp_path / f"step={step}.ckpt", asks_for_steps=asks_for_steps)
        assert rest.read == whole.read[done:], f"resumed after step {step}"
        assert rest.gradients == same(whole.gradients[step:])


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [2, 6])
def test_a_resumed_run_with_workers_reads_exactly_the_rest(tmp_path: Path, accumulate: int, step: int) -> None:
    options = {"accumulate_grad_batches": accumulate, "num_workers": 2}
    whole = fit(tmp_path, options | {"callbacks": [every_step(tmp_path)]})
    rest = fit(tmp_path, options, tmp_path / f"step={step}.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[step * accumulate :]


@pytest.mark.parametrize("at_epoch_end", [False, True])
def test_a_run_resumed_between_epochs_reads_the_next(tmp_path: Path, at_epoch_end: bool) -> None:
    """Saved when validation ends an epoch, or when the epoch itself ends."""
    callbacks = [every_epoch(tmp_path, at_epoch_end)]
    whole = fit(tmp_path, {"callbacks": callbacks, "max_epochs": 3})
    rest = fit(tmp_path, {"max_epochs": 3}, tmp_path / "step=12.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[12:]
    assert len(rest.read) == 24


def test_a_run_resumed_after_a_validation_within_the_epoch(tmp_path: Path) -> None:
    whole = fit(tmp_path, {"callbacks": [every_epoch(tmp_path, False)], "val_check_interval": 4})
    rest = fit(tmp_path, {"val_check_interval": 4}, tmp_path / "step=8.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[8:]


def test_a_batch_that_failed_is_read_again(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, "failed", save_on_exception=True)
    whole = fit(tmp_path, {})
    with pytest.raises(RuntimeError, match="fails"):
        fit(tmp_path, {"callbacks": [saved]}, fail_at=7)
    rest = fit(tmp_path, {}, tmp_path / "failed.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[7:]


class LateStrategy(SingleDeviceStrategy):
    """Reads the checkpoint after the optimizers are set up, as sharded strategies do."""

    restore_checkpoint_after_setup = True


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_whose_checkpoint_is_read_late(tmp_path: Path, num_workers: int) -> None:
    whole = fit(tmp_path, {"callbacks": [every_step(tmp_path)], "accumulate_grad_batches": 2})
    options = {"strategy": LateStrategy("cpu"), "num_workers": num_workers, "accumulate_grad_batches": 2}
    rest = fit(tmp_path, options, tmp_path / "step=9.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[18:]


def test_a_run_that_is_resumed_twice(tmp_path: Path) -> None:
    whole = fit(tmp_path, {})
    fit(tmp_path, {"callbacks": [every_step(tmp_path)], "max_steps": 5, "max_epochs": -1})
    second = {"callbacks": [every_step(tmp_path)], "max_steps": 15, "max_epochs": -1}
    fit(tmp_path, second, tmp_path / "step=5.ckpt")
    rest = fit(tmp_path, {}, tmp_path / "step=15.ckpt")
    assert rest.read == whole.read[15:]


def test_resuming_with_other_batches_is_an_error(tmp_path: Path) -> None:
    fit(tmp_path, {"callbacks": [every_step(tmp_path)], "max_epochs": 1})
    with pytest.raises(ValueError, match=r"after micro-batch 4 of 12.*accumulate_grad_batches=1, now 2.*Resume with"):
        fit(tmp_path, {"accumulate_grad_batches": 2}, tmp_path / "step=4.ckpt")
    with pytest.raises(ValueError, match="order=length, now random"):
        fit(tmp_path, {"order": "random"}, tmp_path / "step=4.ckpt")
    between = fit(tmp_path, {"order": "random"}, tmp_path / "step=12.ckpt")
    assert len(between.read) == 12


STRONG = {"strength_mean": 1.0, "strength_std": 1.0, "votes": (0.0, 2.0)}


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (
            {"train": source(NUM_TRAIN)},
            {"train": Rows([*source(NUM_TRAIN - 1).rows, pair(99)])},
            r"pairs=23 \(fingerprint \w{12}\), now 23 \(fingerprint \w{12}\)\. Resume",
        ),
        (
            {"train": source(NUM_TRAIN, label=1.0)},
            {"train": source(NUM_TRAIN, label=0.5)},
            r"pairs=23 \(fingerprint \w{12}\), now 23 \(fingerprint",
        ),
        (
            {"treatments": {"flip": partial(flip, below_quantile=0.1)}},
            {"treatments": {"flip": partial(flip, below_quantile=0.2, keep_margin=True)}},
            r"treatments=1\. flip\(below_quantile=0\.1\), now 1\. flip\(below_quantile=0\.2, keep_margin=True\)",
        ),
        (
            {},
            {"treatments": [partial(label_smoothing, alpha=0.1), adaptive_margin]},
            r"treatments=None, now 1\. label_smoothing\(alpha=0\.1\), 2\. adaptive_margin\(\)",
        ),
    ],
)
def test_resuming_on_other_pairs_or_treatments_is_an_error(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], message: str
) -> None:
    """All have 23 pairs: their number alone would not tell."""
    strong = {"train": source(NUM_TRAIN, **STRONG)}
    trainer(tmp_path, callbacks=[every_step(tmp_path)], max_epochs=1).fit(Recorder(), data(**strong | before))
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(Recorder(), data(**strong | now), ckpt_path=tmp_path / "step=4.ckpt", weights_only=True)
    between = Recorder()
    trainer(tmp_path).fit(between, data(**strong | now), ckpt_path=tmp_path / "step=12.ckpt", weights_only=True)
    assert len(between.read) == 12


def test_a_run_is_resumed_from_a_renamed_file_and_another_cache(tmp_path: Path) -> None:
    lines = [
        json.dumps({name: getattr(row, name) for name in ("prompt", "chosen", "rejected", *STRONG)} | {"id": row.id})
        for row in source(NUM_TRAIN, **STRONG).rows
        if isinstance(row, PairRow)
    ]
    read: list[Recorder] = []
    for number, (name, step) in enumerate((("pairs.jsonl", None), ("moved/other.jsonl", 4))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n".join(lines))
        named = {"flip": partial(flip, below_quantile=0.1)}
        treatments = [*named.values()] if number else named
        data_module = data(train=tmp_path / name, cache_dir=tmp_path / f"cache{number}", treatments=treatments)
        read.append(Recorder())
        trainer(tmp_path, callbacks=[every_step(tmp_path)]).fit(
            read[-1], data_module, ckpt_path=tmp_path / f"step={step}.ckpt" if step else None, weights_only=True
        )
    assert read[1].read == read[0].read[4:]


def test_resuming_within_a_step_says_what_is_lost(tmp_path: Path) -> None:
    options = {"val_check_interval": 3, "accumulate_grad_batches": 2}
    whole = fit(tmp_path, options | {"callbacks": [every_epoch(tmp_path, False)]})
    with pytest.warns(UserWarning, match="gradients of 1 micro-batches are lost"):
        rest = fit(tmp_path, options, tmp_path / "step=1.ckpt")
    assert rest.read == whole.read[3:]


def test_no_warning_that_the_loader_cannot_resume(tmp_path: Path) -> None:
    fit(tmp_path, {"callbacks": [every_step(tmp_path)]})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not resumable.*")
        assert len(fit(tmp_path, {}, tmp_path / "step=5.ckpt").read) == 19


def test_a_checkpoint_can_be_tested(tmp_path: Path) -> None:
    fit(tmp_path, {"callbacks": [every_step(tmp_path)]})
    module = Recorder()
    trainer(tmp_path).test(module, data(), ckpt_path=tmp_path / "step=5.ckpt", weights_only=True, verbose=False)
    assert len(module.shown) == 2


def test_the_loader_of_a_finished_run_starts_at_the_beginning(tmp_path: Path) -> None:
    data_module = data()
    trainer(tmp_path).fit(Recorder(), data_module)
    assert len(list(data_module.train_dataloader())) == 12
