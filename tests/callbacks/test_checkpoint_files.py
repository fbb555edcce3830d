"""A checkpoint is the old one or the new one, whatever the disk says; and what is none is said to be none."""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_rm.callbacks import BestCheckpoint, CheckpointFiles, HuggingFaceCheckpoint, LastCheckpoint
from lightning_rm.callbacks.checkpoint_files import latest_checkpoint, read_checkpoint
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from tests.toy import toy_data, toy_module, toy_trainer

SMALL = {"state_dict": {}, "loops": {}, "global_step": 1, "optimizer_states": []}


@contextmanager
def full_disk(size: int) -> Generator[None]:
    """No file may be larger than that many bytes: the disk's own error comes in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_leaves_the_checkpoint_of_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "last.ckpt"
    CheckpointFiles().save_checkpoint(SMALL, path)
    for size in (0, 100, 20_000):
        with full_disk(size), pytest.raises(OSError, match=r"File too large: '.*deep/last\.ckpt'"):
            CheckpointFiles().save_checkpoint(SMALL | {"state_dict": {"a": torch.zeros(100_000)}}, path)
    assert read_checkpoint(path)["global_step"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First its bytes, while what has its name is the one of before; then, once it is renamed, the name."""
    path = tmp_path / "last.ckpt"
    CheckpointFiles().save_checkpoint(SMALL, path)
    before, synced = path.stat().st_ino, list[tuple[int, int]]()
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_ino, path.stat().st_ino)))
    CheckpointFiles().save_checkpoint(SMALL, path)
    after = path.stat().st_ino
    assert synced == [(after, before), (tmp_path.stat().st_ino, after)]


def test_what_goes_wrong_in_a_run_is_raised_at_once(tmp_path: Path) -> None:
    """A file where the folder is due; Lightning's own writer says nothing until the end."""
    (tmp_path / "checkpoints").write_text("a file")
    trainer = toy_trainer(tmp_path, plugins=[CheckpointFiles()])
    trainer.fit(toy_module(), toy_data())
    with pytest.raises(OSError, match="checkpoints"):
        trainer.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    whole = tmp_path / "whole.ckpt"
    CheckpointFiles().save_checkpoint(SMALL | {"state_dict": {"a": torch.arange(1000)}}, whole)
    assert torch.equal(read_checkpoint(whole)["state_dict"]["a"], torch.arange(1000))
    content = whole.read_bytes()
    wrong = {
        "empty": (b"", "is empty"),
        "half": (content[: len(content) // 2], "cannot be read as a checkpoint: it is cut off"),
        "text": (b"no checkpoint\n" * 50, "cannot be read as a checkpoint"),
        "pickle": (pickle.dumps(print), "cannot be read as a checkpoint"),
    }
    for name, (bytes_of, message) in wrong.items():
        (tmp_path / name).write_bytes(bytes_of)
        with pytest.raises(ValueError, match=rf"{name} {message}"):
            read_checkpoint(tmp_path / name)
    torch.save({"state_dict": {}}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match="has no loops, global_step, optimizer_states"):
        read_checkpoint(tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match="is a folder; name a checkpoint"):
        read_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="there is no such checkpoint"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_the_latest_of_a_run_is_the_one_of_most_steps_that_can_be_read(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for name, step in (("best", 4), ("last", 6), ("resume", 5)):
        CheckpointFiles().save_checkpoint(SMALL | {"global_step": step}, tmp_path / "checkpoints" / f"{name}.ckpt")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"cut")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "resume.ckpt"


@pytest.mark.filterwarnings("ignore:(Checkpoint directory|The dirpath has changed).*")
@pytest.mark.parametrize("lost", [None, "checkpoints/best.ckpt", "model/best"])
def test_best_and_last_have_one_name_each_and_the_best_is_the_exported(tmp_path: Path, lost: str | None) -> None:
    """Of epochs 1, 2 and 3 the first is the best; the third is trained by a second run, in the folder as it lies now.

    Where a part of the best is lost both begin anew, so that what is measured is what was exported.
    """
    scores = iter([3.0, 1.0, 2.0])

    def fit(run: Path, epochs: int, resume: Path | None = None) -> BestCheckpoint:
        best = BestCheckpoint(run / "checkpoints", "val/score", "max", exported=run / "model" / "best")
        export = HuggingFaceCheckpoint(
            run / "model", world_tokenizer(), "val/score", beside=run / "checkpoints/best.ckpt"
        )
        module = toy_module()
        module.on_validation_epoch_end = lambda: module.log("val/score", next(scores))
        callbacks = [best, LastCheckpoint(run / "checkpoints"), export]
        trainer = toy_trainer(run, max_epochs=epochs, callbacks=callbacks, enable_checkpointing=True)
        trainer.fit(module, toy_data(), ckpt_path=resume, weights_only=True)
        return best

    fit(tmp_path / "run", 2)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    steps = {name: read_checkpoint(moved / "checkpoints" / f"{name}.ckpt")["global_step"] for name in ("best", "last")}
    assert steps == {"best": 6, "last": 12}
    if lost:
        (moved / lost).rename(tmp_path / "lost")
    best = fit(moved, 3, moved / "checkpoints" / "last.ckpt")
    assert sorted(path.name for path in (moved / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    found = read_checkpoint(best.best_model_path)
    assert (found["global_step"], best.best_model_score) == ((18, 2.0) if lost else (6, 3.0))
    exported = load_file(moved / "model" / "best" / "model.safetensors")["score.weight"]
    assert torch.equal(exported, found["state_dict"]["model.backbone.score.weight"])


def test_a_run_that_ends_within_an_epoch_has_its_end_as_the_last(tmp_path: Path) -> None:
    last = LastCheckpoint(tmp_path / "checkpoints")
    toy_trainer(tmp_path, max_steps=4, callbacks=[last], enable_checkpointing=True).fit(toy_module(), toy_data())
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 4
