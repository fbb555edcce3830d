"""The review command: what it prints, what it opens, and what it says of what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lightning_rm.annotation.reviews import Review, append_review, read_reviews
from lightning_rm.serving import server
from tests.commands.conftest import Cli
from tests.toy import write_annotated


def test_the_printed_address_opens_the_review(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the address decides; decisions lie beside the pairs, and the end counts them."""
    write_annotated(tmp_path / "strength.parquet", 20)
    append_review(tmp_path / "strength_reviews.jsonl", Review("elsewhere", "keep", reviewer="bob"))
    served: list[tuple[str, int]] = []

    def serve(app: Any, host: str, port: int, ready: Any) -> None:
        served.append((host, port))
        ready(f"http://{host}:{port}")
        page = TestClient(app, base_url=f"http://{host}:{port}", headers={"Authorization": "Bearer a/token"})
        body = {"reviewer": "ada", "place": 0, "choice": "flip", "seen": 0}
        assert page.post("/api/decide", json=body).status_code == 200

    monkeypatch.setattr(server, "run_server", serve)
    said = cli("review", "strength=strength.parquet", "token=a/token")
    assert said.code == 0, said.err
    assert served == [("127.0.0.1", 8765)]
    assert "open http://127.0.0.1:8765/#token=a%2Ftoken" in said.out
    assert "20 pairs of strength.parquet\n" in said.out
    assert "decisions there about 1 pair that strength.parquet does not have are left alone\n" in said.out
    assert said.out.endswith("stopped; decisions: bob 1, ada 1\n  strength_reviews.jsonl\n")
    assert [one.decision for one in read_reviews(tmp_path / "strength_reviews.jsonl")] == ["keep", "flip"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "strength must be given"),
        (["strength=none.parquet"], "strength=none.parquet: there is no such file"),
        (["strength=strength.parquet", "order=best"], "order='best': there are worth, weakest"),
        (["strength=strength.parquet", "blind=maybe"], "blind=maybe; give true or false"),
        (["strength=strength.parquet", "port=-1"], "cannot listen there"),
        (["strength=strength.parquet", "reviews=bad.jsonl"], "bad.jsonl:1: "),
        (["strength=strength.parquet", "reviews=."], ": Is a directory"),
    ],
)
def test_mistakes_are_said_in_a_sentence(cli: Cli, tmp_path: Path, words: list[str], says: str) -> None:
    write_annotated(tmp_path / "strength.parquet", 12)
    (tmp_path / "bad.jsonl").write_text("not json\n")
    said = cli("review", *words)
    assert said.code == 1
    assert says in said.err
    assert said.err.startswith("error: ")
