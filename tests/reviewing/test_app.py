"""The review over HTTP: who may ask, what is shown, and that every decision is kept."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from lightning_rm.annotation.reviews import Review, append_review, read_reviews, verdicts
from lightning_rm.reviewing.app import page_html, review_app
from lightning_rm.reviewing.pairs import PairFile
from lightning_rm.reviewing.session import Show
from lightning_rm.reviewing.store import ReviewStore
from lightning_rm.reviewing.telling import ENOUGH
from lightning_rm.serving.server import run_server
from tests.float64 import same
from tests.reviewing.made import HOSTILE, TOKEN, client, hostile_file, plain_file, row, session, write_rows
from tests.toy import write_annotated


def asked(page: TestClient, path: str, **params: Any) -> Any:
    answer = page.get(f"/api/{path}", params={"reviewer": "Ada", **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


def decide(page: TestClient, pair: Any, choice: str, reviewer: str = "Ada", note: str = "") -> Any:
    body = {"reviewer": reviewer, "place": pair["place"], "choice": choice, "note": note, "seen": pair["seen"]}
    return page.post("/api/decide", json=body)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_file(tmp_path_factory.mktemp("plain") / "strength.parquet")


@pytest.fixture
def page(plain: Path, tmp_path: Path) -> TestClient:
    copy = tmp_path / "strength.parquet"
    copy.symlink_to(plain)
    return client(session(copy))


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8765"}, 421),
        ({"host": ""}, 421),
        ({"host": "[::1"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"authorization": "Bearer guess"}, 401),
        ({"authorization": ""}, 401),
        ({"host": "localhost:8765"}, 200),
        ({"host": "[::1]:8765"}, 200),
        ({"host": "192.168.0.7:80", "origin": "http://192.168.0.7:80"}, 200),
    ],
)
def test_nobody_but_the_page_gets_an_answer(page: TestClient, changed: dict[str, str], status: int) -> None:
    answer = page.get("/api/state", params={"reviewer": "Ada"}, headers=changed)
    assert answer.status_code == status
    assert ("error" in answer.json()) == (status != 200)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_other_origins_are_allowed_nothing(page: TestClient) -> None:
    answer = page.options("/api/decide", headers={"origin": "http://127.0.0.1:8765"})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_page_needs_nothing_else_and_runs_its_own_script_alone(page: TestClient) -> None:
    answer = page.get("/", headers={"authorization": ""})
    html = page_html()
    assert answer.text == html
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        [inline] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert policy[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert set(re.findall(r"https?://[^\s'\"]+", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(|style=| on\w+=", html)


def test_the_next_pair_comes_once_the_decision_is_on_the_disk(page: TestClient, tmp_path: Path) -> None:
    first = asked(page, "next")["pair"]
    state = decide(page, first, "flip", note="the second is right").json()
    assert (state["num_done"], state["counts"]) == (1, {"tie": 0, "skip": 0, "flip": 1})
    [review] = read_reviews(tmp_path / "strength.jsonl")
    assert (review.pair_id, review.decision, review.note, review.reviewer) == (
        first["id"],
        "flip",
        "the second is right",
        "Ada",
    )
    second = asked(page, "next", after=first["place"])["pair"]
    assert second["id"] != first["id"]
    again = asked(page, "pair", place=first["place"])
    assert (again["mine"]["choice"], again["mine"]["note"], again["seen"]) == ("flip", "the second is right", 1)


def test_a_disk_that_is_full_or_a_file_that_is_gone_leaves_the_pair_open(
    page: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asked(page, "next")["pair"]
    decide(page, asked(page, "next", after=first["place"])["pair"], "keep")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = decide(page, first, "flip")
    assert answer.status_code == 507
    assert answer.json()["error"].startswith("nothing is written, the pair is still open: [Errno 28]")
    assert "strength.jsonl" in answer.json()["error"]
    assert asked(page, "next")["pair"]["id"] == first["id"]
    assert len(read_reviews(tmp_path / "strength.jsonl")) == 1
    assert decide(page, first, "flip").status_code == 200
    (tmp_path / "strength.jsonl").unlink()
    answer = decide(page, first, "keep")
    assert (answer.status_code, "strength.jsonl" in answer.json()["error"]) == (507, True)


@pytest.mark.parametrize("how", ["replaced", "written over", "cut", "removed"])
def test_a_file_that_changes_in_mid_review_shows_no_pair_with_the_votes_of_another(how: str, tmp_path: Path) -> None:
    path = plain_file(tmp_path / "strength.parquet", num_pairs=600)  # more than one piece
    page = client(session(path))
    first = asked(page, "next")["pair"]
    other = plain_file(tmp_path / "other.parquet", num_pairs=700)
    if how == "replaced":
        other.replace(path)
    elif how == "written over":
        path.write_bytes(other.read_bytes())
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    for place, query in (("list", {}), ("list", {"query": "question"}), ("search", {"query": "question"})):
        answer = page.get(f"/api/{place}", params={"reviewer": "Ada", **query})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(f"{path} is not the file any more that this review began with: end it")
    assert decide(page, first, "keep").status_code == 200  # about what was seen before
    assert [review.pair_id for review in read_reviews(tmp_path / "strength.jsonl")] == [first["id"]]


def test_undo_goes_back_step_by_step(page: TestClient) -> None:
    first = asked(page, "next")["pair"]
    decide(page, first, "keep")
    second = asked(page, "next")["pair"]
    decide(page, second, "tie")
    decide(page, asked(page, "pair", place=first["place"]), "flip")
    undone = [page.post("/api/undo", json={"reviewer": "Ada"}).json()["place"] for _ in range(2)]
    assert undone == [first["place"], second["place"]]
    assert asked(page, "pair", place=first["place"])["mine"]["choice"] == "keep"
    assert page.post("/api/undo", json={"reviewer": "Bob"}).json()["place"] is None
    assert page.post("/api/undo", json={"reviewer": "Ada"}).json()["state"]["num_done"] == 0


def test_decisions_about_other_pairs_are_left_alone(page: TestClient, tmp_path: Path) -> None:
    """They may stand in a file that several sets of pairs share: nothing is taken back, counted or compared there."""
    pair = asked(page, "next")["pair"]
    decide(page, pair, "keep")
    for reviewer in ("Ada", "Bob"):
        append_review(tmp_path / "strength.jsonl", Review("of other data", "flip", reviewer=reviewer, time=reviewer))
    told = asked(page, "state")
    assert (told["reviewers"], told["agreement"]) == ({"Ada": 1}, [])
    undone = [page.post("/api/undo", json={"reviewer": "Ada"}).json()["place"] for _ in range(2)]
    assert undone == [pair["place"], None]
    assert verdicts(read_reviews(tmp_path / "strength.jsonl")) == {"of other data": "flip"}


def test_a_file_of_decisions_that_somebody_breaks_and_mends_is_as_it_was(page: TestClient, tmp_path: Path) -> None:
    """While it is broken the page says what is wrong with it; a decision of the same length is seen to be another."""
    for _ in range(3):
        decide(page, asked(page, "next")["pair"], "keep")
    path = tmp_path / "strength.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b"kept the rest\n")
    ada = {"reviewer": "Ada"}
    for answer in (page.get("/api/state", params=ada), page.post("/api/undo", json=ada)):
        assert (answer.status_code, "strength.jsonl:4: this is not a line" in answer.json()["error"]) == (500, True)
    path.write_bytes(whole)
    assert asked(page, "state")["counts"]["keep"] == 3
    path.write_bytes(whole.replace(b'"keep"', b'"flip"', 1))
    assert (asked(page, "state")["counts"]["keep"], asked(page, "state")["counts"]["flip"]) == (2, 1)


def test_two_tabs_and_two_servers_lose_nothing(plain: Path, tmp_path: Path) -> None:
    """Both show a pair; the second decision on it is refused until its tab has seen the first. Both know all."""
    (tmp_path / "strength.parquet").symlink_to(plain)
    tabs = [client(session(tmp_path / "strength.parquet")) for _ in range(2)]
    pairs = [asked(tab, "next")["pair"] for tab in tabs]
    assert pairs[0] == pairs[1]
    assert decide(tabs[0], pairs[0], "keep").status_code == 200
    refused = decide(tabs[1], pairs[1], "flip")
    assert refused.status_code == 409
    assert "elsewhere" in refused.json()["error"]
    now = asked(tabs[1], "pair", place=pairs[1]["place"])
    assert now["mine"]["choice"] == "keep"
    assert decide(tabs[1], now, "flip").status_code == 200
    for number in range(6):
        tab = tabs[number % 2]
        assert decide(tab, asked(tab, "next")["pair"], "tie").status_code == 200
    assert [asked(tab, "state")["num_done"] for tab in tabs] == [7, 7]
    assert [review.decision for review in read_reviews(tmp_path / "strength.jsonl")] == ["keep", "flip", *["tie"] * 6]


def test_filters_search_and_pages(page: TestClient) -> None:
    found = asked(page, "next", subset="a", decile=0, status="all")
    assert found["num_shown"] == 2
    assert (found["pair"]["subset"], found["pair"]["decile"]) == ("a", 0)
    other = asked(page, "next", subset="a", decile=0, status="all", after=found["pair"]["place"])
    back = asked(page, "next", subset="a", decile=0, status="all", after=other["pair"]["place"], step=-1)
    round_again = asked(page, "next", subset="a", decile=0, status="all", after=other["pair"]["place"])
    assert back["pair"] == round_again["pair"] == found["pair"]
    with page.stream("GET", "/api/search", params={"query": "ANSWER 3"}) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert lines[-1] == {"read": 40, "found": 11, "of": 40}
    assert asked(page, "next", query="ANSWER 3")["num_shown"] == 11
    assert asked(page, "next", query="pair 39")["pair"]["id"] == "pair 39"
    for odd in ("(", "[", "\\", "\x00", "*", "\u202e"):
        assert asked(page, "next", query=odd)["num_shown"] == 0
    assert asked(page, "next", query="not there") == {"pair": None, "num_shown": 0}
    listed = asked(page, "list", offset=30, num=20)
    assert (listed["num"], len(listed["rows"])) == (40, 10)
    assert all(row["begins"].startswith("question") for row in listed["rows"])
    decide(page, asked(page, "next")["pair"], "skip", note="odd")
    for status, num in (("todo", 39), ("done", 1), ("skip", 1), ("noted", 1), ("keep", 0), ("disagreed", 0)):
        assert asked(page, "next", status=status)["num_shown"] == num


@pytest.mark.parametrize(
    ("path", "params", "says"),
    [
        ("next", {"reviewer": " "}, "reviewer"),
        ("next", {"reviewer": "x" * 61}, "reviewer"),
        ("next", {"status": "best"}, "status"),
        ("pair", {"place": 40}, "place=40: there are places from 0 to 39"),
        ("pair", {"place": "one"}, "place"),
        ("list", {"offset": -1}, "offset"),
        ("search", {"query": ""}, "query"),
    ],
)
def test_questions_that_make_no_sense_are_answered_in_words(
    page: TestClient, path: str, params: dict[str, Any], says: str
) -> None:
    answer = page.get(f"/api/{path}", params={"reviewer": "Ada", **params})
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_decisions_that_make_no_sense_write_nothing(page: TestClient, tmp_path: Path) -> None:
    good: dict[str, Any] = {"reviewer": "Ada", "place": 0, "choice": "keep", "note": "", "seen": 0}
    wrong = [("choice", "undo"), ("place", -1), ("place", 10**30), ("seen", -1), ("note", "x" * 4001), ("more", 1)]
    for changed in ({name: value} for name, value in wrong):
        assert page.post("/api/decide", json=good | changed).status_code == 400
    for content in (b"{", b'{"reviewer": "\\ud800", "place": 0, "choice": "keep", "seen": 0}', b"\xff", b"[]", b"null"):
        told = page.post("/api/decide", content=content, headers={"content-type": "application/json"})
        assert (told.status_code, list(told.json())) == (400, ["error"])
    assert page.post("/api/decide", content=b"[" * 100_000).status_code == 413
    assert page.post("/api/decide", content=iter([b"{}"])).status_code == 411
    assert page.get("/nowhere").status_code == 404
    assert read_reviews(tmp_path / "strength.jsonl") == []


def test_a_blind_review_tells_nothing_of_label_and_votes(plain: Path, tmp_path: Path) -> None:
    """About half of the responses change places, and a decision for a side is one for what stands there."""
    (tmp_path / "strength.parquet").symlink_to(plain)
    blind = client(session(tmp_path / "strength.parquet", blind=True))
    wanted: list[str] = []
    for number in range(30):
        pair = asked(blind, "next")["pair"]
        told = {"place", "id", "subset", "error", "prompt", "first", "second", "same", "seen", "mine", "others"}
        assert set(pair) == told
        is_swapped = pair["first"]["turns"][0]["blocks"][0]["runs"][0][0].startswith("bad")
        decide(blind, pair, ("first", "second")[number % 2])
        wanted.append(("keep", "flip")[(number % 2) ^ is_swapped])
        told = asked(blind, "pair", place=pair["place"])["mine"]["choice"]
        assert told == ("first", "second")[number % 2]
    assert [review.decision for review in read_reviews(tmp_path / "strength.jsonl")] == wanted
    assert 6 < sum((said == "flip") ^ (number % 2) for number, said in enumerate(wanted)) < 24
    assert asked(blind, "state")["counts"] == {"tie": 0, "skip": 0, "chosen": 30}
    assert not {"strength", "decile"} & set(asked(blind, "list", status="all")["rows"][0])
    assert decide(blind, asked(blind, "next")["pair"], "keep").status_code == 400
    for params in ({"decile": 0}, {"status": "flip"}):
        assert blind.get("/api/next", params={"reviewer": "Ada", **params}).status_code == 400


def test_what_reviews_tell_of_labels_stays_hidden_in_a_blind_review(tmp_path: Path) -> None:
    """A decile's wrong labels, counted before a decision and after it, would say what the label was."""
    path = plain_file(tmp_path / "strength.parquet", ENOUGH + 10)
    blind = session(path, blind=True)
    for _ in range(ENOUGH):
        pair = blind.next("ada", Show(), -1)["pair"]
        blind.decide("ada", pair["place"], "first", "", pair["seen"])
    assert blind.state("ada")["tells"]["num_reviewed"] == ENOUGH
    assert "deciles" not in blind.state("ada")["tells"]
    assert "deciles" in session(path).state("ada")["tells"]


