"""Files from somebody else that would run code: refused, and nothing is run. Others stand beside what they attack:
weights and checkpoints in `models/backbone/test_loading.py` and `callbacks/test_checkpoint_files.py`, long lines and
gzip files without end in `data/sources/test_files.py`, targets in `commands/test_targets.py`, JSON in `test_told.py`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from lightning_rm.analysis.evidence import evidence_of
from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.annotation.reviews import read_reviews
from lightning_rm.callbacks.checkpoint_files import read_checkpoint
from lightning_rm.data.rows import BadRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.drafts import clear_drafts
from lightning_rm.evaluation.benchmarks.llmbar import read_row
from lightning_rm.evaluation.benchmarks.reading import read_records
from lightning_rm.folder_drafts import folder_draft
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.scoring.parts import Parts
from tests.toy import toy_model

SIDES = ("chosen", "rejected")
ROOT = Path(__file__).parents[1]


class Runs:
    """What a pickle of it would do where it is read: leave a file."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.sign), "w")


def test_objects_in_numpy_files_are_not_unpickled(tmp_path: Path) -> None:
    hostile = np.array([Runs(tmp_path / "sign")], dtype=object)
    with (tmp_path / "000000.npz").open("wb") as file:
        np.savez(file, rewards=hostile, places=np.zeros(0), reasons=np.zeros(0))
    with pytest.raises(ValueError, match="allow_pickle"):
        Parts(tmp_path).read(0)
    assert not (tmp_path / "sign").exists()


def test_what_is_written_beside_a_parquet_files_columns_is_not_unpickled(tmp_path: Path) -> None:
    """Arrow once unpickled an extension type that a file named."""
    hostile = pickle.dumps(Runs(tmp_path / "sign"))
    marks = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": hostile}
    fields = [pa.field("prompt", pa.string(), metadata=marks), *(pa.field(name, pa.string()) for name in SIDES)]
    schema = pa.schema(fields, metadata={"pandas": "[" * 100_000, "huggingface": "{" * 100_000})
    file = tmp_path / "pairs.parquet"
    pq.write_table(pa.table([["a"], ["b"], ["c"]], schema=schema), file)
    assert [row.origin for row in FileSource(file)] == [f"{file} row 0"]
    content = file.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    for broken in (
        content[:-8] + (2**31 - 1).to_bytes(4, "little") + content[-4:],  # a footer of two gigabytes
        content[: -8 - length] + bytes(reversed(content[-8 - length : -8])) + content[-8:],
    ):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"pairs\.parquet cannot be read as Parquet"):
            list(FileSource(file))
    assert not (tmp_path / "sign").exists()


def test_weights_whose_header_has_no_end_are_refused(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    for length in (2**62, 2**31):
        weights.write_bytes(length.to_bytes(8, "little") + b'{"a":' + b"[" * 1000)
        (tmp_path / "checksums.json").unlink(missing_ok=True)
        with pytest.raises(Exception, match=r"(?i)header|too large"):
            RewardModel.from_pretrained(tmp_path)


def test_an_index_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": {"score.weight": "../elsewhere.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"names weights outside its folder: \.\./elsewhere\.safetensors"):
        RewardModel.from_pretrained(tmp_path / "model")


def test_a_configuration_with_layers_without_end_is_refused(tmp_path: Path) -> None:
    """They are built before the weights are looked at."""
    toy_model().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 10**9}))
    (tmp_path / "checksums.json").unlink()
    with pytest.raises(ValueError, match=r"num_hidden_layers=1,000,000,000, and no model has more than 10,000"):
        RewardModel.from_pretrained(tmp_path)


Change = Callable[[dict[str, Any], str, str], dict[str, Any]]
ELSEWHERE: list[Change] = [
    lambda head, first, last: {last: head[last] | {"data_offsets": head[first]["data_offsets"]}},  # of another
    lambda head, first, last: {last: head[last] | {"data_offsets": [2**40, 2**40 + 8]}},
    lambda head, first, last: {last: head[last] | {"data_offsets": [-8, 0]}},
    lambda head, first, last: {last: head[last] | {"shape": [2**40, 2**40]}},
]


