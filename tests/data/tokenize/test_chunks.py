"""Chunks in processes of their own and chunks that a killed process left: the file is the same, byte for byte."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from lightning_rm.data.rows import BadRow, GroupRow, PairRow
from lightning_rm.data.store.columns import in_order_of_appearance, one_if_same
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.tokenize import chunks
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs
from lightning_rm.data.tokenize.processes import mapped
from tests.data.words import Rows, group, pair, word_tokenizer

POLICY = TokenizePolicy(max_tokens=9, on_bad_row="drop")
DEAD = 2**22 + 1
"""A process number that no system gives out."""


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_rm.data.tokenize.preparing.CHUNK_ROWS", 3)


def mixed() -> list[PairRow | GroupRow | BadRow]:
    """Subsets and attributes that chunks meet in other orders; rows of every fate; a chunk of which nothing is kept."""
    rows: list[PairRow | GroupRow | BadRow] = []
    for i in range(16):
        rows.append(pair(f"w{i % 5}", "w1", f"w{2 + i % 3}", f"p{i}", subset=f"s{(i * i) % 4}"))
        scores = ({"b": 1.0, "a": 2.0}, {"a": 3.0}) if i % 2 else ({"a": 1.0}, {"c": 2.0, "a": 0.0})
        rows.append(group(f"w{i % 5}", "w1", "w2", id=f"g{i}", subset=f"s{i % 3}", scores=scores))
        rows.append(pair("w1", "w2", "w2", f"same{i}") if i % 4 else pair("w1", "w2", "w3 " * 9, f"long{i}"))
    rows[21:24] = [BadRow(f"x:{i}", "broken JSON", "no") for i in range(3)]
    return rows


def prepared(folder: Path, num_processes: int = 1) -> PairDataset:
    return prepare_pairs(Rows(*mixed()), word_tokenizer(), POLICY, folder, num_processes=num_processes)


def test_the_file_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    alone, two = prepared(tmp_path / "1"), prepared(tmp_path / "2", 2)
    assert alone.path.read_bytes() == two.path.read_bytes()
    assert alone.report.read == 48
    assert alone.attributes == ("a", "c", "b")
    assert alone.report.reasons["broken JSON"] == 3
    g1 = next(i for i, id in enumerate(alone.ids()) if id == "g1")
    np.testing.assert_array_equal(alone.scores[:, g1], [[3, np.nan, np.nan], [2, np.nan, 1]])


@pytest.mark.parametrize("share", [0.0, 0.003, 0.2, 0.5, 0.62, 0.9, 0.999, 1.0])
def test_what_a_killed_process_wrote_is_not_tokenised_again(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draft ends anywhere: in its head, in the middle of a batch, before its checksum."""
    whole = prepared(tmp_path / "whole")
    content = whole.path.read_bytes()
    cut = content[: int(share * len(content))]
    made: list[int] = []
    make = chunks.make
    monkeypatch.setattr("lightning_rm.data.tokenize.pairs.make", lambda *given: made.append(1) or make(*given))
    again = prepared(left_by_the_dead(tmp_path / "again", whole.path.name, cut))
    assert again.path.read_bytes() == content
    assert len(made) == 16 if share < 0.1 else len(made) <= 16 * (1 - share) + 3
    assert list(again.path.parent.iterdir()) == [again.path]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_a_flipped_byte_of_a_draft_costs_what_follows(tmp_path: Path, share: float) -> None:
    whole = prepared(tmp_path / "whole")
    damaged = bytearray(whole.path.read_bytes())
    damaged[int(share * len(damaged))] ^= 0b100
    again = prepared(left_by_the_dead(tmp_path / "again", whole.path.name, bytes(damaged)))
    assert again.path.read_bytes() == whole.path.read_bytes()


class Stopped(Rows):
    """Rows of which Ctrl-C lets only the first forty be read."""

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        yield from islice(super().__iter__(), 40)
        raise KeyboardInterrupt


def test_ctrl_c_leaves_what_was_written_to_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepared(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        prepare_pairs(Stopped(*mixed()), word_tokenizer(), POLICY, tmp_path / "again", num_processes=1)
    (left,) = (tmp_path / "again").iterdir()
    left.rename(left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{DEAD}-")))  # this process lives on
    made: list[int] = []
    make = chunks.make
    monkeypatch.setattr("lightning_rm.data.tokenize.pairs.make", lambda *given: made.append(1) or make(*given))
    again = prepared(tmp_path / "again")
    assert again.path.read_bytes() == whole.path.read_bytes()
    assert len(made) <= 5


def left_by_the_dead(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir()
    here = socket.gethostname().replace(".", "_")
    (folder / f"{name}.{here}-{DEAD}-0123456789ab.tmp").write_bytes(content)
    return folder


def test_an_error_in_a_process_is_the_callers() -> None:
    def work(item: int) -> float:
        return 1 / (6 - item)

    with pytest.raises(ZeroDivisionError):
        list(mapped(work, range(9), 2))
    assert list(mapped(str, range(9), 2)) == [str(i) for i in range(9)]


def test_columns_of_one_number_take_no_memory() -> None:
    assert one_if_same(np.full(1000, np.nan)).base is not None
    assert one_if_same(np.ones(1000)).strides == (0,)
    assert one_if_same(np.array([1.0, np.nan])).tolist()[0] == 1.0
    assert in_order_of_appearance(np.array([7, -5, 7, 9, -5])).tolist() == [0, 1, 0, 2, 1]
