"""Streamed shards: each pair once a pass over all readers, the same after a kill, nothing kept, limits said."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from lightning_rm.batch import PreferenceBatch
from lightning_rm.data.batches.batching import Batching
from lightning_rm.data.batches.share import Share
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.sources.shards import ParquetShards
from lightning_rm.data.stream_loader import StreamLoader
from lightning_rm.data.streaming import StreamedPairs
from lightning_rm.data.tokenize.pairs import TokenizePolicy
from lightning_rm.strength import treatments
from tests.data.words import word_tokenizer
from tests.stubs import running

CONF = Path(__file__).parents[2] / "conf"
NUM_ROWS, NUM_SHARDS, GROUP = 96, 4, 6


def table(start: int, count: int, bad: frozenset[int] = frozenset()) -> Any:
    rows = range(start, start + count)
    return pa.table(
        {
            "prompt": [f"w{i % 40} w{i // 40}" for i in rows],
            "chosen": [f"w1 {'w2 ' * (i % 7)}w3" for i in rows],
            "rejected": [f"w1 {'w2 ' * (i % 7)}w3" if i in bad else f"w4 {'w5 ' * (i % 3)}" for i in rows],
        }
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four shards of four row groups, and a folder of temporary files that can be looked at."""
    each = NUM_ROWS // NUM_SHARDS
    for shard in range(NUM_SHARDS):
        pq.write_table(table(shard * each, each), tmp_path / f"s{shard}.parquet", row_group_size=GROUP)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


def shards(folder: Path, buffer_pairs: int = 16, **options: Any) -> ParquetShards:
    return ParquetShards(folder / "s*.parquet", buffer_pairs=buffer_pairs, **options)


def loader(source: ParquetShards, rank: int = 0, world_size: int = 1, workers: int = 0, **policy: Any) -> StreamLoader:
    batching = Batching("padded", "last", 3, "length", 4, None, None, workers, 7)
    return StreamLoader(StreamedPairs(source, word_tokenizer(), TokenizePolicy(**policy), batching, rank, world_size))


def rows_of(loader: Any) -> list[list[int]]:
    return [batch.row.tolist() for batch in loader]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (2, 0), (4, 0)])
def test_every_pair_is_read_once_over_all_ranks(folder: Path, world_size: int, workers: int) -> None:
    """96 rows in batches of 4: an epoch and the next hold every row twice, and never in one order."""
    source = shards(folder)
    loaders = [loader(source, rank, world_size, workers) for rank in range(world_size)]
    first, second = ([rows_of(one) for one in loaders] for _ in range(2))
    assert {len(batches) for batches in [*first, *second]} == {NUM_ROWS // 4 // world_size} == {len(loaders[0])}
    for epoch in (first, second):
        assert sorted(row for batches in epoch for row in flat(batches)) == list(range(NUM_ROWS))
    assert first != second
    assert list((folder / "tmp").iterdir()) == []  # a buffer's file is gone


def test_two_workers_read_every_pair_once(folder: Path) -> None:
    one = loader(shards(folder), workers=2)
    first, second = rows_of(one), rows_of(one)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(NUM_ROWS))
    assert one.report.kept == one.report.read == 2 * NUM_ROWS


@pytest.mark.parametrize("workers", [0, 2])
def test_any_batch_is_a_place_to_go_on_from(folder: Path, workers: int) -> None:
    """Also where the epoch's end, a pass's end and a buffer's end are other batches; positions are plain numbers."""
    source = shards(folder)
    whole = loader(source, workers=workers, identical="drop")
    epochs = [rows_of(whole) for _ in range(2)]
    for trained in (1, 3, 4, 5, 11) if workers == 0 else (3,):
        stopped = loader(source, workers=workers)
        given = iter(stopped)
        read = [next(given).row.tolist() for _ in range(trained + 1)]  # one more was asked for and not trained on
        position = json.loads(json.dumps(stopped.position(trained)))
        again = loader(source, workers=workers)
        again.go_on(position, trained)
        assert read[:trained] + rows_of(again) == epochs[0]
        assert rows_of(again) == epochs[1]