def test_reviewers_see_each_other_after_they_have_decided(page: TestClient) -> None:
    """Of 20 pairs both decide, Bob flips 5 that Ada keeps and agrees on the rest, where Ada flips 5."""
    for number in range(20):
        pair = asked(page, "next")["pair"]
        decide(page, pair, "keep" if number < 15 else "flip")
        theirs = asked(page, "pair", reviewer="Bob", place=pair["place"])
        assert theirs["others"] == []
        decide(page, theirs, "keep" if number < 10 else "flip", reviewer="Bob")
        assert [other["reviewer"] for other in asked(page, "pair", place=pair["place"])["others"]] == ["Bob"]
    state = asked(page, "state")
    assert state["reviewers"] == {"Ada": 20, "Bob": 20}
    [agreement] = state["agreement"]
    assert (agreement["observed"], agreement["kappa"], agreement["num_pairs"]) == (0.75, same(0.5), 20)
    assert asked(page, "next", status="disagreed")["num_shown"] == 5


def test_an_oracles_review_equals_the_planted_labels_and_tells_of_the_rest(tmp_path: Path) -> None:
    """Of 120 made labels some are wrong. In the end the decisions are the truth; after 60 the estimate holds it."""
    path = tmp_path / "strength.parquet"
    write_annotated(path, 120, num_voters=5)
    table = pq.read_table(path, columns=["id", "clean"])
    clean = dict(zip(table["id"].to_pylist(), table["clean"].to_pylist(), strict=True))
    page = client(session(path))
    for number in range(len(clean)):
        pair = asked(page, "next")["pair"]
        state = decide(page, pair, "keep" if clean[pair["id"]] else "flip").json()
        assert ("deciles" in state["tells"]) == (number + 1 >= ENOUGH)
        if number == 59:
            share, low, high = state["tells"]["share"]
            assert low < 1 - np.mean(list(clean.values())) < high
            assert state["tells"]["num_fair"] < 60
            assert state["tells"]["deciles"][0]["precision"] > state["tells"]["deciles"][9]["precision"]
    assert {review.pair_id: review.decision == "keep" for review in read_reviews(path.with_suffix(".jsonl"))} == clean
    share, _, _ = state["tells"]["share"]
    assert share == same(1 - np.mean(list(clean.values())))
    assert asked(page, "next") == {"pair": None, "num_shown": 0}


