"""A judge behind an address, against a server of this test: both orders, busy servers, and going on after a stop."""

from __future__ import annotations

import json
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from lightning_rm.curation.endpoint import VERDICT, Judge
from lightning_rm.data.rows import BadRow
from tests.curation.test_conflicts import row
from tests.stubs import running
from tests.toy import Rows

ROWS = Rows([row("q", "good", "bad"), BadRow("f:2", "x", "y"), row("q", "bad", "good"), row("q", "same", "same too")])


class Stub(ThreadingHTTPServer):
    """Prefers what says good; where nothing does, whatever stands first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.busy = 0
        self.refuses_after = 10**9
        self.authorization: str | None = None
        self.says: dict[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    @property
    def stub(self) -> Stub:
        return cast(Stub, self.server)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.stub.authorization = self.headers["Authorization"]
        if self.stub.busy:
            self.stub.busy -= 1
            self.send_error(503)
            return
        if len(self.stub.asked) >= self.stub.refuses_after:
            self.send_error(401)
            return
        self.stub.asked.append(body)
        second = body["messages"][0]["content"].split("[Response B]")[1]
        usual = "B" if "good" in second else "**A**"
        content = next((said for word, said in self.stub.says.items() if word in second), usual)
        said = {"choices": [{"message": {"content": content}}]}
        answer = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def stub() -> Generator[Stub]:
    with running(Stub()) as server:
        yield server


def judge(stub: Stub, **options: Any) -> Judge:
    return Judge(f"http://127.0.0.1:{stub.server_address[1]}/v1", "judge", **options)


def test_each_pair_is_asked_both_ways_round(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret")
    opinion = judge(stub, weight=3, key="A_KEY").opinion(ROWS, tmp_path)
    np.testing.assert_array_equal(opinion.votes[:, 0], [1, np.nan, -1, 0])  # of the last one it prefers the place
    assert (opinion.name, opinion.weight) == ("judge", 3)
    assert len(stub.asked) == 6
    assert stub.authorization == "Bearer secret"
    again = judge(stub).opinion(ROWS, tmp_path)
    np.testing.assert_array_equal(again.votes, opinion.votes)
    assert len(stub.asked) == 6


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        *(("A", "A"), ("**B**.", "B"), ("[[B]]", "B"), ("b\n\nIt is the clearer one.", "B"), ("(A)", "A")),
        *(
            ("Response A", "A"),
            ("The better response is B.", "B"),
            ("Answer: **A**", "A"),
            ("Response B is better", "B"),
        ),
        *(("A clear answer is that of the second.", None), ("A and B are alike", None), ("", None), ("C", None)),
    ],
)
def test_a_verdict_is_a_letter_alone(answer: str, said: str | None) -> None:
    found = VERDICT.fullmatch(answer.strip().partition("\n")[0])
    assert (found and found[1].upper()) == said


def test_a_pair_with_an_answer_that_cannot_be_read_has_no_vote(stub: Stub, tmp_path: Path) -> None:
    """Neither 0, which is a vote of a judge that sees no difference, nor half of one; it is not asked again."""
    stub.says["same"] = "A clear matter"
    for _ in range(2):
        with pytest.warns(UserWarning, match="judge has no vote on 1 pair of 4: it did not answer A or B alone"):
            opinion = judge(stub).opinion(ROWS, tmp_path)
        np.testing.assert_array_equal(opinion.votes[:, 0], [1, np.nan, -1, np.nan])
        assert len(stub.asked) == 6


def test_a_key_that_is_named_is_there(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was not set the server was asked without one; so it was where the key itself was given."""
    for key, told in (("NO_SUCH_KEY", "variable NO_SUCH_KEY is not set"), ("sk-Secret", "key is not the name")):
        with pytest.raises(ValueError, match=told) as caught:
            judge(stub, key=key)
        assert "Secret" not in str(caught.value)
    for value, sent in (("usual", "Bearer usual"), ("", None)):
        monkeypatch.setenv("OPENAI_API_KEY", value)
        judge(stub).opinion(ROWS, tmp_path / str(sent))
        assert stub.authorization == sent


def test_a_busy_server_is_asked_again(stub: Stub, tmp_path: Path) -> None:
    stub.busy = 3
    waited: list[float] = []
    opinion = judge(stub).opinion(ROWS, tmp_path, wait=waited.append)
    np.testing.assert_array_equal(opinion.votes[:, 0], [1, np.nan, -1, 0])
    assert waited == [1, 2, 4]


def test_what_it_has_judged_is_kept_when_it_stops(stub: Stub, tmp_path: Path) -> None:
    stub.refuses_after = 3
    with pytest.raises(ValueError, match=r"/v1/chat/completions does not answer: 401 .* start again to go on"):
        judge(stub).opinion(ROWS, tmp_path)
    (file,) = tmp_path.iterdir()
    with file.open("a") as opened:  # and a line that a crash has cut off
        opened.write('{"pair": "0')
    stub.refuses_after, stub.asked = 10**9, []
    opinion = judge(stub).opinion(ROWS, tmp_path)
    np.testing.assert_array_equal(opinion.votes[:, 0], [1, np.nan, -1, 0])
    assert len(stub.asked) == 4
