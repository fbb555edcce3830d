"""The HTTP application: paths, keys, the limit on a body and errors, around the service. It knows HTTP and no model."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lightning_rm.serving.errors import RequestError, error_body
from lightning_rm.serving.service import FORMS, Service

log = logging.getLogger(__name__)

SILENT_SECONDS = 20.0
"""How long a client may be silent in the middle of a body: the end of the server waits for every request."""

DRAIN_SECONDS = 10.0
"""How long a body that is too large is read on, so that its client can read the answer."""


class Answer(JSONResponse):
    """JSON in ASCII: an answer may repeat half a surrogate pair of its request, which UTF-8 cannot encode."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def make_app(service: Service, api_key: str | None = None, max_body_bytes: int = 16 * 2**20) -> FastAPI:
    """Return the application: request forms in, rewards out.

    Args:
        service: answers the requests; closed when the application shuts down.
        api_key: required as `Authorization: Bearer KEY` everywhere except `/health`; None for no key.
        max_body_bytes: the largest body of a request.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        await asyncio.to_thread(service.close)

    async def post(request: Request) -> Response:
        path = request.url.path
        try:
            _check_key(request, api_key)
            raw = await _body(request, max_body_bytes)
            request_id = request.headers.get("x-request-id", "")[:128] or None
            response = Answer(await _unless_gone(request, service.answer(path, raw, request_id)))
        except RequestError as error:
            closing = {"Connection": "close"} if error.status == 408 else None  # the rest of its body is not awaited
            response = Answer(error_body(str(error), error.kind, error.status, error.field), error.status, closing)
        except ClientDisconnect:
            response = Response(status_code=499)  # as proxies count it; nobody reads it
        except Exception as error:
            log.exception("%s failed", path)
            response = Answer(error_body(str(error), "InternalServerError", 500), 500)
        service.meters.add("requests_total", path=path, status=str(response.status_code))
        return response

    async def health() -> Response:
        try:
            await service.check_model()
        except Exception as error:
            reason = str(error).partition("\n")[0]  # torch adds advice on how to find the fault
            told = f"the model does not score any more, restart the server: {reason}"
            return Answer(error_body(told, "ServiceUnavailableError", 503), 503)
        return Answer({"status": "ok"})

    async def models(request: Request) -> Response:
        _check_key(request, api_key)
        return Answer(service.models())

    async def metrics(request: Request) -> Response:
        _check_key(request, api_key)
        return PlainTextResponse(service.metrics(), media_type="text/plain; version=0.0.4")

    told_of = {"/health": health, "/v1/models": models, "/metrics": metrics}

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        return Answer(error_body(str(error), error.kind, error.status, error.field), error.status)

    async def not_there(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind, told = "BadRequestError", f"{error.detail}: {request.method} {request.url.path}"
        if error.status_code == 404:
            kind, told = "NotFoundError", f"there is no {request.url.path}; there are {', '.join([*FORMS, *told_of])}"
        return Answer(error_body(told, kind, error.status_code), error.status_code, error.headers)

    # No page of documentation: its scripts would be loaded over the network.
    app = FastAPI(title="lightning_rm", docs_url=None, redoc_url=None, lifespan=lifespan)
    for path in FORMS:
        app.add_api_route(path, post, methods=["POST"], name=path)
    for path, get in told_of.items():
        app.add_api_route(path, get, methods=["GET"])
    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(HTTPException, not_there)
    return app


async def _body(request: Request, limit: int) -> bytes:
    """Return the body of a request.

    What comes beyond the limit is read for a while and thrown away: a client that still writes when the connection is
    closed would find it reset, and no answer. One that waits to be told to go on (`Expect: 100-continue`) is answered
    at once.

    Raises:
        RequestError: if it is larger than the limit, or does not come to its end.
    """
    told = f"the body has more than the {limit:,} bytes that a request may have; send several requests"
    too_large = RequestError(told, None, 413)
    declared = request.headers.get("content-length", "")
    waits = request.headers.get("expect", "").lower() == "100-continue"
    if waits and declared.isdecimal() and int(declared) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(SILENT_SECONDS) as bound:
            async for chunk in request.stream():
                is_first_beyond = size <= limit < size + len(chunk)
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                    bound.reschedule(asyncio.get_running_loop().time() + SILENT_SECONDS)
                elif is_first_beyond:
                    chunks.clear()
                    bound.reschedule(asyncio.get_running_loop().time() + DRAIN_SECONDS)
        if size <= limit:
            return b"".join(chunks)
    if size > limit:
        raise too_large
    raise RequestError(
        f"the body did not go on for {SILENT_SECONDS:g} seconds after {size:,} bytes; send it again", None, 408
    )


async def _unless_gone(request: Request, answer: Coroutine[Any, Any, Any]) -> Any:
    """Return what a request is answered with; it is cancelled if its client goes first, and then not scored.

    Clients that have waited too long ask again: a busy server would score what nobody reads.

    Raises:
        ClientDisconnect: if the client has gone.
    """
    answering = asyncio.ensure_future(answer)
    going = asyncio.ensure_future(request.receive())  # of a body that was read the next message is that it has gone
    try:
        await asyncio.wait({answering, going}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            answering.cancel()
            await asyncio.wait({answering})  # it has left the queue by then
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        going.cancel()


def _check_key(request: Request, key: str | None) -> None:
    if key is None:
        return
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
        raise RequestError("send the server's key as `Authorization: Bearer KEY`", None, 401, "AuthenticationError")