def test_the_first_pairs_are_shown_as_they_are_read(folder: Path) -> None:
    """Those of the first shard in their order, past a row that is left out; an epoch has all of them still."""
    pq.write_table(table(0, 24, frozenset({1})), folder / "s0.parquet", row_group_size=GROUP)
    data = PreferenceDataModule(word_tokenizer(), shards(folder), batch_pairs=4, order="random")
    whole = PreferenceDataModule(
        word_tokenizer(), sorted(map(str, folder.glob("s*.parquet"))), batch_pairs=4, cache_dir=folder
    )
    shown = data.first_as_read(7)
    assert shown == whole.first_as_read(7) == [data.as_read(row) for row in range(7)]
    assert [one.partition(":")[0] for one in shown[:2]] == [f"{folder}/s0.parquet row 0", f"{folder}/s0.parquet row 2"]
    assert len(data.first_as_read(1000)) == NUM_ROWS - 1
    assert len(flat(rows_of(data.train_dataloader()))) == NUM_ROWS
    assert list((folder / "tmp").iterdir()) == []
    with pytest.raises(ValueError, match="row=95: there are 95 training pairs"):
        data.as_read(95)


def test_a_last_step_of_fewer_micro_batches_is_a_mean_over_its_pairs(folder: Path) -> None:
    """Trainers divide by five there too: of 24 micro-batches the last step has four, where training stops before the
    eighth two."""
    each = loader(shards(folder))
    each.share = Share(accumulate=5)
    assert [batch.scale for batch in each] == [1.0] * 20 + [1.25] * 4
    each.share = Share(accumulate=5, span=lambda: (0, 7))
    assert [batch.scale for batch in islice(each, 7)] == [1.0] * 5 + [2.5] * 2


def test_rows_left_out_are_counted_and_no_row_is_skipped(folder: Path) -> None:
    bad = frozenset({3, 40, 41, 95})
    pq.write_table(table(0, NUM_ROWS, bad), folder / "s0.parquet", row_group_size=GROUP)
    one = loader(ParquetShards(folder / "s0.parquet", buffer_pairs=16))
    rows = flat(rows_of(one) + rows_of(one))
    kept = sorted(set(range(NUM_ROWS)) - bad)
    assert sorted(rows[: len(kept)]) == kept
    assert len(rows) == 2 * NUM_ROWS
    assert one.report.reasons["identical responses"] >= 8
    with pytest.raises(ValueError, match=r"(?s)rows cannot be used.*s0\.parquet row \d+.*identical=drop"):
        rows_of(loader(ParquetShards(folder / "s0.parquet"), identical="error"))
    pq.write_table(table(0, 6, frozenset(range(6))), folder / "s0.parquet")
    with pytest.raises(ValueError, match="no pair is left to use"):
        rows_of(loader(ParquetShards(folder / "s0.parquet")))


def test_shards_need_not_be_on_this_machine(folder: Path) -> None:
    """The same batches from a file system in memory, whose rows are named by its addresses."""
    memory = fsspec.filesystem("memory")
    for file in sorted(folder.glob("s*.parquet")):
        memory.pipe(f"/far/{file.name}", file.read_bytes())
    far = ParquetShards("memory://far/s*.parquet", buffer_pairs=16)
    assert rows_of(loader(far)) == rows_of(loader(shards(folder)))
    assert far.name(25) == "memory:///far/s1.parquet row 1"


class Ranges(SimpleHTTPRequestHandler):
    """A web server's answers with parts of files, whose bytes are counted."""

    sent: int = 0

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        type(self).sent += len(part)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_a_shard_on_the_web_is_not_copied(folder: Path) -> None:
    """The first batch comes after a footer and a row group or two, and an epoch reads little more than there is."""
    big = table(0, NUM_ROWS).append_column(
        "more", pa.array(np.random.default_rng(0).bytes(40_000) for _ in range(NUM_ROWS))
    )
    pq.write_table(big, folder / "big.parquet", row_group_size=3, compression="none", use_dictionary=["prompt"])
    size = (folder / "big.parquet").stat().st_size
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(folder)))
    Ranges.sent = 0
    with running(server):
        source = ParquetShards(f"http://127.0.0.1:{server.server_port}/big.parquet", buffer_pairs=4)
        assert source.num_rows == NUM_ROWS
        assert Ranges.sent < size / 20
        batches = iter(loader(source))
        read = next(batches).row.tolist()
        assert Ranges.sent < size / 4
        assert list((folder / "tmp").iterdir()) == []
        assert sorted([*read, *flat(rows_of(batches))]) == list(range(NUM_ROWS))
    assert Ranges.sent < 5 * size  # a buffer as small as a row group has each opened twice


