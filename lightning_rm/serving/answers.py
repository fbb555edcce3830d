"""Write rewards as the JSON that the clients of each dialect read. This file knows no model and no HTTP."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_rm.serving.forms import Ask


@dataclass(frozen=True)
class Scored:
    """The results for the items of a request.

    Args:
        rewards: one per item.
        spreads: standard deviation of each item's rewards over members; empty for a model without members.
        num_tokens: of each item.
    """

    rewards: Sequence[float]
    spreads: Sequence[float]
    num_tokens: Sequence[int]


def answer(ask: Ask, scored: Scored, model: str, request_id: str, created: int, label: str = "LABEL_0") -> Any:
    """Return the JSON of an answer.

    Args:
        ask: the request.
        scored: its items' rewards.
        model: the name that the model is served by.
        request_id: names the request.
        created: the time, in seconds since 1970.
        label: what the model's configuration calls its one label.
    """
    numbers = [probability(reward) for reward in scored.rewards] if ask.sigmoid else list(scored.rewards)
    if ask.dialect == "get_reward":
        logs = {"dummy_scores": numbers} | ({"member_std": list(scored.spreads)} if scored.spreads else {})
        return {"rewards": numbers, "scores": numbers, "extra_logs": logs}
    if ask.dialect == "sglang":
        return _sglang(ask, scored, numbers, request_id)
    total = sum(scored.num_tokens)
    usage: dict[str, Any] = {"prompt_tokens": total, "total_tokens": total}
    data: list[dict[str, Any]]
    if ask.dialect == "classify":
        data = [
            {"index": place, "label": label, "probs": [number], "num_classes": 1}
            for place, number in enumerate(numbers)
        ]
    else:
        name, kind = ("data", "pooling") if ask.dialect == "pooling" else ("embedding", "embedding")
        data = [
            {"index": place, "object": kind, name: _float32(number) if ask.base64 else [number]}
            for place, number in enumerate(numbers)
        ]
    body: dict[str, Any] = {"object": "list", "model": model, "data": data, "usage": usage}
    if ask.dialect == "embeddings":
        return body
    usage |= {"completion_tokens": 0, "prompt_tokens_details": None}
    prefix = "classify" if ask.dialect == "classify" else "pool"
    return {"id": f"{prefix}-{request_id}", "created": created} | body


def probability(reward: float) -> float:
    """Return the sigmoid of a reward, without overflow."""
    return 1 / (1 + math.exp(-reward)) if reward >= 0 else math.exp(reward) / (1 + math.exp(reward))


def _sglang(ask: Ask, scored: Scored, numbers: Sequence[float], request_id: str) -> Any:
    """Return a list of objects, or a single object if the text was not sent in a list."""
    listed = [
        {
            "embedding": [number],
            "meta_info": {
                "id": request_id if ask.alone else f"{request_id}-{place}",
                "finish_reason": None,
                "prompt_tokens": tokens,
            },
        }
        for place, (number, tokens) in enumerate(zip(numbers, scored.num_tokens, strict=True))
    ]
    return listed[0] if ask.alone else listed


def _float32(number: float) -> str:
    return base64.b64encode(struct.pack("<f", number)).decode("ascii")
