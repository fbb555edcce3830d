"""Files from somebody else that would run code: refused, and nothing is run. Others stand beside what they attack:
weights and checkpoints in `models/backbone/test_loading.py` and `callbacks/test_checkpoint_files.py`, long lines and
gzip files without end in `data/sources/test_files.py`, targets in `commands/test_targets.py`.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.drafts import clear_drafts, folder_draft
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.scoring.parts import Parts
from tests.toy import toy_model

SIDES = ("chosen", "rejected")


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
    with pytest.raises(ValueError, match=r"num_hidden_layers=1,000,000,000, and no model has more than 10,000"):
        RewardModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda head, first, last: {last: head[last] | {"data_offsets": head[first]["data_offsets"]}},  # of another
        lambda head, first, last: {last: head[last] | {"data_offsets": [2**40, 2**40 + 8]}},
        lambda head, first, last: {last: head[last] | {"data_offsets": [-8, 0]}},
        lambda head, first, last: {last: head[last] | {"shape": [2**40, 2**40]}},
    ],
)
def test_weights_that_lie_elsewhere_than_in_their_file_are_refused(change: Any, tmp_path: Path) -> None:
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