def test_what_cannot_be_streamed_is_said(folder: Path) -> None:
    (folder / "pairs.jsonl").write_text("{}")
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    for path, words in {
        "none-*.parquet": r"there is no file .*none-\*",
        "pairs.jsonl": "only Parquet is streamed",
    }.items():
        with pytest.raises(ValueError, match=words):
            ParquetShards(folder / path)
    with pytest.raises(ValueError, match=r"broken\.parquet cannot be read as Parquet"):
        _ = ParquetShards(folder / "broken.parquet").groups
    with pytest.raises(ValueError, match="16 row groups, fewer than the 18 readers"):
        loader(shards(folder), world_size=9, workers=2)
    for options, words in [
        ({"order": "prompt"}, "order=prompt with streamed shards"),
        ({"batch_tokens": 64}, "batch_tokens with streamed shards"),
        ({"treatments": [treatments.flip]}, "treatments with streamed shards"),
        ({"val_fraction": 0.1}, "val_fraction=0.1 with streamed shards: .*data.val_file"),
    ]:
        with pytest.raises(ValueError, match=words):
            PreferenceDataModule(word_tokenizer(), shards(folder), **options)
    data = PreferenceDataModule(word_tokenizer(), shards(folder))
    with pytest.raises(ValueError, match="treatments with streamed shards"):
        data.treatments = [treatments.flip]
    data.order = "prompt"
    with pytest.raises(ValueError, match="order=prompt with streamed shards"):
        data.train_dataloader()


class Rewarding(L.LightningModule):
    """Remembers what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.rows: list[list[int]] = []

    def training_step(self, batch: PreferenceBatch, place: int) -> torch.Tensor:
        self.rows.append(batch.row.tolist())
        return (self.weight - batch.row.double().mean()).square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saving(L.Callback):
    """Saves where a run may be stopped: the next batch is there and not trained on."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.steps and not self.path.exists():
            trainer.save_checkpoint(self.path, weights_only=False)


def trained(folder: Path, steps: int, resume: bool = False) -> Rewarding:
    """A run of two epochs that saves after so many steps, or what is left of it."""
    source = shards(folder)
    data = PreferenceDataModule(word_tokenizer(), source, batch_pairs=4, seed=7, cache_dir=folder / "cache")
    module, path = Rewarding(), folder / "step.ckpt"
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        callbacks=[Saving(path, steps)],
    )
    trainer.fit(module, data, ckpt_path=path if resume else None, weights_only=True if resume else None)
    assert data.reports["train"].read > 0
    assert data.name_of_pair(25).endswith("s1.parquet row 1")
    assert not (folder / "cache").exists()
    return module


@pytest.mark.parametrize("steps", [5, 24, 30])
def test_a_run_goes_on_with_the_batches_it_had_not_read(folder: Path, steps: int) -> None:
    """In the first epoch, where the second begins, and in it; bit for bit."""
    whole = trained(folder, steps)
    rest = trained(folder, steps, resume=True)
    assert rest.rows == whole.rows[steps:]
    assert torch.equal(rest.weight, whole.weight)


def test_an_epoch_is_well_shuffled(tmp_path: Path) -> None:
    """Row groups in random order, pairs of a buffer mixed: a place says next to nothing of a row."""
    for shard in range(8):
        pq.write_table(table(shard * 400, 400), tmp_path / f"s{shard}.parquet", row_group_size=20)
    one = loader(shards(tmp_path, buffer_pairs=800))
    rows = np.array(flat(rows_of(one)))
    assert abs(np.corrcoef(np.arange(len(rows)), rows)[0, 1]) < 0.2
    assert len(np.unique(rows[:800] // 400)) == 8  # a buffer has row groups of every shard


def test_the_configuration_makes_it(folder: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["data=streaming", f"data.file='{folder}/s*.parquet'", "data.buffer_pairs=16"]
        cfg = compose("train", overrides=overrides)
    data: PreferenceDataModule = instantiate(cfg.data.module, tokenizer=word_tokenizer())
    assert len(data.train_dataloader()) == NUM_ROWS // 16
    assert data.has_train
