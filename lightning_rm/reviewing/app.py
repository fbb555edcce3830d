"""The review over HTTP: one page, and what it asks for. It knows HTTP; the session answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from itertools import chain, islice
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from lightning_rm.reviewing.guard import Guard
from lightning_rm.reviewing.session import AskError, Choice, ReviewSession, Show, Status
from lightning_rm.reviewing.store import OutdatedError

MAX_NOTE = 4000
"""The most characters of a note."""

SHOWN_CHARACTERS = 20_000
"""The most characters of a text that are shown before somebody asks for the rest."""

Reviewer = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60, pattern=r"^[^\x00-\x1f]*$")
]
Limit = Annotated[int | None, Query(ge=0, description="characters of each text; 0 for all")]


class _Decision(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reviewer: Reviewer
    place: int
    choice: Choice
    note: Annotated[str, StringConstraints(max_length=MAX_NOTE)] = ""
    seen: Annotated[int, Field(ge=0)]


class _Undo(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reviewer: Reviewer


def _show(status: Status = "todo", subset: str | None = None, decile: int | None = None, query: str = "") -> Show:
    return Show(status, subset, decile, query)


Shows = Annotated[Show, Depends(_show)]


def page_html() -> str:
    """Return the page, script and style in it."""
    return files("lightning_rm.reviewing").joinpath("page.html").read_text(encoding="utf-8")


def review_app(session: ReviewSession, token: str, hosts: tuple[str, ...] = ()) -> FastAPI:
    """Return the application: any ASGI server runs it.

    Args:
        session: what is reviewed.
        token: sent by those who may review.
        hosts: names under which the server may be reached, beside IP addresses and `localhost`.
    """
    html = page_html()
    app = FastAPI(title="lightning_rm review", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, token=token, page=html, hosts=hosts)

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(html)

    @app.get("/api/state")
    def state(reviewer: Reviewer) -> dict[str, Any]:
        return session.state(reviewer)

    @app.get("/api/next")
    def next_pair(
        reviewer: Reviewer, show: Shows, after: int = -1, step: int = 1, limit: Limit = SHOWN_CHARACTERS
    ) -> dict[str, Any]:
        return session.next(reviewer, show, after, step, limit or None)

    @app.get("/api/pair")
    def pair(reviewer: Reviewer, place: int, limit: Limit = SHOWN_CHARACTERS) -> dict[str, Any]:
        return session.pair(reviewer, place, limit or None)

    @app.get("/api/list")
    def listed(
        reviewer: Reviewer,
        show: Shows,
        offset: Annotated[int, Query(ge=0)] = 0,
        num: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        return session.listed(reviewer, show, offset, num)

    @app.get("/api/search")
    def search(query: Annotated[str, Query(min_length=1, max_length=500)]) -> StreamingResponse:
        found = session.search(query)
        first = list(islice(found, 1))  # what is wrong with the file is said by the status, which goes first

        def lines() -> Iterator[str]:
            for num_read, num_found in chain(first, found):
                yield json.dumps({"read": num_read, "found": num_found, "of": len(session.pairs)}) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @app.post("/api/decide")
    def decide(decision: _Decision) -> dict[str, Any]:
        session.decide(decision.reviewer, decision.place, decision.choice, decision.note, decision.seen)
        return session.state(decision.reviewer)

    @app.post("/api/undo")
    def undo(who: _Undo) -> dict[str, Any]:
        return {"place": session.undo(who.reviewer), "state": session.state(who.reviewer)}

    @app.exception_handler(RequestValidationError)
    async def misunderstood(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _refused(400, f"{'.'.join(str(part) for part in first['loc'][1:]) or 'the request'}: {first['msg']}")

    @app.exception_handler(AskError)
    async def not_answered(request: Request, error: AskError) -> Response:
        return _refused(400, str(error))

    @app.exception_handler(OutdatedError)
    async def outdated(request: Request, error: OutdatedError) -> Response:
        return _refused(409, str(error))

    @app.exception_handler(ValueError)
    async def not_read(request: Request, error: ValueError) -> Response:
        return _refused(500, str(error))  # the file of decisions, which somebody has changed meanwhile

    @app.exception_handler(OSError)
    async def not_written(request: Request, error: OSError) -> Response:
        return _refused(507, f"nothing is written, the pair is still open: {error}")

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, error: HTTPException) -> Response:
        return _refused(error.status_code, str(error.detail))

    return app


def _refused(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason.encode("utf-8", "backslashreplace").decode()}, status)
