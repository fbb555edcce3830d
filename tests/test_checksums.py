"""A flipped byte of weights is found, wherever it is, or it changes nothing."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from lightning_rm.analysis.evidence import Words, evidence_of
from lightning_rm.analysis.runs import Run
from lightning_rm.callbacks import CheckpointFiles
from lightning_rm.callbacks.checkpoint_files import latest_checkpoint, read_checkpoint
from lightning_rm.checksums import (
    CHECKSUMS_FILE,
    check_object,
    check_weights,
    crc32_of,
    with_checksum,
    write_checksums,
    write_checksums_below,
)
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.evaluation.temperature import store_temperature
from lightning_rm.models.backbone.folder import is_of_model
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.parquet_files import write_parquet
from lightning_rm.scoring.load import load_model
from tests.toy import toy_data, toy_model, toy_module, toy_trainer


def flip(path: Path, place: int, copy: Path | None = None, bit: int = 0) -> Path:
    """A file with another bit at a place, under another name."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    copy = copy or path
    copy.write_bytes(content)
    return copy


def same(first: object, second: object) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    return first == second


def test_a_flipped_byte_of_a_checkpoint_is_found_or_harmless(tmp_path: Path) -> None:
    """Every third byte of tensors, pickle, headers, padding and index; torch alone would miss most of the tensors'."""
    whole = tmp_path / "whole.ckpt"
    wanted = {"state_dict": {"a": torch.randn(64)}, "loops": {}, "global_step": 3, "optimizer_states": []}
    CheckpointFiles().save_checkpoint(wanted, whole)
    harmless: list[int] = []
    said: list[str] = []
    for place in range(0, whole.stat().st_size, 3):
        damaged = flip(whole, place, tmp_path / f"{place}.ckpt", bit=place % 8)
        try:
            assert same(read_checkpoint(damaged), wanted), place
            harmless.append(place)
        except ValueError as error:
            said.append(str(error))
        damaged.unlink()
    assert all(".ckpt" in text and "damaged" in text for text in said)
    assert len(said) > 200
    assert harmless  # such as the padding between parts


def test_training_does_not_go_on_from_a_damaged_checkpoint_and_names_the_whole_ones(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for name, steps in (("best", 2), ("resume", 3), ("last", 5)):
        trainer = toy_trainer(tmp_path, max_steps=steps, plugins=[CheckpointFiles()])
        trainer.fit(toy_module(), toy_data())
        trainer.save_checkpoint(folder / f"{name}.ckpt")
    tensor = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]["model.backbone.score.weight"]
    content = (folder / "last.ckpt").read_bytes()
    flip(folder / "last.ckpt", content.index(tensor.numpy().tobytes()) + 5)
    for fit in (
        lambda path: toy_trainer(tmp_path, plugins=[CheckpointFiles()]).fit(toy_module(), toy_data(), ckpt_path=path),
        read_checkpoint,
    ):
        with pytest.raises(ValueError, match=r"last.ckpt is damaged: its part .* has other bytes") as error:
            fit(folder / "last.ckpt")
        assert "Whole ones beside it: best.ckpt (step 2), resume.ckpt (step 3)" in str(error.value)
    with pytest.raises(ValueError, match=r"last.ckpt is damaged"):
        type(toy_module()).load_from_checkpoint(folder / "last.ckpt")
    with pytest.warns(UserWarning, match=r"passed over: .*last.ckpt is damaged"):
        assert latest_checkpoint(tmp_path) == folder / "resume.ckpt"