def test_what_was_searched_for_tells_nothing_of_the_rest(page: TestClient) -> None:
    for number in range(8):
        decide(page, asked(page, "next", decile=9 - number // 4)["pair"], "flip")
    assert asked(page, "state")["tells"]["num_fair"] < 5
    strict = client(session(Path(asked(page, "state")["file"]), ordering="weakest"))
    assert asked(strict, "state")["tells"]["is_fair"] is False
    assert asked(strict, "next", status="all")["pair"]["id"] == "pair 0"


def test_hostile_pairs_are_text(tmp_path: Path) -> None:
    """Every text comes as it is but for signs that cannot be seen, in JSON, which no browser runs."""
    page = client(session(hostile_file(tmp_path / "strength.parquet")))
    seen: set[str] = set()
    for place in range(len(HOSTILE)):
        answer = page.get("/api/pair", params={"reviewer": "Ada", "place": place})
        assert answer.headers["content-type"] == "application/json"
        pair = answer.json()
        seen.add("".join(run for run, _ in pair["prompt"]["turns"][0]["blocks"][0]["runs"]))
        assert not re.search(r"[\x00\x1b\u202e\u2028]", json.dumps(pair, ensure_ascii=False))
        assert decide(page, pair, "keep", reviewer=HOSTILE[0], note=HOSTILE[1]).status_code == 200
    assert set(HOSTILE[:6]) <= seen
    assert asked(page, "state")["reviewers"] == {HOSTILE[0]: len(HOSTILE)}
    assert asked(page, "next", query="<SCRIPT>")["num_shown"] == 3


def test_texts_are_read_where_they_stand_whatever_the_row_groups(tmp_path: Path) -> None:
    """A file of one row group, of many, and pieces that do not divide either give the same pairs."""
    rows = [row(n, f"q{n}", f"c{n}", f"r{n}") for n in range(1203)]
    path = write_rows(tmp_path / "a.parquet", rows, np.zeros((1203, 1)))
    pq.write_table(pq.read_table(path), tmp_path / "one.parquet")
    for file in (PairFile(path), PairFile(tmp_path / "one.parquet")):
        for number in (0, 499, 500, 999, 1000, 1202, 3):
            found = file.pair(number)
            assert [turns[0]["content"] for turns in (found.prompt, found.chosen)] == [f"q{number}", f"c{number}"]
        assert [rows for _, rows in file.search("c120")] == [[120], [], [1200, 1201, 1202]]


def test_rows_of_one_id_are_one_pair(tmp_path: Path) -> None:
    rows = [row(0, "q", "a", "b"), row(1, "q", "a", "b"), row(0, "q", "a", "b")]
    page = client(session(write_rows(tmp_path / "s.parquet", rows, np.zeros((3, 2)))))
    assert asked(page, "state")["num_pairs"] == 2
    decide(page, asked(page, "next")["pair"], "keep")
    decide(page, asked(page, "next")["pair"], "keep")
    assert asked(page, "next")["pair"] is None


def test_what_is_not_annotated_is_an_error_that_says_what_is(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "s.parquet")
    pq.write_table(pq.read_table(path, columns=["id", "subset", "strength_mean", "strength_std", "votes"]), path)
    with pytest.raises(ValueError, match=r"has no prompt and no chosen and no rejected.*lightning-rm annotate"):
        PairFile(path)
    with pytest.raises(ValueError, match="there is no such file"):
        PairFile(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(ValueError, match="not a Parquet file"):
        PairFile(tmp_path / "text.parquet")


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("strength_std", pa.nulls(40, pa.float64()), "rows without id, strength_mean or strength_std"),
        ("strength_mean", ["high"] * 40, "other columns .*'high'"),
        ("votes", [1.0] * 40, "other columns .*double to list"),
        ("subset", [["a"]] * 40, "other columns .*list.* to utf8"),
    ],
)
def test_a_column_of_another_kind_is_an_error(name: str, values: Any, told: str, plain: Path, tmp_path: Path) -> None:
    table = pq.read_table(plain)
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), tmp_path / "s.parquet")
    with pytest.raises(ValueError, match=rf"{told}.*lightning-rm annotate"):
        PairFile(tmp_path / "s.parquet")


