"""The cache: reused, told apart by all that matters, whole under kills and under two processes at once."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.store.cache import default_cache_dir, load_or_build
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs
from lightning_rm.data.tokenize.preparing import CHUNK_ROWS
from lightning_rm.digests import files_digest, fingerprint
from lightning_rm.drafts import STALE_SECONDS
from tests.data.words import TEMPLATE, Rows, pair, word_tokenizer

POLICY = TokenizePolicy()


def rows() -> Rows:
    return Rows(pair("w1", "w2", "w3"), pair("w1", "w4 w5", "w6"), pair("w1", "w4", "w4"))


def test_a_second_start_does_not_read_the_source(tmp_path: Path) -> None:
    source = rows()
    first = prepare_pairs(source, word_tokenizer(), POLICY, tmp_path, "train")
    second = prepare_pairs(source, word_tokenizer(), POLICY, tmp_path, "val")
    assert source.num_reads == 1
    assert first.path == second.path
    assert [second.sample(i) for i in range(2)] == [first.sample(i) for i in range(2)]
    assert second.report == replace(first.report, name="val")
    assert second.report.reasons == {"identical responses": 1}


def test_files_digest_is_of_bytes_in_order(tmp_path: Path) -> None:
    """Not of names; `ab` and `c` are other files than `a` and `bc`."""
    for name, content in {"a": b"a", "ab": b"ab", "bc": b"bc", "c": b"c", "copy": b"c"}.items():
        (tmp_path / name).write_bytes(content)

    def digest(*names: str) -> str:
        return files_digest(tmp_path / name for name in names)

    each = [hashlib.sha256(content).digest() for content in (b"ab", b"c")]
    assert digest("ab", "c") == digest("ab", "copy") == hashlib.sha256(b"".join(each)).hexdigest()[:16]
    assert len({digest("ab", "c"), digest("c", "ab"), digest("a", "bc"), digest("ab")}) == 4


def test_a_tokenizer_that_was_used_is_the_same_tokenizer(tmp_path: Path) -> None:
    """Padding and truncation stay in a fast tokenizer's state after a call."""
    source, tokenizer = rows(), word_tokenizer()
    prepare_pairs(source, tokenizer, POLICY, tmp_path)
    tokenizer(["w1", "w1 w2"], padding=True, truncation=True, max_length=1)
    dataset = prepare_pairs(source, tokenizer, POLICY, tmp_path)
    assert (source.num_reads, dataset.lengths.tolist()) == (1, [[5, 5], [6, 5]])


def test_content_tokenizer_template_and_policy_are_told_apart(tmp_path: Path) -> None:
    plain = word_tokenizer()
    more = word_tokenizer()
    more.add_tokens(["w40"])
    prepared = [
        (rows(), plain, POLICY),
        (Rows(*rows().rows, pair("w7", "w8", "w9")), plain, POLICY),
        (rows(), more, POLICY),
        (rows(), word_tokenizer("{{ bos_token }}" + TEMPLATE), POLICY),
        (rows(), word_tokenizer(pad_token="<spare_0>"), POLICY),
        (rows(), plain, TokenizePolicy(max_tokens=512)),
        (rows(), plain, TokenizePolicy(overlong="truncate_prompt")),
        (rows(), plain, TokenizePolicy(on_bad_row="drop")),
    ]
    paths = {prepare_pairs(*arguments, tmp_path).path for arguments in prepared}
    assert len(paths) == len(prepared)


@pytest.mark.parametrize("keep", [0, 4, 0.5, 0.99])
def test_a_broken_file_is_built_again(tmp_path: Path, keep: float, caplog: pytest.LogCaptureFixture) -> None:
    """Cut to nothing, to its magic number, in the middle, at the end."""
    source = rows()
    path = prepare_pairs(source, word_tokenizer(), POLICY, tmp_path).path
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with caplog.at_level(logging.WARNING):
        again = prepare_pairs(source, word_tokenizer(), POLICY, tmp_path)
    assert "is broken" in caplog.text
    assert (source.num_reads, path.read_bytes(), len(again)) == (2, content, 2)


@pytest.mark.parametrize("at", [9, 0.1, 0.3, 0.5, 0.7, 0.9, -1, -10, -30])
def test_one_flipped_bit_builds_the_file_again(tmp_path: Path, at: float, caplog: pytest.LogCaptureFixture) -> None:
    """In the header, in ids and words, in the footer, in the checksum: what is read is what was written."""
    source = rows()
    first = prepare_pairs(source, word_tokenizer(), POLICY, tmp_path)
    content = bytearray(first.path.read_bytes())
    content[int(at * len(content)) if 0 < at < 1 else int(at)] ^= 0b100
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content)
    damaged.replace(first.path)  # the open one keeps its bytes
    with caplog.at_level(logging.WARNING):
        again = prepare_pairs(source, word_tokenizer(), POLICY, tmp_path)
    assert "checksum" in caplog.text
    assert source.num_reads == 2
    assert [again.sample(i) for i in range(2)] == [first.sample(i) for i in range(2)]


