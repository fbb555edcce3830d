"""What stands between the network and the review: only this machine's own page gets an answer.

A request must name a host that the server was started with, or an IP address: a foreign page that points its own name
at 127.0.0.1 (DNS rebinding) sends that name. Everything that shows or changes data also asks for the token. No other
origin is allowed, and the page may load nothing but its own inline script and style. This file knows only ASGI.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

Headers = dict[str, str]

MAX_BODY_BYTES = 64 * 1024
"""The most bytes of a request."""


class Guard:
    """Middleware that answers only the page.

    Args:
        app: what is guarded.
        token: asked for as `Authorization: Bearer TOKEN` below `/api/`.
        page: the HTML whose inline script and style may run.
        hosts: names under which the server may be reached; IP addresses and `localhost` always may.
    """

    def __init__(self, app: ASGIApp, token: str, page: str, hosts: Iterable[str] = ()) -> None:
        self.app, self.token = app, token
        self.hosts = {host.lower() for host in hosts} | {"localhost"}
        self.headers = [(name.encode(), value.encode()) for name, value in _headers(page).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        given = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["path"], given) or (_too_large(given) if scope["method"] == "POST" else None)
        if refusal is None:
            await self.app(scope, receive, send_guarded)
            return
        status, reason = refusal
        body = json.dumps({"error": reason}).encode()
        await send_guarded(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        )
        await send_guarded({"type": "http.response.body", "body": body})

    def _refusal(self, path: str, given: Headers) -> tuple[int, str] | None:
        """Return why a request is not answered, with its status."""
        host = given.get("host", "")
        if not self._is_own(host):
            return 421, "this server is called by its number or by localhost; open the address that it printed"
        origin = given.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "this request comes from another page"
        if path.startswith("/api/"):
            kind, _, token = given.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self.token.encode()):
                return 401, "the token is missing or of another run; open the address that the server printed"
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _too_large(given: Headers) -> tuple[int, str] | None:
    length = given.get("content-length", "")
    if not length.isdigit():
        return 411, "a request says how many bytes it has"
    return (413, f"a request has at most {MAX_BODY_BYTES:,} bytes") if int(length) > MAX_BODY_BYTES else None


def _headers(page: str) -> Headers:
    """Return the headers of every answer."""
    policy = {
        "default-src": "'none'",
        "script-src": _digests(page, "script"),
        "style-src": _digests(page, "style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }


def _digests(page: str, tag: str) -> str:
    """Return the digests of a page's inline scripts or styles, as a policy names them."""
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    made = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
    return " ".join(f"'sha256-{digest}'" for digest in made)
