"""Every dialect's request, as its client sends it, gets its own answer, and the same reward."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.serving.batcher import Rewards
from lightning_rm.serving.meters import Meters
from tests.float64 import same
from tests.serving.toy_service import (
    IDS,
    MESSAGES,
    REQUESTS,
    REWARD,
    TEXT,
    in_float32,
    number,
    post,
    requested,
    summed,
    toy_app,
)


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_every_dialect_gets_the_same_reward(path: str, body: dict[str, Any]) -> None:
    """`<s><|user|>w1 w2<|assistant|>w3</s>` is 1 4 11 12 5 13 2: .48."""
    response = post(toy_app(), path, body)
    assert response.status_code == 200, response.text
    assert number(path, body, response.json()) == REWARD


def test_answers_have_their_dialects_form() -> None:
    app = toy_app()
    two = [TEXT, "<s><|user|>w1"]
    classify = post(app, "/classify", {"input": two}, headers={"X-Request-Id": "mine"}).json()
    assert classify.pop("created") > 0
    assert classify == {
        "id": "classify-mine",
        "object": "list",
        "model": "toy",
        "data": [
            {"index": 0, "label": "LABEL_0", "probs": [REWARD], "num_classes": 1},
            {"index": 1, "label": "LABEL_0", "probs": [in_float32(0.16)], "num_classes": 1},
        ],
        "usage": {"prompt_tokens": 10, "total_tokens": 10, "completion_tokens": 0, "prompt_tokens_details": None},
    }
    pooling = post(app, "/pooling", {"input": TEXT, "request_id": "own"}).json()
    assert pooling["id"] == "pool-own"
    assert pooling["data"] == [{"index": 0, "object": "pooling", "data": [REWARD]}]
    embeddings = post(app, "/v1/embeddings", {"input": two, "encoding_format": "base64"}).json()
    assert embeddings["object"] == "list"
    assert embeddings["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    read = [struct.unpack("<f", base64.b64decode(item["embedding"]))[0] for item in embeddings["data"]]
    assert read == [REWARD, in_float32(0.16)]
    assert {item["object"] for item in embeddings["data"]} == {"embedding"}
    listed = post(app, "/classify", {"text": two}).json()
    assert [item["meta_info"]["prompt_tokens"] for item in listed] == [7, 3]
    assert post(app, "/classify", {"text": TEXT}).json()["embedding"] == [REWARD]
    # What a request said comes back, though UTF-8 cannot write it.
    broken = post(app, "/classify", None, content=b'{"input": "w1", "request_id": "\\ud83d"}')
    assert (broken.status_code, broken.json()["id"]) == (200, "classify-\ud83d")
    rewards = post(app, "/get_reward", {"query": two}).json()
    assert rewards == {
        "rewards": [REWARD, in_float32(0.16)],
        "scores": [REWARD, in_float32(0.16)],
        "extra_logs": {"dummy_scores": [REWARD, in_float32(0.16)]},
    }
    assert post(app, "/get_reward", {"query": []}).json()["rewards"] == []


def test_an_activation_is_applied_where_it_is_asked_for_alone() -> None:
    app = toy_app()
    on = 1 / (1 + np.exp(-REWARD))
    for body, wanted in (
        ({"use_activation": True}, on),
        ({"activation": True}, on),
        ({"use_activation": None}, REWARD),
        ({"activation": False, "use_activation": False}, REWARD),
    ):
        answer = post(app, "/classify", {"input": TEXT, **body}).json()
        assert answer["data"][0]["probs"] == [same(wanted)]
    refused = post(app, "/classify", {"input": TEXT, "use_activation": True, "activation": False})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "activation")


def test_truncation_is_asked_for_or_an_error() -> None:
    """The BOS stays, and the last tokens: 1, then 13 and 2."""
    app = toy_app()
    cut = post(app, "/classify", {"input": IDS, "truncate_prompt_tokens": 3}).json()
    assert cut["data"][0]["probs"] == [in_float32(0.16)]
    assert cut["usage"]["prompt_tokens"] == 3
    assert (
        post(app, "/classify", {"input": [5] * 41, "truncate_prompt_tokens": -1}).json()["usage"]["prompt_tokens"] == 40
    )
    assert (
        "lightning_rm_truncated_total 2\n" in asyncio.run(requested(app, {"method": "GET", "url": "/metrics"}))[0].text
    )
    for field, body in (("input", {"input": [5] * 41}), ("truncate_prompt_tokens", {"truncate_prompt_tokens": 41})):
        refused = post(app, "/classify", {"input": IDS} | body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
        assert "reads 40" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/classify", {}, 400, "input"),
        ("/classify", {"input": ""}, 400, "input"),
        ("/classify", {"input": "  \n"}, 400, "input"),
        ("/classify", {"input": []}, 400, "input"),
        ("/classify", {"input": [TEXT, " "]}, 400, "input[1]"),
        ("/classify", {"input": [TEXT, 3]}, 400, "input[1]"),
        ("/classify", {"input": [3, TEXT]}, 400, "input[1]"),
        ("/classify", {"input": [[3], TEXT]}, 400, "input[1]"),
        ("/classify", {"input": [[3], []]}, 400, "input[1]"),
        ("/classify", {"input": [[3], [-1]]}, 400, "input[1][0]"),
        ("/classify", {"input": [3, True]}, 400, "input[1]"),
        ("/classify", {"input": [3, 50]}, 400, "input"),
        ("/classify", {"input": {"a": 1}}, 400, "input"),
        ("/classify", {"input": [TEXT] * 9}, 400, "input"),
        ("/classify", {"input": "w1 \ud800"}, 400, "input"),
        ("/classify", {"input": TEXT, "text": TEXT}, 400, "text"),
        ("/classify", {"input": TEXT, "messages": MESSAGES}, 400, "input"),
        ("/classify", {"input": TEXT, "model": "other"}, 404, "model"),
        ("/classify", {"input": TEXT, "model": "\udfff"}, 404, "model"),
        ("/classify", {"input": TEXT, "model": 3}, 400, "model"),
        ("/classify", {"input": TEXT, "use_activation": "false"}, 400, "use_activation"),
        ("/classify", {"input": TEXT, "add_special_tokens": 1}, 400, "add_special_tokens"),
        ("/classify", {"input": TEXT, "truncate_prompt_tokens": -2}, 400, "truncate_prompt_tokens"),
        ("/classify", {"input": TEXT, "truncate_prompt_tokens": 0}, 400, "input"),
        ("/classify", {"input": TEXT, "truncate_prompt_tokens": 1}, 400, "truncate_prompt_tokens"),
        ("/classify", {"input_ids": TEXT}, 400, "input_ids"),
        ("/classify", {"text": [1]}, 400, "text[0]"),
        ("/classify", {"messages": []}, 400, "messages"),
        ("/classify", {"messages": "hi"}, 400, "messages"),
        ("/classify", {"messages": MESSAGES[:1]}, 400, "messages"),
        ("/classify", {"messages": [{"role": "wizard", "content": "w1"}]}, 400, "messages"),
        ("/classify", {"messages": [{"role": "user", "content": "<image>"}, *MESSAGES[1:]]}, 400, "messages"),
        (
            "/classify",
            {"messages": [{"role": "user", "content": "<image>"}], "add_generation_prompt": True},
            400,
            "messages",
        ),
        ("/classify", {"messages": MESSAGES, "chat_template": "{{ 1 }}"}, 400, "chat_template"),
        (
            "/classify",
            {"messages": MESSAGES, "chat_template_kwargs": {"chat_template": ""}},
            400,
            "chat_template_kwargs",
        ),
        (
            "/classify",
            {"messages": MESSAGES, "chat_template_kwargs": {"sanitize_control_tokens": True}},
            400,
            "chat_template_kwargs",
        ),
        ("/classify", {"messages": MESSAGES, "chat_template_kwargs": {"self": 1}}, 400, "chat_template_kwargs"),
        ("/classify", {"messages": MESSAGES, "chat_template_kwargs": []}, 400, "chat_template_kwargs"),
        ("/classify", {"messages": MESSAGES, "tools": [1]}, 400, "tools"),
        (
            "/classify",
            {"messages": MESSAGES, "add_generation_prompt": True, "continue_final_message": True},
            400,
            "add_generation_prompt",
        ),
        ("/pooling", {"input": TEXT, "task": "embed"}, 400, "task"),
        ("/pooling", {"input": TEXT, "encoding_format": "bytes"}, 400, "encoding_format"),
        ("/pooling", {"input": TEXT, "normalize": True}, 400, "normalize"),
        ("/v1/embeddings", {"input": None}, 400, "input"),
        ("/v1/embeddings", {"input": TEXT, "dimensions": 2}, 400, "dimensions"),
        ("/get_reward", {}, 400, "query"),
        ("/get_reward", {"query": [1]}, 400, "query[0]"),
        ("/get_reward", {"query": {}}, 400, "query"),
    ],
)
def test_an_error_names_its_field(path: str, body: dict[str, Any], status: int, field: str) -> None:
    response = post(toy_app(), path, None, content=_json(body))
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, field, status)
    assert error["message"].startswith(field)


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


def test_bodies_that_are_no_requests() -> None:
    app = toy_app()
    deep = b'{"input":' + b"[" * 2000 + b"]" * 2000 + b"}"
    for content in (b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"input": NaN', deep, b'{"input": ' + b"9" * 4000 + b"}"):
        response = post(app, "/classify", None, content=content)
        assert (response.status_code, response.json()["error"]["type"]) == (400, "BadRequestError")
    wide = post(app, "/classify", None, content=b'{"input": "w1", "chat_template_kwargs": {"most": -1e400}}')
    assert (wide.status_code, wide.json()["error"]["type"]) == (400, "BadRequestError")
    assert "the number -1e400 is beyond 1.8e308" in wide.json()["error"]["message"]
    none = post(app, "/classify", None, content=b'{"input": "w1", "chat_template_kwargs": {"most": NaN}}')
    assert (none.status_code, none.json()["error"]["type"]) == (400, "BadRequestError")
    assert "NaN is no number of JSON" in none.json()["error"]["message"]
    assert post(app, "/classify", {"input": "w1 " * 4096}).status_code == 413
    answers = asyncio.run(requested(app, {"method": "GET", "url": "/classify"}, {"url": "/score", "json": {}}))
    assert [answer.status_code for answer in answers] == [405, 404]
    told = answers[1].json()["error"]["message"]
    routes = {route.path for route in app.routes} - {"/openapi.json"}  # pyright: ignore[reportAttributeAccessIssue]
    assert set(told.removeprefix("there is no /score; there are ").split(", ")) == routes
    assert all("error" in answer.json() for answer in answers)


def test_a_key_is_asked_for_everywhere_but_at_health() -> None:
    app = toy_app(api_key="secret")
    wrong = [
        {},
        {"Authorization": "Bearer other"},
        {"Authorization": "Basic secret"},
        {"Authorization": b"Bearer \xff"},
    ]
    for headers in wrong:
        for request in (
            {"url": "/classify", "json": {"input": TEXT}},
            {"method": "GET", "url": "/v1/models"},
            {"method": "GET", "url": "/metrics"},
        ):
            assert asyncio.run(requested(app, request | {"headers": headers}))[0].status_code == 401
    assert post(app, "/classify", {"input": TEXT}, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert asyncio.run(requested(app, {"method": "GET", "url": "/health"}))[0].status_code == 200


def test_models_and_metrics() -> None:
    app = toy_app()
    post(app, "/classify", {"input": [TEXT, TEXT]})
    post(app, "/classify", {"input": 3})
    models, metrics = asyncio.run(
        requested(app, {"method": "GET", "url": "/v1/models"}, {"method": "GET", "url": "/metrics"})
    )
    assert models.json()["object"] == "list"
    assert (models.json()["data"][0]["id"], models.json()["data"][0]["max_model_len"]) == ("toy", 40)
    for line in (
        'lightning_rm_requests_total{path="/classify",status="200"} 1',
        'lightning_rm_requests_total{path="/classify",status="400"} 1',
        "lightning_rm_rewards_total 2",
        "lightning_rm_batch_tokens_total 14",
        "lightning_rm_waiting_sequences 0",
        'lightning_rm_request_seconds_bucket{le="+Inf"} 1',
    ):
        assert line in metrics.text.splitlines()


def test_counters_of_millions_have_all_their_digits() -> None:
    meters = Meters()
    meters.add("batch_tokens_total", 12_345_677)
    meters.add("batch_tokens_total")
    meters.observe(0.25)
    lines = meters.text(waiting_sequences=3).splitlines()
    assert "lightning_rm_batch_tokens_total 12345678" in lines
    assert {"lightning_rm_waiting_sequences 3", "lightning_rm_request_seconds_sum 0.25"} <= set(lines)


def test_members_answer_with_their_mean_and_spread() -> None:
    def members(sequences: Sequence[Sequence[int]]) -> Rewards:
        return np.array([[1.0, 2.0, 6.0]] * len(sequences), dtype=np.float32)

    app = toy_app(members)
    assert post(app, "/classify", {"input": TEXT}).json()["data"][0]["probs"] == [3.0]
    assert post(app, "/get_reward", {"query": [TEXT]}).json()["extra_logs"]["member_std"] == [same(14**0.5 / 3**0.5)]


def test_a_model_that_fails_says_so_to_whom_it_concerns() -> None:
    """Of three requests in one batch two are answered: the reward of the third is not a number."""

    def brittle(sequences: Sequence[Sequence[int]]) -> Rewards:
        if [13] in [list(ids) for ids in sequences]:
            raise ValueError("a reward is not finite")
        return summed(sequences)

    app = toy_app(brittle)
    answers = asyncio.run(requested(app, *({"url": "/classify", "json": {"input": [ids]}} for ids in (12, 13, 14))))
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert [answers[place].json()["data"][0]["probs"][0] for place in (0, 2)] == [in_float32(0.12), in_float32(0.14)]
    nan = post(toy_app(lambda sequences: np.full((1, 1), np.nan, np.float32)), "/classify", {"input": TEXT})
    assert (nan.status_code, "not a finite number" in nan.text) == (500, True)


def test_a_server_whose_model_scores_no_more_is_unhealthy() -> None:
    """Health was `ok` after an error of the device, which every later request meets. A text that fails by itself is
    no such error, and a model that scores again is well again.
    """
    lost: list[str] = []
    asked: list[list[int]] = []

    def brittle(sequences: Sequence[Sequence[int]]) -> Rewards:
        asked.extend(list(ids) for ids in sequences)
        if lost:
            raise RuntimeError(lost[0])
        if [13] in [list(ids) for ids in sequences]:
            raise RuntimeError("out of memory")
        return summed(sequences)

    def health(app: Any) -> tuple[int, str]:
        response = asyncio.run(requested(app, {"method": "GET", "url": "/health"}))[0]
        return response.status_code, response.json()["error"]["message"] if response.status_code != 200 else ""

    app = toy_app(brittle, api_key="secret")

    def status(ids: list[int]) -> int:
        return post(app, "/classify", {"input": ids}, headers={"Authorization": "Bearer secret"}).status_code

    assert (health(app), asked) == ((200, ""), [])
    assert (status([13]), health(app), asked) == (500, (200, ""), [[13], [0]])
    lost.append("CUDA error: device-side assert triggered\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1")
    assert health(app) == (200, "")  # nobody has met it yet
    assert status([12]) == 500
    told = "the model does not score any more, restart the server: CUDA error: device-side assert triggered"
    assert [health(app), health(app)] == [(503, told)] * 2
    lost.clear()
    assert (status([12]), health(app)) == (200, (200, ""))
    nan = toy_app(lambda sequences: np.full((1, 1), np.nan, np.float32))
    assert post(nan, "/classify", {"input": TEXT}).status_code == 500
    assert health(nan)[0] == 503


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([TEXT, "toy", "classify"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "x"]) | JSON,
        "content": JSON,
        "name": JSON,
    },
)
FIELDS = {
    "input": JSON | st.lists(st.integers(-1, 60), max_size=5),
    "text": JSON,
    "input_ids": JSON,
    "query": JSON | st.lists(st.text()),
    "messages": JSON | st.lists(TURN, max_size=3),
    "tools": JSON,
    "chat_template": JSON,
    "chat_template_kwargs": JSON,
    "truncate_prompt_tokens": st.integers(-3, 9) | JSON,
    **dict.fromkeys(["model", "task", "encoding_format", "dimensions", "normalize", "request_id", "user"], JSON),
    **dict.fromkeys(["use_activation", "activation", "add_special_tokens"], st.booleans() | JSON),
    **dict.fromkeys(["add_generation_prompt", "continue_final_message"], st.booleans() | JSON),
}


@pytest.fixture(scope="module")
def fuzzed_app() -> Any:
    return toy_app(batch_tokens=16)


@settings(max_examples=150)
@given(
    path=st.sampled_from(["/classify", "/pooling", "/v1/embeddings", "/get_reward"]),
    body=st.fixed_dictionaries({}, optional=FIELDS),
)
def test_fuzzed_requests_never_break_the_server(fuzzed_app: Any, path: str, body: dict[str, Any]) -> None:
    response = post(fuzzed_app, path, None, content=_json(body))
    assert response.status_code in (200, 400, 404, 413), response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]


@settings(max_examples=100)
@given(content=st.binary(max_size=40))
def test_fuzzed_bytes_never_break_the_server(fuzzed_app: Any, content: bytes) -> None:
    assert post(fuzzed_app, "/classify", None, content=content).status_code == 400