def test_a_flipped_byte_of_an_exported_model_is_found(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    for place in (0, 9, 200, weights.stat().st_size // 2, weights.stat().st_size - 1):
        copy = shutil.copytree(tmp_path / "model", tmp_path / str(place))
        flip(copy / weights.name, place)
        with pytest.raises(ValueError, match=r"model.safetensors has other bytes than were written"):
            RewardModel.from_pretrained(copy)
    RewardModel.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_flipped_byte_beside_the_weights_is_found(name: str, tmp_path: Path) -> None:
    """Another base of rotary positions, a word of the vocabulary or a turn's mark is other rewards and no error."""
    toy_model().save_pretrained(tmp_path, world_tokenizer())
    whole = (tmp_path / name).read_bytes()
    draw = random.Random(0)
    for _ in range(25):
        flip(tmp_path / name, draw.randrange(len(whole)), bit=draw.randrange(8))
        with pytest.raises(ValueError, match=rf"{name} has other bytes than were written"):
            (load_tokenizer if draw.random() < 0.5 else RewardModel.from_pretrained)(tmp_path)
        (tmp_path / name).write_bytes(whole)
    RewardModel.from_pretrained(tmp_path, tokenizer=load_tokenizer(tmp_path))


def test_a_flipped_byte_of_an_ensemble_is_found(tmp_path: Path) -> None:
    RewardEnsemble([toy_model(), toy_model()], "mean").save_pretrained(tmp_path, world_tokenizer())
    whole = (tmp_path / "ensemble.json").read_bytes()
    for place in range(len(whole)):
        flip(tmp_path / "ensemble.json", place, bit=place % 8)
        with pytest.raises(ValueError, match=r"ensemble.json has other bytes than were written"):
            load_model(tmp_path)
    (tmp_path / "ensemble.json").write_bytes(whole)
    load_model(tmp_path)


def test_a_temperature_is_stored_with_the_checksum_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before the last step leaves the file without a checksum, and no wrong one."""
    toy_model().save_pretrained(tmp_path)
    store_temperature(tmp_path, 2.0)
    told = json.loads((tmp_path / CHECKSUMS_FILE).read_text())
    assert int(told["config.json"]["crc32"], 16) == crc32_of(tmp_path / "config.json")
    with monkeypatch.context() as patch:
        patch.setattr("lightning_rm.checksums._checksum", lambda path: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            store_temperature(tmp_path, 3.0)
    assert list(json.loads((tmp_path / CHECKSUMS_FILE).read_text())) == ["model.safetensors"]
    RewardModel.from_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["lightning_rm"] == {"temperature": 3.0}


def test_what_a_run_left_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A digit of a result, a point of a curve, a letter of a worst pair: each was read as it stood."""
    run = SimpleNamespace(folder=tmp_path)
    files = {
        "results.json": b'{"val": {"accuracy": 0.75}}',
        "csv/metrics.csv": b"step,val/accuracy\n4,0.75\n",
        "pairs/val_val_worst.jsonl": b'{"row": 1, "id": "a", "prompt": "b", "chosen": "c", "rejected": "d"}\n',
    }
    pairs = {name: [1.0] for name in ("chosen", "rejected", "label", "clean")}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    write_parquet(pa.table(pairs | {"row": [1], "subset": ["s"]}), tmp_path / "pairs" / "val_val.parquet")
    write_checksums_below(tmp_path, ["csv/*", "pairs/*"], {"results.json": files["results.json"]})
    whole = evidence_of(cast(Run, run))
    assert not whole.lacks
    assert whole.words == {"val": {1: Words("a", "b", "c", "d")}}
    for name in (*files, "pairs/val_val.parquet"):
        content = (tmp_path / name).read_bytes()
        for place in range(0, len(content), 1 + len(content) // 30):
            flip(tmp_path / name, place, bit=place % 8)
            (said,) = evidence_of(cast(Run, run)).lacks
            assert said.startswith(f"{name} cannot be read: {tmp_path / name} has other bytes than were written")
        (tmp_path / name).write_bytes(content)


def test_an_object_with_its_checksum_says_what_was_written() -> None:
    told = json.loads(json.dumps(with_checksum({"a": {"b": [0.1, None, "c"]}, "d": 1e-300})))
    check_object(told, "it")
    check_object({"a": 1}, "it")
    for wrong in (told | {"a": {"b": [0.1, None, "d"]}}, told | {"e": 1}, told | {"crc32": "0"}):
        with pytest.raises(ValueError, match="it says something else than was written"):
            check_object(wrong, "it")


def test_checksums_name_files_of_their_folder_and_are_none_of_a_folder_without_them(tmp_path: Path) -> None:
    check_weights(tmp_path)
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    write_checksums(tmp_path, is_of_model)
    told = json.loads((tmp_path / CHECKSUMS_FILE).read_text())
    size = (tmp_path / "model.safetensors").stat().st_size
    assert told == {"model.safetensors": {"bytes": size, "crc32": f"{crc32_of(tmp_path / 'model.safetensors'):08x}"}}
    check_weights(tmp_path)
    for wrong in ("", "[]", '{"a": 1}', '{"a": {"bytes": 1}}', '{"a": {"bytes": 1e999}}', "[" * 100_000):
        (tmp_path / CHECKSUMS_FILE).write_text(wrong)
        with pytest.raises(ValueError, match=r"checksums.json is damaged"):
            check_weights(tmp_path)
