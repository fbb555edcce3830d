from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lightning_rm.callbacks import PairRecorder, PairRecords
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import PairRow
from lightning_rm.data.synthetic.pairs import SyntheticSource
from tests.float64 import roughly, same
from tests.toy import toy_data, toy_module, toy_trainer


def test_records_hold_every_pair_once_in_order(tmp_path: Path) -> None:
    module = toy_module()
    trainer = toy_trainer(tmp_path, callbacks=[PairRecorder(tmp_path)])
    [metrics] = trainer.validate(module, toy_data(), verbose=False)
    table = pq.read_table(tmp_path / "val_val.parquet").to_pydict()
    margin = np.array(table["chosen"]) - np.array(table["rejected"])
    assert table["row"] == list(range(7))
    assert table["file"] == table["line"] == [None] * 7  # made data
    assert (margin > 0).mean() == same(metrics["val/accuracy"])
    assert margin.mean() == roughly(metrics["val/margin"])


def test_records_are_joined_to_the_data(tmp_path: Path) -> None:
    """By id, or by file and line, past a row that is left out."""
    rows = [row for row in SyntheticSource(4, split="val") if isinstance(row, PairRow)]
    lines = [{"id": row.id, "prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected} for row in rows]
    lines[1] = {"id": "bad"}
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    data = toy_data()
    data = PreferenceDataModule(data.tokenizer, val=file, on_bad_row="drop", batch_pairs=2, cache_dir=tmp_path)
    toy_trainer(tmp_path, callbacks=[PairRecorder(tmp_path)]).validate(toy_module(), data, verbose=False)
    table = pq.read_table(tmp_path / "val_val.parquet").to_pydict()
    assert table["id"] == [rows[place].id for place in (0, 2, 3)]
    assert table["prompt_id"] == [data.datasets["val"].place(place).prompt_id for place in range(3)]
    assert table["file"] == [str(file)] * 3
    assert table["line"] == [1, 3, 4]
    [worst, *_] = map(json.loads, (tmp_path / "val_val_worst.jsonl").read_text(encoding="utf-8").splitlines())
    assert worst["where"] == f"{file}:{table['line'][worst['row']]}"


def test_the_worst_pairs_are_kept_in_words(tmp_path: Path) -> None:
    module, data = toy_module(), toy_data()
    trainer = toy_trainer(tmp_path, callbacks=[PairRecorder(tmp_path, num_worst=3)])
    trainer.validate(module, data, verbose=False)
    table = pq.read_table(tmp_path / "val_val.parquet").to_pydict()
    rows = [json.loads(line) for line in (tmp_path / "val_val_worst.jsonl").read_text().splitlines()]
    margin = np.array(table["chosen"]) - np.array(table["rejected"])
    assert [row["row"] for row in rows] == np.argsort(margin, kind="stable")[:3].tolist()
    for row in rows:
        text = data.datasets["val"].text(row["row"])
        assert [row[name] for name in ("id", "prompt", "chosen", "rejected")] == [
            text.id,
            text.prompt,
            text.chosen,
            text.rejected,
        ]
        assert row["reward chosen"] == same(table["chosen"][row["row"]])


def test_the_worst_pairs_are_those_ranked_most_against_their_label() -> None:
    """Margins +1, -2, +3, -0.5; the third pair's label is flipped, so its margin counts as -3."""
    records = PairRecords(
        data_set="val",
        row=np.arange(4),
        subset=["all"] * 4,
        chosen=np.array([1.0, 0.0, 3.0, 0.0]),
        rejected=np.array([0.0, 2.0, 0.0, 0.5]),
        label=np.array([1.0, 1.0, 0.0, 1.0]),
        clean=np.full(4, np.nan),
    )
    assert records.worst(3).tolist() == [2, 1, 3]


def test_a_response_by_itself_is_no_pair_to_read() -> None:
    """Of margins +1, 0 of a response and itself, and 0 of a tie between two, the tie is read before the right pair."""
    records = PairRecords(
        data_set="val",
        row=np.arange(3),
        subset=["all"] * 3,
        chosen=np.array([1.0, 2.0, 3.0]),
        rejected=np.array([0.0, 2.0, 1.0]),
        label=np.array([1.0, 0.5, 0.5]),
        clean=np.full(3, np.nan),
    )
    assert records.worst(3).tolist() == [2, 0]
