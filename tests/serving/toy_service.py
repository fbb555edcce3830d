"""An application over a stand-in whose rewards a reader can compute: the sum of the token ids, over 100."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI

from lightning_rm.serving.app import make_app
from lightning_rm.serving.batcher import Rewards
from lightning_rm.serving.encode import Limits
from lightning_rm.serving.service import Served, Service
from tests.data.words import BOS, word_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}{{ eos_token }}"
)


def in_float32(value: float) -> float:
    """The float32 number that stands for a value: rewards are such, and are told as they are."""
    return float(np.float32(value))


MESSAGES = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3"}]
TEXT = "<s><|user|>w1 w2<|assistant|>w3</s>"
IDS = [BOS, 4, 11, 12, 5, 13, 2]
REWARD = in_float32(sum(IDS) / 100)
WITHOUT_BOS = TEXT.removeprefix("<s>")

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    # verl's reward loop: to vLLM's router, one text, the old name of the flag and the new one; to SGLang's.
    ("/classify", {"model": "toy", "input": WITHOUT_BOS, "activation": False}),
    ("/classify", {"model": "toy", "input": WITHOUT_BOS, "use_activation": False}),
    ("/v1/embeddings", {"model": "/models/toy", "input": WITHOUT_BOS}),
    # vLLM's own forms.
    ("/classify", {"input": TEXT}),
    ("/classify", {"input": [TEXT]}),
    ("/classify", {"input": IDS}),
    ("/classify", {"input": [IDS], "priority": 3, "unknown": {"a": 1}}),
    ("/classify", {"input": TEXT, "add_special_tokens": False}),
    ("/classify", {"messages": MESSAGES}),
    ("/classify", {"messages": [MESSAGES[0], {"role": "assistant", "content": [{"type": "text", "text": "w3"}]}]}),
    ("/pooling", {"input": [TEXT], "task": "classify", "encoding_format": "float", "user": "u"}),
    ("/pooling", {"messages": MESSAGES}),
    ("/v1/embeddings", {"input": [IDS], "dimensions": 1}),
    # SGLang's native form: Skywork's readme sends a list of templated texts without BOS.
    ("/classify", {"model": "toy", "text": [WITHOUT_BOS]}),
    ("/classify", {"text": TEXT}),
    ("/classify", {"input_ids": IDS}),
    ("/classify", {"input_ids": [IDS]}),
    # OpenRLHF's agent: one text a request, special tokens kept, fields beside it that no server reads.
    ("/get_reward", {"query": [TEXT], "prompts": ["w1 w2"], "labels": [None]}),
    ("/get_reward", {"query": [WITHOUT_BOS]}),
]
"""What each client sends for the same conversation: the path and the body."""


def summed(sequences: Sequence[Sequence[int]]) -> Rewards:
    return np.array([[sum(ids) / 100] for ids in sequences], dtype=np.float32)


def toy_app(score: Any = summed, batch_tokens: int = 64, api_key: str | None = None, max_tokens: int = 40) -> FastAPI:
    served = Served(score, word_tokenizer(TEMPLATE, adds_bos=True), ("toy", "/models/toy"), Limits(8, max_tokens, 50))
    return make_app(Service(served, batch_tokens), api_key, max_body_bytes=4096)


async def requested(app: FastAPI, *requests: dict[str, Any]) -> list[httpx.Response]:
    """Answers to requests that are all sent at once."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://toy") as client:
        return await asyncio.gather(*(client.request(**({"method": "POST"} | request)) for request in requests))


def post(app: FastAPI, path: str, body: Any, **more: Any) -> httpx.Response:
    return asyncio.run(requested(app, {"url": path, "json": body} | more))[0]


def number(path: str, body: dict[str, Any], answer: Any) -> float:
    """The reward where the dialect's client reads it."""
    if path == "/get_reward":
        return answer["rewards"][0]
    if isinstance(answer, list):
        return answer[0]["embedding"][0]
    if path == "/classify" and ("text" in body or "input_ids" in body):
        return answer["embedding"][0]
    item = answer["data"][-1]
    return {"/classify": item.get("probs"), "/pooling": item.get("data"), "/v1/embeddings": item.get("embedding")}[
        path
    ][-1]
