"""JSON and YAML of others that are not what they should be: a sentence with the file, wherever one is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import lightning_rm
from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.annotation.reviews import read_reviews
from lightning_rm.commands._config import config_of
from lightning_rm.commands.annotate import _written_by  # pyright: ignore[reportPrivateUsage]
from lightning_rm.data.formats.fields import Raw
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.evaluation.benchmarks.reading import read_records
from lightning_rm.evaluation.items import Item
from lightning_rm.evaluation.temperature import store_temperature
from lightning_rm.models.backbone.unread import Unread
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.checkpoints import arguments_for
from lightning_rm.publishing.run_facts import read_run
from lightning_rm.rlhf.chat_endpoint import ChatEndpoint
from lightning_rm.rlhf.weighed_file import weighed_by
from tests.toy import toy_model

BROKEN = {
    "deep lists": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "cut off": '{"a": ',
    "a list": "[1]",
    "a number": "3",
    "no UTF-8": b'{"a": "\xff"}',
    "empty": "",
    "a zip": b"PK\x03\x04" + bytes(26),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    toy_model().save_pretrained(folder, world_tokenizer())
    return folder


def _score(folder: Path) -> object:
    return RewardModel.from_pretrained(folder, pad_id=0)


MODEL: dict[str, Callable[[Path], object]] = {
    "config.json": _score,
    "adapter_config.json": _score,
    "checksums.json": _score,
    "model.safetensors.index.json": _score,
    "tokenizer.json": load_tokenizer,
    "tokenizer_config.json": load_tokenizer,
    "special_tokens_map.json": load_tokenizer,
    "added_tokens.json": load_tokenizer,
    "ensemble.json": lightning_rm.load_model,
}


@pytest.mark.parametrize("name", MODEL)
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_files_of_a_model(model: Path, tmp_path: Path, name: str, content: str | bytes) -> None:
    folder = shutil.copytree(model, tmp_path / "broken")
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match="broken"):
        MODEL[name](folder)
    if name in ("config.json", "ensemble.json"):
        with pytest.raises(ValueError, match=name):
            store_temperature(folder, 2.0)
    if name == "model.safetensors.index.json":
        with pytest.raises(ValueError, match=name):
            Unread.at(str(folder), "path")


def _members(folder: Path, content: str) -> object:
    save_file({"heads.score.weight": torch.zeros(1)}, folder / "members.safetensors", {"members": content})
    return MemberRewardModel.load(folder)


def _checkpoint(folder: Path, content: str) -> object:
    torch.save({"state_dict": {}, "backbone": content}, folder / "last.ckpt")
    return arguments_for(BaselineRM, folder / "last.ckpt", {})


def _run(folder: Path, content: str, read: Callable[[Path], object]) -> object:
    (folder / "config.yaml").write_text("name: a\nseed: 0\n")
    (folder / "results.json").write_text(content)
    return read(folder)


def _no_row(part: str, raw: Raw, origin: str) -> Item:
    raise AssertionError(origin)


def _benchmark(folder: Path, content: str) -> object:
    (folder / "task.json").write_text(content)
    return list(read_records("hhh", folder, (), _no_row))


def _parquet(folder: Path, content: str, key: str, read: Callable[[Path], object]) -> object:
    path = folder / "pairs.parquet"
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({key: content}), path)
    return read(path)


def _answer(folder: Path, content: str) -> object:
    options: dict[str, Any] = {"key": None, "request": {}, "max_retries": 0, "requests_per_minute": None, "timeout": 1}
    endpoint = ChatEndpoint("http://localhost:1/v1", str(folder), **options)
    return endpoint._read(content.encode(), 1)  # pyright: ignore[reportPrivateUsage]


def _reviews(folder: Path, content: str) -> object:
    (folder / "reviews.jsonl").write_text(f"{content}\n")
    return read_reviews(folder / "reviews.jsonl")


PLACES: dict[str, Callable[[Path, str], object]] = {
    "the members of a model": _members,
    "the backbone of a checkpoint": _checkpoint,
    "the results of a run": lambda folder, text: _run(folder, text, lambda run: find_runs("runs", run)[0].results()),
    "the results of a run to publish": lambda folder, text: _run(folder, text, lambda run: read_run(run)),
    "a task of BIG-bench": _benchmark,
    "the weights of a Parquet file": lambda folder, text: _parquet(folder, text, "lightning_rm.weights", weighed_by),
    "an answer of a server": _answer,
    "reviews": _reviews,
    "the voters of a Parquet file": lambda folder, text: _parquet(folder, text, "lightning_rm.voters", _written_by),
}
CASES = [(place, kind) for place in PLACES for kind in ("deep lists", "a number")][:-1]  # voters are counted alone


@pytest.mark.parametrize(("place", "kind"), CASES)
def test_json_in_every_other_place(tmp_path: Path, place: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        PLACES[place](tmp_path, str(BROKEN[kind]))
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("text", ["a: " + "[" * 100 + "]" * 100, "a: &a {b: 1}\nc: [*a, *a]", "a: [", "\x00"])
def test_the_configuration_of_a_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    reads: list[Callable[[Path], object]] = [read_run, config_of, lambda run: find_runs("runs", run)]
    for read in reads:
        with pytest.raises(ValueError, match=r"config\.yaml"):
            read(tmp_path)


def test_an_ensemble_does_not_lead_out_of_its_folder(model: Path, tmp_path: Path) -> None:
    for name in ("../model", str(model), "..", "", 3):
        (tmp_path / "ensemble.json").write_text(json.dumps({"members": [name]}))
        with pytest.raises(ValueError, match=r"ensemble\.json names members that are not folders beside it"):
            lightning_rm.load_model(tmp_path)