def test_a_file_of_the_same_rows_names_them_where_they_are_now(tmp_path: Path) -> None:
    """The cache is found by bytes; data that was moved is named by its new place, in reports and for each pair."""
    lines = [
        json.dumps({"prompt": "w1", "chosen": chosen, "rejected": "w3", "id": chosen}) for chosen in ("w2", "w3", "w4")
    ]
    cached = []
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("\n".join(lines))
        cached.append(prepare_pairs(FileSource(tmp_path / name), word_tokenizer(), POLICY, tmp_path / "cache"))
    first, second = cached
    assert first.path == second.path
    for pairs, name in ((first, "a.jsonl"), (second, "b.jsonl"), (pickle.loads(pickle.dumps(second)), "b.jsonl")):
        assert [pairs.place(i).origin for i in range(2)] == [f"{tmp_path / name}:1", f"{tmp_path / name}:3"]
        assert [pairs.place(i).id for i in range(2)] == ["w2", "w4"]
        assert pairs.place(0).prompt_id == pairs.place(1).prompt_id
        (example,) = pairs.report.examples["identical responses"]
        assert example.startswith(f"{tmp_path / name}:2: chosen and rejected")


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    def build(file: object) -> None:
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        load_or_build(tmp_path / "deep" / "x.arrow", Path.read_bytes, build)
    assert list((tmp_path / "deep").iterdir()) == []


def test_drafts_of_the_dead_are_cleared_and_no_others(tmp_path: Path) -> None:
    """The last number of a process is one that no system gives out."""
    here, living, dead = socket.gethostname().replace(".", "_"), os.getpid(), 2**22 + 1
    names = {
        f"a.arrow.{here}-{dead}-0123456789ab.tmp": False,
        f"a.arrow.{here}-{living}-0123456789ab.tmp": True,
        f"a.arrow.elsewhere-{dead}-0123456789ab.tmp": True,
        f"b.arrow.elsewhere-{dead}-0123456789ab.tmp": False,  # nobody has written to it for long
        "notes.tmp": True,  # a user's
    }
    for name in names:
        (tmp_path / name).write_bytes(b"half")
        if name.startswith(("b.", "notes")):
            os.utime(tmp_path / name, (0, time.time() - STALE_SECONDS - 60))
    prepare_pairs(rows(), word_tokenizer(), POLICY, tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_RM_CACHE", str(tmp_path / "named"))
    assert default_cache_dir() == tmp_path / "named"
    assert prepare_pairs(rows(), word_tokenizer(), POLICY).path.parent == tmp_path / "named"
    monkeypatch.delenv("LIGHTNING_RM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "lightning_rm"


def test_a_fingerprint_depends_on_content_and_not_on_order() -> None:
    assert fingerprint(a=1, b=["x"]) == fingerprint(b=["x"], a=1)
    assert fingerprint(a=1) != fingerprint(a=2) != fingerprint(b=2)
    assert len(fingerprint(text="\ud800")) == 32


class Meeting(Rows):
    """Rows that come only when two processes read them: both have missed the cache."""

    def __init__(self, folder: Path) -> None:
        super().__init__(*rows().rows)
        self.folder = folder

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        (self.folder / str(os.getpid())).touch()
        while len(list(self.folder.iterdir())) < 2:
            time.sleep(0.01)
        yield from super().__iter__()


class Killed(Rows):
    """Rows at whose end, the first chunk long written, the process is killed, as when memory runs out."""

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        yield from super().__iter__()
        os.kill(os.getpid(), signal.SIGKILL)


def prepare(source: Rows, folder: Path) -> None:
    prepare_pairs(source, word_tokenizer(), POLICY, folder)


def started(source: Rows, folder: Path) -> BaseProcess:
    """A process of its own that prepares a source; forked, since a fresh one imports torch for ten seconds."""
    process = multiprocessing.get_context("fork").Process(target=prepare, args=(source, folder))
    process.start()
    return process


def test_two_processes_at_once_both_succeed(tmp_path: Path) -> None:
    meeting, cache = tmp_path / "meeting", tmp_path / "cache"
    meeting.mkdir()
    processes = [started(Meeting(meeting), cache) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    source = rows()
    dataset = prepare_pairs(source, word_tokenizer(), POLICY, cache)
    assert (source.num_reads, len(dataset)) == (0, 2)
    assert list(cache.iterdir()) == [dataset.path]


def test_a_kill_in_the_middle_of_a_write_leaves_no_broken_cache(tmp_path: Path) -> None:
    many = [pair("w1", "w2", "w3", str(i)) for i in range(CHUNK_ROWS + 1)]
    process = started(Killed(*many), tmp_path)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".tmp"
    assert left.stat().st_size > 0
    source = Rows(*many)
    assert len(prepare_pairs(source, word_tokenizer(), POLICY, tmp_path)) == CHUNK_ROWS + 1
    assert source.num_reads == 1
    assert not left.exists()
