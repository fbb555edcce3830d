"""Digests name caches and splits: what they are of a value may never change."""

from __future__ import annotations

from pathlib import Path

from lightning_rm.digests import (
    chunks_digest,
    digest,
    file_name,
    files_digest,
    fingerprint,
    key_digest,
    sha256_of,
    short_key,
)


def test_they_are_what_they_were(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"pairs")
    assert digest({"b": 1, "a": "é"}) == "aa58fba84836"
    assert fingerprint(a=1, b="\ud83d") == "3b2a6080bdc225c1f636b1d7d012d82b"
    assert key_digest("train", 17) == "26f05780a85c23be34a41575698bfe0a596a7d3e54a15a9f4f19ee89306eafaf"
    assert sha256_of(file) == "fb095624103259f86a43b8cedab71373a62f18c2539424a53863e3e9fbb984c7"
    assert files_digest([file, file]) == "1e6dd94188f37d9d"
    assert file_name("runs/a") == "runs_a-5d911391"
    assert short_key(b"ab", b"c") == short_key(b"abc")
    assert short_key(b"word", num_bytes=4).hex() == "7978cd84"
    assert chunks_digest([b"pa", memoryview(b"irs")]) == sha256_of(file)


def test_names_of_files_do_not_meet() -> None:
    names = [
        "llmbar",
        "A.b-c",
        "runs_a",
        "runs/a",
        "runs a",
        "../runs/a",
        ".",
        "..",
        "",
        "é" * 200,
        "é" * 201,
        "a\ud83d",
    ]
    files = [file_name(name) for name in names]
    assert files[:3] == names[:3]
    assert len(set(files)) == len(names)
    assert all(len(file.encode()) < 100 and "/" not in file and file.strip(".") == file for file in files)