def test_texts_that_another_program_has_written_are_searched(plain: Path, tmp_path: Path) -> None:
    """A table's prompts that are all null, its responses as categories and as a view."""
    table = pq.read_table(plain)
    words = pa.array([f"good {n}" for n in range(40)])
    for name, values in (("prompt", pa.nulls(40)), ("chosen", words.dictionary_encode())):
        table = table.set_column(table.column_names.index(name), name, values)
    table = table.set_column(table.column_names.index("rejected"), "rejected", words.cast(pa.string_view()))
    pq.write_table(table, tmp_path / "s.parquet")
    assert [rows for _, rows in PairFile(tmp_path / "s.parquet").search("GOOD 39")] == [[39]]


def test_decisions_survive_a_kill(plain: Path, tmp_path: Path) -> None:
    """The server is killed the moment after its fifth answer: all five are there, and a new one goes on with them."""
    (tmp_path / "strength.parquet").symlink_to(plain)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        app = review_app(session(tmp_path / "strength.parquet"), TOKEN)
        run_server(app, "127.0.0.1", 0, lambda url: print(url, file=os.fdopen(write, "w"), flush=True))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        url = told.readline().strip()
    try:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        for place in range(5):
            body = {"reviewer": "Ada", "place": place, "choice": "keep", "note": "", "seen": 0}
            request = urllib.request.Request(f"{url}/api/decide", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert json.loads(answer.read())["num_done"] == place + 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)
    with (tmp_path / "strength.jsonl").open("ab") as file:
        file.write(b'{"pair_id": "pair 7", "decis')  # what a power cut may leave of a sixth
    page = client(session(tmp_path / "strength.parquet"))
    assert asked(page, "state")["num_done"] == 5
    assert decide(page, asked(page, "next")["pair"], "flip").json()["num_done"] == 6
    assert len(ReviewStore(tmp_path / "strength.jsonl").standing()["Ada"]) == 6


def test_votes_that_are_missing_bar_the_way_to_no_pair(plain: Path, tmp_path: Path) -> None:
    """One null in a file of others made the scale of all votes NaN, which JSON has not: every pair was a fault."""
    table = pq.read_table(plain)
    votes = table["votes"].to_pylist()
    votes[:4] = [[None, 0.5], None, [], [float("nan"), -0.25]]
    column = pa.array(votes, pa.list_(pa.float64()))
    pq.write_table(table.set_column(table.column_names.index("votes"), "votes", column), tmp_path / "some.parquet")
    page = client(session(tmp_path / "some.parquet"))
    shown = [asked(page, "pair", place=place) for place in range(len(votes))]
    by_id = {pair["id"]: pair["votes"] for pair in shown}
    assert [by_id[name] for name in table["id"].to_pylist()[:4]] == [[0.5], [], [], [-0.25]]
    sizes = [abs(vote) for row in votes for vote in row or [] if vote is not None and vote == vote]
    assert shown[0]["vote_limit"] == same(float(np.quantile(sizes, 0.99)))
