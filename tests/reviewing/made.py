"""Annotated files to review: made pairs, and pairs that mean harm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from fastapi.testclient import TestClient

from lightning_rm.annotation.files import write_parquet
from lightning_rm.annotation.votes import Votes
from lightning_rm.data.rows import PairRow
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.reviewing.app import review_app
from lightning_rm.reviewing.pairs import PairFile
from lightning_rm.reviewing.session import ReviewSession
from lightning_rm.reviewing.store import ReviewStore
from tests.toy import Rows

TOKEN = "secret"

HOSTILE = (
    "<script>document.title = 'run'</script>",
    "<img src=x onerror=\"document.title = 'run'\">",
    "</script><script>document.title = 'run'</script>",
    "<svg onload=\"document.title = 'run'\">",
    "javascript:document.title='run'",
    "<style>body { display: none }</style>",
    "\u202eevil\u202c \x00 \x1b[2J {{7*7}} ${7*7} \u2028 </body></html>",
    '<iframe srcdoc="<script>parent.document.title = 1</script>"></iframe><base href="//x/"><meta http-equiv=refresh>',
)


def row(number: int, prompt: str, chosen: str, rejected: str, **more: Any) -> PairRow:
    turns = [
        ({"role": "user", "content": prompt},),
        *(({"role": "assistant", "content": text},) for text in (chosen, rejected)),
    ]
    return PairRow(*cast(Any, turns), id=f"pair {number}", prompt_id=f"prompt {number}", **more)


def write_rows(path: Path, rows: Sequence[PairRow], votes: Any) -> Path:
    """Rows with (N, M) votes as `annotate` writes them."""
    votes = np.asarray(votes, float)
    pairs = cast(PairDataset, SimpleNamespace(source_row=np.arange(len(rows))))
    names = tuple(f"voter {number}" for number in range(votes.shape[1]))
    write_parquet(Rows(list(rows)), Votes(pairs, names, votes, np.zeros_like(votes)), path)
    return path


def hostile_file(path: Path) -> Path:
    """Each hostile text in every place of a pair that a page may show."""
    rows = [
        PairRow(
            ({"role": "user", "content": text},),
            ({"role": "assistant", "content": text, "name": text},),
            ({"role": "assistant", "content": f"other {text}"},),
            id=text.replace("\x00", ""),
            prompt_id="p",
            subset=text,
        )
        for text in HOSTILE
    ]
    return write_rows(path, rows, np.random.default_rng(0).normal(size=(len(rows), 3)))


def plain_file(path: Path, num_pairs: int = 40, num_voters: int = 4) -> Path:
    """Pairs whose strength rises with their number."""
    votes = np.linspace(-1, 1, num_pairs)[:, None] + np.linspace(-0.1, 0.1, num_voters)
    rows = [
        row(n, f"question {n}", f"good answer {n}", f"bad answer {n}", subset="ab"[n % 2]) for n in range(num_pairs)
    ]
    return write_rows(path, rows, votes)


def session(path: Path, **options: Any) -> ReviewSession:
    return ReviewSession(PairFile(path), ReviewStore(path.with_suffix(".jsonl")), **options)


def client(reviewed: ReviewSession) -> TestClient:
    """A page's own requests."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return TestClient(review_app(reviewed, TOKEN), base_url="http://127.0.0.1:8765", headers=headers)
