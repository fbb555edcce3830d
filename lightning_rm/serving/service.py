"""The service behind the paths: the bytes of a request in, the JSON of its answer out.

One thread parses and tokenises, another owns the model; the event loop that calls `answer` only waits. This file
knows a function from token ids to rewards; no HTTP and no model.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.formats.fields import RowError
from lightning_rm.data.formats.nested import float_of, no_number
from lightning_rm.serving.answers import Scored, answer
from lightning_rm.serving.batcher import Batcher, Score
from lightning_rm.serving.encode import Limits, encode, unread
from lightning_rm.serving.errors import RequestError, found
from lightning_rm.serving.forms import Ask, read_classify, read_embeddings, read_get_reward, read_pooling
from lightning_rm.serving.meters import Meters

log = logging.getLogger(__name__)

MAX_UNREAD = 8
"""How many names of arguments that the template does not read are told, each once."""

FORMS: dict[str, Callable[[Mapping[str, Any]], Ask]] = {
    "/classify": read_classify,
    "/pooling": read_pooling,
    "/v1/embeddings": read_embeddings,
    "/get_reward": read_get_reward,
}
"""Path -> the reader of what is posted there."""


@dataclass(frozen=True)
class Served:
    """A model as the service sees it.

    Args:
        score: token sequences -> (n, M) float32 rewards; called by one thread alone.
        tokenizer: the model's own, as `load_tokenizer` gives it.
        names: the names that requests may use; answers use the first.
        limits: of one request.
        label: what its configuration calls its one label.
        mean: subtracted from every reward.
        std: divides the difference.
    """

    score: Score
    tokenizer: PreTrainedTokenizerBase
    names: tuple[str, ...]
    limits: Limits
    label: str = "LABEL_0"
    mean: float = 0.0
    std: float = 1.0


class Service:
    """Answers requests with the rewards of one model.

    Args:
        served: the model.
        batch_tokens: the most tokens of a batch.
    """

    def __init__(self, served: Served, batch_tokens: int) -> None:
        self.served = served
        self.meters = Meters()
        self.started = int(time.time())
        self._unread: set[str] = set()
        self._batcher = Batcher(served.score, batch_tokens, self._count_batch)
        # Two threads must not use a tokenizer of the Rust library at the same time.
        self._preparing = ThreadPoolExecutor(1, "tokenizer")

    async def answer(self, path: str, raw: bytes, request_id: str | None) -> Any:
        """Return the JSON that answers what was posted.

        Args:
            path: of `FORMS`.
            raw: the request's body.
            request_id: the request's name; None for the one in its body, or a random one.

        Raises:
            RequestError: for a request that cannot be answered.
        """
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        ask, sequences = await loop.run_in_executor(self._preparing, self._prepared, path, raw)
        rewards = await asyncio.wrap_future(self._batcher.submit(sequences))
        self.meters.add("rewards_total", len(sequences))
        self.meters.observe(time.perf_counter() - begun)
        normalised = (rewards.astype(np.float64) - self.served.mean) / self.served.std
        spreads: list[float] = normalised.std(1).tolist() if normalised.shape[1] > 1 else []
        scored = Scored(normalised.mean(1).tolist(), spreads, [len(ids) for ids in sequences])
        named = request_id or ask.request_id or uuid.uuid4().hex
        return answer(ask, scored, self.served.names[0], named, int(time.time()), self.served.label)

    async def check_model(self) -> None:
        """Check that the model still scores: after a failure it has to score a token, whichever, before this returns.

        A text may fail by itself, being too long for the memory; after an error of the device everything does.

        Raises:
            Exception: the model's own, if it does not.
        """
        if self._batcher.failure is not None:
            await asyncio.wrap_future(self._batcher.submit([[0]]))

    def models(self) -> Any:
        """Return the JSON that lists what is served."""
        about = {"object": "model", "created": self.started, "owned_by": "lightning_rm"}
        entry = {"id": self.served.names[0], **about, "max_model_len": self.served.limits.tokens}
        return {"object": "list", "data": [entry]}

    def metrics(self) -> str:
        """Return the counters in the text format of Prometheus."""
        return self.meters.text(waiting_sequences=self._batcher.num_waiting)

    def close(self) -> None:
        """Answer all waiting requests, then end both threads."""
        self._preparing.shutdown()
        self._batcher.close()

    def _prepared(self, path: str, raw: bytes) -> tuple[Ask, list[list[int]]]:
        ask = FORMS[path](_object(raw))
        names = self.served.names
        if ask.model is not None and ask.model not in names:
            known = " or ".join(repr(name) for name in names)
            raise RequestError(f"{found(ask.model)} is not served here; it is {known}", "model", 404, "NotFoundError")
        sequences, num_cut = encode(self.served.tokenizer, ask, self.served.limits)
        if num_cut:
            self.meters.add("truncated_total", num_cut)
        for name in set(unread(self.served.tokenizer, ask)) - self._unread:
            if len(self._unread) < MAX_UNREAD:
                self._unread.add(name)
                log.warning("requests give the template an argument that it does not read: %.40r", name)
        return ask, sequences

    def _count_batch(self, num_sequences: int, num_tokens: int) -> None:
        self.meters.add("batches_total")
        self.meters.add("batch_sequences_total", num_sequences)
        self.meters.add("batch_tokens_total", num_tokens)


def _object(raw: bytes) -> Mapping[str, Any]:
    """Return the JSON object of a body."""
    try:
        body: object = json.loads(raw, parse_float=float_of, parse_constant=no_number)
    except RowError as error:
        raise RequestError(f"the body cannot be read: {error.detail}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON that can be read: {error}") from error
    if not isinstance(body, dict):
        raise RequestError(f"the body must be a JSON object, found {found(body)}")
    return cast("dict[str, Any]", body)
