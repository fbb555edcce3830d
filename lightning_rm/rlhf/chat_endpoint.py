"""Questions to a chat model behind an address, in OpenAI's request form: paced, retried, and counted.

The key is read from the environment when a question is sent; no field, message or answer holds it. Redirects are not
followed, for they would take the key to another server. It knows HTTP and texts; not what is asked.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import IO, Any, cast

from lightning_rm.counts import check_counts
from lightning_rm.told import json_of

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
"""Answers that a server gives when it is busy."""

MAX_ANSWER_BYTES = 2**24

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for a longer pause is not waited for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to one question.

    Args:
        text: its words; empty where it says nothing.
        num_requests: how often the server was asked.
        prompt_tokens: of the question, as the server counts them; None if it does not.
        completion_tokens: of the answer.
        is_cut: whether the server ended it at its bound of tokens.
    """

    text: str
    num_requests: int
    prompt_tokens: int | None
    completion_tokens: int | None
    is_cut: bool


class StoppedError(Exception):
    """A question that was not answered because of `ChatEndpoint.stop`."""


class ChatEndpoint:
    """A chat model behind an address; questions may be asked by several threads at once.

    Args:
        url: its address without `/chat/completions`: `http://localhost:8000/v1`.
        model: the server's name for it.
        key: the environment variable that holds the server's key; None for a server that needs none.
        request: further fields of every request; those that are None are left out.
        max_retries: how often a busy server is asked again, after 1, 2, 4, ... seconds or what it asks for.
        requests_per_minute: evenly spaced, of all threads together; None for no bound.
        timeout: seconds that an answer may take.
        clock: a monotonic clock, in seconds.
        sleep: called with the seconds to wait; None waits, at most until `stop`.

    Raises:
        ValueError: for an address that would show a secret, a key that is not in the environment, or a number out of
            its range.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None,
        request: Mapping[str, Any],
        max_retries: int,
        requests_per_minute: float | None,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query:
            raise ValueError(
                "url is not a plain http:// or https:// address, without user, password and '?'; a key goes in by key="
            )
        if key is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", key):
            raise ValueError("key is not the name of an environment variable in capitals; name one that holds the key")
        if key is not None and not _secret(key):
            raise ValueError(
                f"the environment variable {key} is not set; set it, or key=null for a server without keys"
            )
        if key is not None and not re.fullmatch(r"[!-~]+", _secret(key)):
            raise ValueError(f"the environment variable {key} holds what a header cannot: blanks, or more than ASCII")
        check_counts(0, max_retries=max_retries)
        for name, number in (("requests_per_minute", requests_per_minute), ("timeout", timeout)):
            if number is not None and not number > 0:
                raise ValueError(f"{name}={number}; give more than 0")
        self.url, self.model = f"{url.rstrip('/')}/chat/completions", model
        self._key, self._max_retries, self._timeout = key, max_retries, timeout
        self._request = {name: value for name, value in request.items() if value is not None}
        self._interval = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._clock, self._stopping = clock, threading.Event()
        self._sleep = sleep or self._stopping.wait
        self._lock, self._next = threading.Lock(), clock()
        self._opener = urllib.request.build_opener(_StayHere)

    def stop(self) -> None:
        """End all waits: questions that are not answered yet raise."""
        self._stopping.set()

    def start(self) -> None:
        """Undo `stop`."""
        self._stopping.clear()

    def ask(self, question: str) -> Answer:
        """Ask one question, as a user's only message.

        Raises:
            ValueError: if the server does not answer, or not in OpenAI's form.
            StoppedError: after `stop`.
        """
        body = {"model": self.model, "messages": [{"role": "user", "content": question}], **self._request}
        data = json.dumps(body).encode()
        problem = ""
        for attempt in range(self._max_retries + 1):
            self._wait_for_turn()
            if self._stopping.is_set():
                raise StoppedError
            pause = 2.0**attempt
            try:
                began = self._clock()
                with self._opener.open(self._to_send(data), timeout=self._timeout) as reply:
                    return self._read(self._within_bounds(reply, began), attempt + 1)
            except urllib.error.HTTPError as error:
                problem = self._told(error)
                pause = max(pause, _retry_after(error.headers))
                if pause > LONGEST_WAIT:
                    problem += f"; it asks for a pause of {pause:,.0f} seconds"
                if error.code not in RETRIED or pause > LONGEST_WAIT:
                    break
                if error.headers["Retry-After"]:  # the server means all threads
                    with self._lock:
                        self._next = max(self._next, self._clock() + pause)
                    continue
            except (OSError, HTTPException, ValueError) as error:  # no connection, no answer in time, or no JSON
                problem = self.without_key(str(error))
            if attempt < self._max_retries:
                self._sleep(pause)
        raise ValueError(f"{self.url} does not answer: {problem}")

    def without_key(self, text: str) -> str:
        """Return a server's words without the key, in case the server repeats it."""
        return text if self._key is None else text.replace(_secret(self._key), "[key]")

    def _wait_for_turn(self) -> None:
        """Wait until this request may be sent; the next one may be an interval later."""
        with self._lock:
            now = self._clock()
            turn = max(self._next, now)
            self._next = turn + self._interval
        if turn > now:
            self._sleep(turn - now)

    def _to_send(self, data: bytes) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {_secret(self._key)}"
        return urllib.request.Request(self.url, data, headers)

    def _read(self, body: bytes, num_requests: int) -> Answer:
        said = json_of(body, "the answer")
        try:
            choice = said["choices"][0]
            text = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise ValueError("the answer has no choices[0].message.content") from None
        if text is not None and not isinstance(text, str):
            raise ValueError("choices[0].message.content of the answer is not a text")
        is_cut = choice.get("finish_reason") == "length"
        return Answer(self.without_key(text or ""), num_requests, *_tokens_of(said.get("usage")), is_cut)

    def _within_bounds(self, reply: HTTPResponse, began: float) -> bytes:
        """Return a server's answer, unless it is longer than any answer to a question, or takes too long.

        A socket's timeout begins anew with every byte, and servers send blanks while they are at work.
        """
        body = bytearray()
        while piece := reply.read1(MAX_ANSWER_BYTES + 1):
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError(f"the answer has more than {MAX_ANSWER_BYTES:,} bytes")
            if self._clock() - began > self._timeout:
                raise TimeoutError(f"the answer has no end after timeout={self._timeout:g} seconds")
        return bytes(body)

    def _told(self, error: urllib.error.HTTPError) -> str:
        """Return status and words; for a refused key the status alone, since servers repeat parts of keys."""
        head = self.without_key(f"{error.code} {error.reason}")
        if error.code in (401, 403):
            return f"{head}; {'it asks for a key' if self._key is None else f'is the key in {self._key} good for it?'}"
        try:
            body = error.read(2000).decode(errors="replace")
        except (OSError, HTTPException):  # the status is enough
            return head
        words = " ".join(self.without_key(body).split())
        return f"{head}: {words[:200]}" if words else head


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A handler that makes a redirect an error, so that the key stays with its server."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Follow nothing."""


def _tokens_of(usage: Any) -> tuple[int | None, int | None]:
    """Return the tokens of question and answer as a server counts them; None for what is no count."""
    told: dict[str, Any] = usage if isinstance(usage, dict) else {}
    prompt, completion = (told.get(f"{name}_tokens") for name in ("prompt", "completion"))
    return prompt if type(prompt) is int else None, completion if type(completion) is int else None


def _secret(key: str) -> str:
    """Return the key that an environment variable holds; empty where it is not set."""
    return os.environ.get(key, "").strip()


def _retry_after(headers: Message) -> float:
    """Return the seconds that a server asks to wait, by number or by date; 0 where it does not say."""
    said = cast(str, headers["Retry-After"] or "").strip()
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
