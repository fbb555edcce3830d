"""A judge behind an address, against a server of this test: both orders, busy servers, bad answers, kill and resume."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Generator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_rm.rlhf import chat_endpoint
from lightning_rm.rlhf.endpoint_judge import EndpointJudge, verdict_of
from lightning_rm.rlhf.judges import Comparison
from tests.commands.test_conf import composed
from tests.stubs import running

SECRET = "sk-3ecret"
PROMPT = ({"role": "user", "content": "name {second} fruits."},)
WIN, LOSE = Comparison(PROMPT, "good", "bad"), Comparison(PROMPT, "bad", "good")
BY_PLACE = Comparison(PROMPT, "same", "same too")
TIE = Comparison(PROMPT, "equal", "equal again")
GARBAGE = Comparison(PROMPT, "garbage", "bad")
EQUAL = Comparison(PROMPT, "so", "so ")
TEMPLATE = "{prompt}|{first}|{second}"


class Stub(ThreadingHTTPServer):
    """Prefers good; knows equals; mumbles at garbage; else takes what stands first. `replies` come before."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.replies: list[tuple[int, dict[str, str], str]] = []
        self.usage: dict[str, int] | None = {"prompt_tokens": 100, "completion_tokens": 10}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        stub = cast(Stub, self.server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub.asked.append({"path": self.path, **body})
        stub.keys.append(self.headers["Authorization"])
        status, headers, text = stub.replies.pop(0) if stub.replies else (200, {}, self._said(stub, body))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def _said(self, stub: Stub, body: dict[str, Any]) -> str:
        _, first, second = body["messages"][0]["content"].split("|")
        said = "[[B]]" if second == "good" else "[[A]]"
        said = "[[C]]" if "equal" in first else said
        said = f"I cannot say, {SECRET}" if "garbage" in first + second else f"Not [[C]]? It is {said}"
        return json.dumps(
            {"choices": [{"message": {"content": said}}], **({"usage": stub.usage} if stub.usage else {})}
        )

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Time:
    """Goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Generator[Stub]:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    with running(Stub()) as server:
        yield server


@pytest.fixture
def judge(stub: Stub, tmp_path: Path) -> Callable[..., EndpointJudge]:
    def made(time: Time | None = None, **options: Any) -> EndpointJudge:
        time = time or Time()
        given = {"template": TEMPLATE, "key": "JUDGE_KEY", "parallel": 1, "max_unreadable": 1.0, **options}
        return EndpointJudge(stub.url, "m", tmp_path, clock=lambda: time.now, sleep=time.sleep, **given)

    return made


def verdicts(judge: EndpointJudge, comparisons: Sequence[Comparison]) -> list[str | None]:
    return [judgement.verdict for judgement in judge(comparisons)]


def test_two_answers_are_one_verdict() -> None:
    assert verdict_of("A", "B") == "win"
    assert verdict_of("B", "A") == "lose"
    for first, second in (("A", "A"), ("B", "B"), ("C", "C"), ("A", "C"), ("C", "A"), ("C", "B"), ("B", "C")):
        assert verdict_of(first, second) == "tie"  # pyright: ignore[reportArgumentType]  # letters
    assert verdict_of(None, "B") is None
    assert verdict_of("A", None) is None


@pytest.mark.parametrize("parallel", [1, 4])
def test_each_comparison_is_asked_both_ways_round(
    judge: Callable[..., EndpointJudge], stub: Stub, parallel: int
) -> None:
    asked = judge(parallel=parallel, request={"temperature": 0.0, "max_tokens": None})
    compared = [WIN, LOSE, BY_PLACE, TIE, EQUAL, WIN, GARBAGE]
    assert verdicts(asked, compared) == ["win", "lose", "tie", "tie", "tie", "win", None]
    # LOSE asks what WIN does, in the other order; equal responses are not asked about
    questions = [each["messages"][0]["content"] for each in stub.asked]
    assert sorted(questions) == sorted(
        f"user: name {{second}} fruits.|{first}|{second}"
        for pair in (WIN, BY_PLACE, TIE, GARBAGE)
        for first, second in ((pair.response, pair.other), (pair.other, pair.response))
    )
    assert {each["path"] for each in stub.asked} == {"/v1/chat/completions"}
    assert stub.asked[0].keys() == {"path", "model", "messages", "temperature"}
    assert set(stub.keys) == {f"Bearer {SECRET}"}


def test_a_busy_server_is_asked_again(judge: Callable[..., EndpointJudge], stub: Stub) -> None:
    time = Time()
    stub.replies = [(500, {}, ""), (429, {"Retry-After": "7"}, "slow"), (200, {}, "no JSON"), (200, {}, "[]")]
    asked = judge(time)
    assert verdicts(asked, [WIN]) == ["win"]
    assert time.slept == [1, 7, 4, 8]
    usage = asked.usage()
    assert (usage.num_answers, usage.num_requests) == (2, 6)


def test_one_is_not_asked_for_ever(judge: Callable[..., EndpointJudge], stub: Stub) -> None:
    time = Time()
    stub.replies = [(503, {}, "busy")] * 3
    with pytest.raises(
        ValueError, match=r"/v1/chat/completions does not answer: 503 .*busy; what .* start again to go on"
    ):
        judge(time, max_retries=2)([WIN])
    assert time.slept == [1, 2]
    stub.replies = [(429, {"Retry-After": "86400"}, "")]
    with pytest.raises(ValueError, match="asks for a pause of 86,400 seconds"):
        judge(time)([WIN])
    assert time.slept == [1, 2]


def test_what_stops_one_thread_stops_all(judge: Callable[..., EndpointJudge], stub: Stub) -> None:
    stub.replies = [(404, {}, "no such model")] * 40
    with pytest.raises(ValueError, match="no such model"):
        judge(parallel=4)([Comparison(PROMPT, str(number), "bad") for number in range(20)])
    assert len(stub.asked) < 40
    stub.replies = []
    assert verdicts(judge(parallel=4), [WIN]) == ["win"]


def test_the_configuration_makes_it(stub: Stub, tmp_path: Path) -> None:
    words = [f"out={tmp_path}", "judge=endpoint", f"judge.url={stub.url}", "judge.model=m", "judge.key=JUDGE_KEY"]
    cfg = composed(*words, f'judge.judge.template="{TEMPLATE}"', "judge.judge.request.max_tokens=9", command="rlhf")
    made = instantiate(cfg.judge.judge)
    assert verdicts(made, [WIN, LOSE]) == ["win", "lose"]
    assert (tmp_path / "judge/answers.jsonl").is_file()
    assert {key: stub.asked[0][key] for key in ("model", "temperature", "max_tokens")} == {
        "model": "m",
        "temperature": 0.0,
        "max_tokens": 9,
    }
    assert SECRET not in OmegaConf.to_yaml(cfg, resolve=True)


def test_whether_a_server_answers_is_asked_once_and_not_counted(
    judge: Callable[..., EndpointJudge], stub: Stub, tmp_path: Path
) -> None:
    stub.replies = [(200, {}, json.dumps({"choices": [{"message": {"content": "[[C]]"}}]})), (404, {}, "no such model")]
    judge().reach()
    assert len(stub.asked) == 1
    assert not (tmp_path / "answers.jsonl").exists()
    with pytest.raises(ValueError, match="no such model; is a server there\\? Look at the judge's url, model and key"):
        judge().reach()


def test_requests_are_spaced(judge: Callable[..., EndpointJudge], stub: Stub) -> None:
    time = Time()
    judge(time, requests_per_minute=30)([WIN, TIE])
    assert len(stub.asked) == 4
    assert time.slept == [2, 2, 2]


def test_too_many_unreadable_answers_are_an_error_that_names_the_first(
    judge: Callable[..., EndpointJudge], stub: Stub
) -> None:
    compared = [WIN, TIE, BY_PLACE, GARBAGE]
    with pytest.raises(
        ValueError, match=r"2 answers of 8 without .* max_unreadable=0.2; the first ends 'I cannot say, "
    ):
        judge(max_unreadable=0.2)(compared)
    num_asked = len(stub.asked)
    asked = judge(max_unreadable=0.25)
    assert verdicts(asked, compared) == ["win", "tie", "tie", None]
    assert len(stub.asked) == num_asked  # unreadable answers are known, too
    assert asked.usage().num_unreadable == 2


def test_what_was_cut_off_has_no_verdict(judge: Callable[..., EndpointJudge], stub: Stub) -> None:
    """A judge that thinks aloud repeats what it was asked for, and gets no further."""
    thinks = {"message": {"content": "It has to end with [[A]], [[B]] or [[C]]. The first"}, "finish_reason": "length"}
    stub.replies = [(200, {}, json.dumps({"choices": [thinks]}))]
    asked = judge()
    assert verdicts(asked, [WIN]) == [None]
    assert asked.usage().num_unreadable == 1
    with pytest.raises(ValueError, match=r"1 answers of 2 without .* or cut off, .* give answers more tokens"):
        verdicts(judge(max_unreadable=0.1), [WIN])


@pytest.mark.parametrize("usage", [["7"], "7", 7, {"prompt_tokens": "7", "completion_tokens": None}])
def test_what_is_no_count_of_tokens_is_not_counted(judge: Callable[..., EndpointJudge], stub: Stub, usage: Any) -> None:
    stub.usage = usage
    asked = judge(prompt_price=1.0, completion_price=1.0)
    assert verdicts(asked, [WIN]) == ["win"]
    assert (asked.usage().num_uncounted, asked.usage().cost) == (2, 0.0)


def test_a_killed_run_asks_nothing_twice(judge: Callable[..., EndpointJudge], stub: Stub, tmp_path: Path) -> None:
    stub.replies = [(200, {}, json.dumps({"choices": [{"message": {"content": "[[A]]"}}]})), (400, {}, "no model m")]
    with pytest.raises(ValueError, match=r"does not answer: 400 .*: no model m"):
        judge()([WIN, LOSE, TIE])
    file = tmp_path / "answers.jsonl"
    assert len(file.read_text().splitlines()) == 1
    with file.open("a") as opened:  # a line that the kill cut off
        opened.write('{"question": "0')
    stub.asked.clear()
    asked = judge()
    assert verdicts(asked, [WIN, LOSE, TIE]) == ["win", "lose", "tie"]
    assert len(stub.asked) == 3
    assert verdicts(judge(), [LOSE, TIE]) == ["lose", "tie"]
    assert len(stub.asked) == 3
    assert asked.usage().num_uncounted == 1
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 4


def test_tokens_and_cost_are_counted(judge: Callable[..., EndpointJudge]) -> None:
    asked = judge(prompt_price=2.0, completion_price=10.0)
    asked([WIN])
    assert asked.usage().cost == pytest.approx((200 * 2 + 20 * 10) / 1e6, rel=1e-12)
    assert str(asked.usage()) == (
        "2 answers of the judge so far, 0 of them unreadable; 2 requests; 200 tokens of questions and 20 of answers; "
        "cost 0.0006"
    )
    assert "cost" not in str(judge().usage())


def test_the_key_is_nowhere(
    judge: Callable[..., EndpointJudge], stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that repeats it in answers, reasons and bodies; an address and a name that hold one; a redirect."""
    asked = judge()
    asked([GARBAGE, WIN])
    said = [str(asked.usage()), repr(asked), asked.digest, *(file.read_text() for file in tmp_path.iterdir())]
    assert "I cannot say, [key]" in said[-1]
    elsewhere = {"Location": f"{stub.url}/elsewhere"}
    for reply in ((400, {}, f"bad {SECRET}"), (401, {}, f"{SECRET[:5]}..."), (302, elsewhere, "")):
        num_asked, stub.replies = len(stub.asked), [reply]
        with pytest.raises(ValueError, match="does not answer") as caught:
            judge()([TIE])
        said.append(str(caught.value))
        assert len(stub.asked) == num_asked + 1
    for url, options in (
        (f"http://me:{SECRET}@host", {}),
        (f"http://host?key={SECRET}", {}),
        (stub.url, {"key": SECRET}),
    ):
        with pytest.raises(ValueError, match=r"key=|the name of an environment variable") as caught:
            EndpointJudge(url, "m", tmp_path, **options)
        said.append(str(caught.value))
    monkeypatch.setenv("JUDGE_KEY", f"{SECRET}\nmore")
    with pytest.raises(ValueError, match="JUDGE_KEY holds what a header cannot") as caught:
        judge()
    said.append(str(caught.value))
    assert not [text for text in said if SECRET in text or SECRET[:5] in text]
    monkeypatch.setenv("JUDGE_KEY", f"{SECRET}\n")  # as a file gives it
    stub.keys.clear()
    judge()([TIE])
    assert set(stub.keys) == {f"Bearer {SECRET}"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "NO_SUCH_KEY"}, "the environment variable NO_SUCH_KEY is not set"),
        ({"template": "{prompt} {first}"}, "has no {second}"),
        ({"template": "no/such/file"}, "is not a file to read"),
        ({"parallel": 0}, "parallel=0; give 1 or more"),
        ({"max_unreadable": 2}, "max_unreadable=2; it is a share"),
        ({"requests_per_minute": 0}, "requests_per_minute=0; give more than 0"),
        ({"max_retries": -1}, "max_retries=-1; give 0 or more"),
        ({"prompt_price": 1.0}, "give both, or neither"),
    ],
)
def test_settings_that_cannot_work(judge: Callable[..., EndpointJudge], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        judge(**options)


def test_a_digest_changes_with_what_the_judgements_depend_on(
    judge: Callable[..., EndpointJudge], stub: Stub, tmp_path: Path
) -> None:
    (tmp_path / "template.txt").write_text(TEMPLATE)
    first = judge()
    assert judge(template=str(tmp_path / "template.txt"), parallel=2, prompt_price=1, completion_price=1).digest == (
        first.digest
    )
    others = [judge(template=None), judge(request={"temperature": 1.0}), EndpointJudge(stub.url, "n", tmp_path)]
    assert len({each.digest for each in (first, *others)}) == 4


def test_a_file_that_is_not_of_answers_is_named(judge: Callable[..., EndpointJudge], tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"answers.jsonl, line 1 is not an answer of a judge"):
        judge()([WIN])


def test_an_answer_without_end_is_not_read(
    judge: Callable[..., EndpointJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_endpoint, "MAX_ANSWER_BYTES", 20)
    with pytest.raises(ValueError, match="does not answer: the answer has more than 20 bytes"):
        verdicts(judge(max_retries=0), [WIN])


def test_a_server_that_goes_on_sending_blanks_is_given_up(stub: Stub, tmp_path: Path) -> None:
    """Each byte comes in time, and the answer does not: a clock that goes on by 40 seconds whenever it is asked."""
    ticks = itertools.count(0.0, 40.0)
    stub.replies = [(200, {}, " " * 2**20)] * 2
    slow = EndpointJudge(
        stub.url, "m", tmp_path, clock=lambda: next(ticks), sleep=lambda _: None, max_retries=1, parallel=1
    )
    with pytest.raises(ValueError, match=r"does not answer: the answer has no end after timeout=120 seconds; what"):
        verdicts(slow, [WIN])
    assert len(stub.asked) == 2