@pytest.mark.parametrize("change", ELSEWHERE)
def test_weights_that_lie_elsewhere_than_in_their_file_are_refused(change: Change, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    whole = (tmp_path / "model.safetensors").read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    head = json.loads(whole[8:length])
    toy_model().backbone.config.save_pretrained(tmp_path)
    text = json.dumps(head | change(head, "a", "b")).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + whole[length:])
    with pytest.raises(ValueError, match="the weights cannot be read"):
        RewardModel.from_pretrained(tmp_path, pad_id=0)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch sign').read() }}",
        "{{ messages.append('x') }}",
    ],
)
def test_a_chat_template_reaches_nothing_but_its_turns(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = world_tokenizer()
    tokenizer.chat_template = template
    turns = [{"role": "user", "content": "a"}]
    with pytest.raises(Exception, match=r"unsafe|undefined"):
        tokenizer.apply_chat_template(turns, tokenize=False)
    assert turns == [{"role": "user", "content": "a"}]
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_a_folder_does_not_lead_a_writer_out_of_it(tmp_path: Path) -> None:
    """What is replaced is the link: the file that it points to stays as it was."""
    secret, folder = tmp_path / "secret", tmp_path / "model"
    secret.write_text("mine")
    folder.mkdir()
    (folder / "config.json").symlink_to(secret)
    (folder / f"a.{'host'}-1-{'0' * 12}.tmp").symlink_to(secret)
    clear_drafts(folder)
    with folder_draft(folder, keep=lambda name: name == "kept") as draft:
        (draft / "config.json").write_text("new")
    assert secret.read_text() == "mine"
    assert (folder / "config.json").read_text() == "new"
    assert not (folder / "config.json").is_symlink()


def archive(kind: str) -> bytes:
    """A row of data in an archive, under a name that leads out of the folder that it is unpacked in."""
    row, file = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n', io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as packed:
            packed.writestr("../a.jsonl", row)
    elif kind == "npz":
        np.savez(file, chosen=np.zeros(3))
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if kind == "tar.gz" else "w") as packed:
            named = tarfile.TarInfo("../a.jsonl")
            named.size = len(row)
            packed.addfile(named, io.BytesIO(row))
    return file.getvalue()


def rows_of(path: Path) -> list[object]:
    """None, where the file as a whole is refused."""
    try:
        return list(FileSource(path))
    except ValueError as error:
        return [] if str(path) in str(error) else [error]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "npz"])
def test_an_archive_in_the_place_of_a_file_is_not_unpacked(kind: str, tmp_path: Path) -> None:
    content, inner = archive(kind), tmp_path / "inner"
    inner.mkdir()
    for suffix in (".jsonl", ".json", ".jsonl.gz", ".parquet"):
        path = inner / f"pairs{suffix}"
        path.write_bytes(content)
        assert all(isinstance(row, BadRow) for row in rows_of(path)), suffix
    toy_model().save_pretrained(tmp_path / "model", world_tokenizer())
    readers: dict[str, Callable[[Path], object]] = {
        "model.safetensors": RewardModel.from_pretrained,
        "pytorch_model.bin": RewardModel.from_pretrained,
        "tokenizer.json": load_tokenizer,
        "last.ckpt": lambda folder: read_checkpoint(folder / "last.ckpt"),
    }
    for name, read in readers.items():
        folder = shutil.copytree(tmp_path / "model", inner / name)
        for file in ("checksums.json", "model.safetensors"):
            (folder / file).unlink()
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            read(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner", "model"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_links_that_lead_to_no_file_are_not_read(tmp_path: Path) -> None:
    """A pipe would be waited for, a device has no end, and a link to a folder above it none either."""
    toy_model().save_pretrained(tmp_path / "model", world_tokenizer())
    benchmark, run = tmp_path / "benchmark", tmp_path / "run"
    for folder in (benchmark, run):
        folder.mkdir()
    (run / "config.yaml").write_text("name: a\nseed: 0\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    for number, target in enumerate(("/dev/zero", "pipe", "self")):
        link = tmp_path / f"{number}.jsonl"
        link.symlink_to(tmp_path / target)
        (benchmark / link.name).symlink_to(link)
        readers: list[Callable[[Path], object]] = [lambda path: list(FileSource(path)), read_reviews]
        for read in readers:
            with pytest.raises(ValueError, match=rf"{link.name}.*(is not a file|symbolic links)"):
                read(link)
        loaders: dict[str, Callable[[Path], object]] = {
            "config.json": RewardModel.from_pretrained,
            "model.safetensors": RewardModel.from_pretrained,
            "tokenizer.json": load_tokenizer,
        }
        for name, load in loaders.items():
            folder = shutil.copytree(tmp_path / "model", tmp_path / f"{number}-{name}")
            (folder / name).unlink()
            (folder / name).symlink_to(link)
            with pytest.raises(ValueError, match=r"no config.json|no file named|no tokenizer"):
                load(folder)
        (run / "results.json").unlink(missing_ok=True)
        (run / "results.json").symlink_to(link)
        assert evidence_of(find_runs("runs", run)[0]).lacks[0] == "no results.json: the run has not ended"
    (benchmark / "up").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="holds no file that can be read"):
        list(read_records("llmbar", benchmark, (), read_row))


def test_every_promise_names_tests_that_are_there() -> None:
    table = (ROOT / "docs" / "security.md").read_text().split("## What is not promised")[0]
    promises = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("|")][2:]
    assert len(promises) > 20
    for what, _, held_by in promises:
        named = re.findall(r"`(tests/[a-z_0-9/]+\.py)`", held_by)
        assert named or "the same" in held_by, what
        assert all((ROOT / name).is_file() for name in named), what
