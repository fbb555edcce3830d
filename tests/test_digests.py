"""Digests name caches and splits: what they are of a value may never change."""

from __future__ import annotations

from pathlib import Path

from lightning_rm.digests import digest, files_digest, fingerprint, key_digest, sha256_of, short_key


def test_they_are_what_they_were(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"pairs")
    assert digest({"b": 1, "a": "é"}) == "aa58fba84836"
    assert fingerprint(a=1, b="\ud83d") == "3b2a6080bdc225c1f636b1d7d012d82b"
    assert key_digest("train", 17) == "26f05780a85c23be34a41575698bfe0a596a7d3e54a15a9f4f19ee89306eafaf"
    assert sha256_of(file) == "fb095624103259f86a43b8cedab71373a62f18c2539424a53863e3e9fbb984c7"
    assert files_digest([file, file]) == "1e6dd94188f37d9d"
    assert short_key(b"ab", b"c") == short_key(b"abc")
