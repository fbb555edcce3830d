"""The server over a real socket: many clients at once, peers' own client code, and an end that answers first."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import signal
import socket
import struct
import threading
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from lightning_rm.data.tokenize.pairs import encode_conversation
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.scoring.engine import score_sequences
from lightning_rm.serving.batcher import Rewards
from lightning_rm.serving.serve import ServeOptions, reward_app, serve
from lightning_rm.serving.server import background_server, run_server
from tests.data.words import PAD, word_tokenizer
from tests.float64 import same
from tests.serving.toy_service import (
    MESSAGES,
    REQUESTS,
    REWARD,
    TEMPLATE,
    TEXT,
    in_float32,
    number,
    post,
    summed,
    toy_app,
)
from tests.tiny import CONFIGS, conversation


@pytest.fixture(scope="module")
def model() -> RewardModel:
    config = {**CONFIGS["llama"], "vocab_size": 50, "pad_token_id": PAD, "eos_token_id": 2, "bos_token_id": 1}
    return RewardModel.from_config(config, dtype="float64").eval()


def test_two_hundred_clients_each_get_their_own_reward(model: RewardModel) -> None:
    """200 requests at once, of one or two items; rewards are those of the engine on each alone."""
    asked = [
        [conversation(5 + (number * 7) % 40, number + item) for item in range(1 + number % 2)] for number in range(200)
    ]
    wanted = [[float(score_sequences(model, [ids])[0, 0]) for ids in items] for items in asked]

    async def client(session: httpx.AsyncClient, number: int) -> list[list[float]]:
        got: list[list[float]] = []
        for _ in range(1):
            answer = (await session.post("/classify", json={"input": asked[number]})).json()
            got.append([item["probs"][0] for item in answer["data"]])
        return got

    async def clients(url: str) -> list[list[list[float]]]:
        connections = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False, limits=connections) as session:
            return await asyncio.gather(*(client(session, number) for number in range(200)))

    with background_server(reward_app(model, word_tokenizer(TEMPLATE, adds_bos=True))) as url:
        answers = asyncio.run(clients(url))
        metrics = urllib.request.urlopen(f"{url}/metrics").read().decode()
    assert answers == [[same(rewards)] * 1 for rewards in wanted]
    assert 'lightning_rm_requests_total{path="/classify",status="200"} 200\n' in metrics
    batches = float(
        next(line.split()[1] for line in metrics.splitlines() if line.startswith("lightning_rm_batches_total"))
    )
    assert batches < 200  # requests met in batches


def test_a_model_is_served_with_its_own_rewards(model: RewardModel) -> None:
    """Messages over HTTP, by a client that knows nothing but HTTP, give the reward of the conversation's ids."""
    tokenizer = word_tokenizer(TEMPLATE, adds_bos=True)
    ids = encode_conversation(tokenizer, MESSAGES)  # pyright: ignore[reportArgumentType]
    wanted = float(score_sequences(model, [ids])[0, 0])
    with background_server(reward_app(model, tokenizer, ServeOptions(name="mine", max_tokens=20))) as url:
        address = url.removeprefix("http://")
        connection = http.client.HTTPConnection(address)
        bodies: list[Any] = [{"messages": MESSAGES}, {"input": TEXT, "model": "mine"}, {"input": [TEXT] * 2}]
        got: list[float] = []
        for body in bodies:
            connection.request("POST", "/classify", json.dumps(body))
            got.append(json.loads(connection.getresponse().read())["data"][-1]["probs"][-1])
        connection.request("GET", "/v1/models")
        listed = json.loads(connection.getresponse().read())["data"][0]
    assert got == [same(wanted)] * 3
    assert (listed["id"], listed["max_model_len"]) == ("mine", 20)


def test_every_clients_request_over_a_socket() -> None:
    """One connection after the other, as the clients open them; OpenAI's asks for base64 by itself."""
    got: list[float] = []
    with background_server(toy_app()) as url:
        for path, body in REQUESTS:
            headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
            request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=60) as response:
                got.append(number(path, body, json.loads(response.read())))
        body = json.dumps({"model": "toy", "input": [TEXT], "encoding_format": "base64"}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/embeddings", body), timeout=60) as response:
            [told] = json.loads(response.read())["data"]
        got += struct.unpack("<f", base64.b64decode(told["embedding"]))
    assert got == [REWARD] * (len(REQUESTS) + 1)


@pytest.mark.parametrize(("headers", "sent"), [("", 3_000_000), ("Expect: 100-continue\r\n", 0)])
def test_a_body_that_is_too_large_is_answered_and_not_reset(headers: str, sent: int) -> None:
    """A client that writes all of its body before it reads finds the answer, and one that asks first need not write."""
    with background_server(toy_app()) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(f"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n{headers}\r\n".encode())
            client.sendall(b" " * sent)
            assert client.recv(12) == b"HTTP/1.1 413"


def test_a_client_that_stops_in_its_body_does_not_keep_the_server_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for every request: it came never."""
    monkeypatch.setattr("lightning_rm.serving.app.SILENT_SECONDS", 0.05)
    with background_server(toy_app()) as url:
        host, port = url.removeprefix("http://").split(":")
        client = socket.create_connection((host, int(port)), timeout=60)
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        answer = b"".join(iter(lambda: client.recv(4096), b""))  # to the end of the connection
        client.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not go on for 0.05 seconds after 1 bytes" in answer


def test_an_argument_that_the_template_does_not_read_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    app = toy_app()
    for _ in range(2):
        assert post(app, "/classify", {"messages": MESSAGES, "chat_template_kwargs": {"style": 1}}).status_code == 200
    assert [record.getMessage() for record in caplog.records if "argument" in record.getMessage()] == [
        "requests give the template an argument that it does not read: 'style'"
    ]


def test_members_and_ensembles_are_served(model: RewardModel) -> None:
    """Members by their mean, an ensemble by its aggregate: here the worst."""
    tokenizer = word_tokenizer(TEMPLATE, adds_bos=True)
    members = MemberRewardModel.of(model, Members(num_members=3)).eval()
    ensemble = RewardEnsemble(
        [model, RewardModel.from_config(model.backbone.config, seed=1, dtype="float64")], "worst"
    ).eval()
    ids = encode_conversation(tokenizer, MESSAGES)  # pyright: ignore[reportArgumentType]
    for served, wanted in (
        (members, score_sequences(members, [ids]).mean()),
        (ensemble, min(score_sequences(one, [ids])[0, 0] for one in ensemble.members)),
    ):
        answer = post(reward_app(served, tokenizer), "/get_reward", {"query": [TEXT]}).json()
        assert answer["rewards"] == [same(float(wanted))]
        assert ("member_std" in answer["extra_logs"]) == (served is members)


def test_the_end_answers_what_is_in_flight() -> None:
    """SIGTERM while eight requests wait behind a closed gate: all are answered, later ones find no server."""
    opened, entered = threading.Event(), threading.Event()

    def gated(sequences: Sequence[Sequence[int]]) -> Rewards:
        entered.set()
        opened.wait()
        return summed(sequences)

    addresses: list[str] = []
    statuses: list[int] = []

    def ask(number: int) -> int:
        body = json.dumps({"query": [f"w{number}"]}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{addresses[0]}/get_reward", body), timeout=30) as response:
            assert json.loads(response.read())["rewards"] == [in_float32((1 + 10 + number) / 100)]
            return response.status

    def received() -> float:
        """Sequences in a batch or waiting for one."""
        lines = urllib.request.urlopen(f"{addresses[0]}/metrics").read().decode().splitlines()
        return sum(
            float(line.split()[1]) for line in lines if line.startswith(("lightning_rm_batch_seq", "lightning_rm_wait"))
        )

    def all_ask() -> None:
        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(ask, number) for number in range(8)]
            entered.wait()
            while received() < 8:
                pass
            os.kill(os.getpid(), signal.SIGTERM)
            opened.set()
            statuses.extend(future.result() for future in waiting)

    asking = threading.Thread(target=all_ask, daemon=True)

    def begin(url: str) -> None:
        addresses.append(url)
        asking.start()

    run_server(toy_app(gated), "127.0.0.1", 0, begin)
    asking.join()
    assert statuses == [200] * 8
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{addresses[0]}/health")


def test_a_client_that_goes_while_it_waits_is_not_scored() -> None:
    """The first request is in a batch behind a closed gate, and the client of the second one leaves the queue."""
    opened, entered = threading.Event(), threading.Event()
    scored: list[list[int]] = []

    def gated(sequences: Sequence[Sequence[int]]) -> Rewards:
        scored.extend(list(ids) for ids in sequences)
        entered.set()
        opened.wait()
        return summed(sequences)

    with background_server(toy_app(gated)) as url:

        def ask(token: int) -> http.client.HTTPConnection:
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
            connection.request("POST", "/classify", json.dumps({"input": [token]}))
            return connection

        def told() -> str:
            return urllib.request.urlopen(f"{url}/metrics").read().decode()

        first = ask(11)
        entered.wait()
        second = ask(12)
        while "lightning_rm_waiting_sequences 1\n" not in told():
            pass
        second.close()
        while 'status="499"} 1\n' not in told():
            pass
        opened.set()
        assert first.getresponse().status == 200
        third = ask(13)
        assert third.getresponse().status == 200
        first.close()
        third.close()
    assert scored == [[11], [13]]


def test_a_port_that_is_taken_is_an_error_in_words(model: RewardModel) -> None:
    with (
        background_server(toy_app()) as url,
        pytest.raises(ValueError, match="cannot listen there"),
    ):
        serve(model, word_tokenizer(TEMPLATE), port=int(url.rpartition(":")[2]))
    for port in (70000, "abc"):
        with pytest.raises(ValueError, match=f"port={port}: cannot listen there"):
            serve(model, word_tokenizer(TEMPLATE), port=port)  # pyright: ignore[reportArgumentType]  # as a command line


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="max_items=0; give 1 or more"):
        ServeOptions(max_items=0)
    with pytest.raises(ValueError, match="batch_tokens='many'; give a whole number"):
        ServeOptions(batch_tokens="many")  # pyright: ignore[reportArgumentType]  # as a command line gives it
    with pytest.raises(ValueError, match="api_key is empty"):
        ServeOptions(api_key=" ")
    for key in (120000.0, 17, True):  # what a command line makes of 12e4, 17 and true
        with pytest.raises(ValueError, match=r"^api_key is a number, .*; give it in quotes") as error:
            ServeOptions(api_key=key)  # pyright: ignore[reportArgumentType]
        assert str(key) not in str(error.value)  # nobody's key is shown
